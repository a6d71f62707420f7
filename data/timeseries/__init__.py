"""Time series: chaotic systems (nothing to download), the published long-horizon sets, labelled series, a table of your own."""

from .archive import Archive
from .chaotic import Chaotic
from .csv_file import CSVFile
from .published import ILI, ETTh1, ETTh2, ETTm1, ETTm2, Exchange, Weather

__all__ = ["ILI", "Archive", "CSVFile", "Chaotic", "ETTh1", "ETTh2", "ETTm1", "ETTm2", "Exchange", "Weather"]
