"""Time series: chaotic systems (nothing to download), the published long-horizon sets, a table of your own."""

from .chaotic import Chaotic
from .csv_file import CSVFile
from .published import ILI, ETTh1, ETTh2, ETTm1, ETTm2, Exchange, Weather

__all__ = ["ILI", "CSVFile", "Chaotic", "ETTh1", "ETTh2", "ETTm1", "ETTm2", "Exchange", "Weather"]
