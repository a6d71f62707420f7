"""Time series: chaotic systems (nothing to download), a table of your own."""

from .chaotic import Chaotic
from .csv_file import CSVFile

__all__ = ["CSVFile", "Chaotic"]
