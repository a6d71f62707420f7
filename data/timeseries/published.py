"""The sets that long-horizon forecasting is measured on, as the Time-Series-Library divides them."""

from __future__ import annotations

import numpy as np

from ...core.ranges import Size, checked
from ..download import fetch
from ..files import check_content, data_root, find, not_there, read
from ..loading import Loading
from .frequency import infer
from .sources import ETTH1, ETTH2, ETTM1, ETTM2, EXCHANGE, WEATHER
from .sources import ILI as ILI_SOURCE
from .table import read_table
from .times import read_times
from .windows import Series, SeriesData, shares

HOUR_ENDS = (8_640, 11_520, 14_400)
QUARTER_ENDS = (34_560, 46_080, 57_600)


class PublishedSeries(SeriesData):
    """Base of the published sets: a subclass says its source, where its parts end if they are not tenths, and its usual steps.

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`. The file may lie in it directly or in its source's
            folder, plain, .gz or .xz.
        loading, step, windows, marks: see SeriesData.
        lookback, horizon: steps seen and answered; None: the set's usual ones.
        name: in results; None: the class's, in small letters.
    """

    ends: tuple[int, int, int] | None = None
    steps = (96, 96)  # seen and forecast, where nothing is said
    model_size = None

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=32),
        lookback: Size | None = None,
        horizon: Size | None = None,
        step: Size = 1,
        windows: Size | None = None,
        marks: bool = True,
        name: str | None = None,
    ):
        lookback, horizon = lookback or self.steps[0], horizon or self.steps[1]
        super().__init__(name or type(self).__name__.lower(), loading, lookback, horizon, step, windows, marks)
        self.root = data_root(root)

    def prepare_data(self) -> None:
        """Download the file, where it is not there and there is an address."""
        if self._find() is None and self.source.files:
            fetch(self.source.files[0], self.root / self.source.folder)

    def load(self) -> list[Series]:
        """Read the file and check its sha256; see `SeriesData.load`."""
        path = self._find()
        if path is None:
            raise not_there(self.source.title, self.root)
        name, sha256 = self.source.content[0]
        check_content(path, read(path), sha256)
        table = read_table(path, ",", "point")
        self.variables = [column for column in table.columns if column != "date"]
        stamps = read_times(table, "date", None, None)
        values = np.stack([table.numbers(column) for column in self.variables], 1)
        self.frequency = infer(stamps)
        self.period = self.frequency.season
        ends = shares(len(values), 0.1, 0.2) if self.ends is None else self.ends
        return [Series(name.removesuffix(".csv"), values[: ends[2]], stamps[: ends[2]], ends)]

    def _find(self):
        return find([self.root / folder for folder in (self.source.folder, "")], self.source.content[0][0])


class ETTh1(PublishedSeries):
    """Six loads and the oil temperature of a transformer, hourly, two years."""

    source, ends = ETTH1, HOUR_ENDS


class ETTh2(PublishedSeries):
    """The same of a second transformer."""

    source, ends = ETTH2, HOUR_ENDS


class ETTm1(PublishedSeries):
    """The first transformer, every 15 minutes."""

    source, ends = ETTM1, QUARTER_ENDS


class ETTm2(PublishedSeries):
    """The second transformer, every 15 minutes."""

    source, ends = ETTM2, QUARTER_ENDS


class Weather(PublishedSeries):
    """21 measurements, every 10 minutes, one year."""

    source = WEATHER


class Exchange(PublishedSeries):
    """Eight exchange rates, daily, 1990 to 2010."""

    source = EXCHANGE


class ILI(PublishedSeries):
    """Influenza-like illness, weekly; its usual horizons are 24, 36, 48 and 60."""

    source, steps = ILI_SOURCE, (36, 24)
