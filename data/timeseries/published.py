"""The sets that long-horizon forecasting is measured on, as the Time-Series-Library divides them."""

from __future__ import annotations

import numpy as np

from ...core.ranges import Size, checked
from ..download import fetch
from ..files import check_content, data_root, find, not_there, read
from ..loading import Loading
from .frequency import infer
from .sources import ETTH1, ETTH2, ETTM1, ETTM2, EXCHANGE, ILI, WEATHER
from .table import read_table
from .times import read_times
from .windows import Series, SeriesData, shares

HOUR_ENDS = (8_640, 11_520, 14_400)
QUARTER_ENDS = (34_560, 46_080, 57_600)


class PublishedSeries(SeriesData):
    """Base of the published sets: a subclass says its source and, where they are not tenths, where its parts end.

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`. The file may lie in it directly or in its source's
            folder, plain, .gz or .xz.
        loading, lookback, horizon, step, windows, marks, name: see SeriesData.
    """

    ends: tuple[int, int, int] | None = None
    model_size = None

    def __init__(
        self, root: str | None, loading: Loading, lookback: int, horizon: int, step: int, windows: int | None, marks: bool,
        name: str,
    ):  # fmt: skip
        super().__init__(name, loading, lookback, horizon, step, windows, marks)
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
    """Six loads and the oil temperature of a transformer, hourly, two years; arguments as of PublishedSeries."""

    source = ETTH1
    ends = HOUR_ENDS

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=32),
        lookback: Size = 96,
        horizon: Size = 96,
        step: Size = 1,
        windows: Size | None = None,
        marks: bool = True,
        name: str = "etth1",
    ):
        super().__init__(root, loading, lookback, horizon, step, windows, marks, name)


class ETTh2(PublishedSeries):
    """The same of a second transformer; arguments as of PublishedSeries."""

    source = ETTH2
    ends = HOUR_ENDS

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=32),
        lookback: Size = 96,
        horizon: Size = 96,
        step: Size = 1,
        windows: Size | None = None,
        marks: bool = True,
        name: str = "etth2",
    ):
        super().__init__(root, loading, lookback, horizon, step, windows, marks, name)


class ETTm1(PublishedSeries):
    """The first transformer, every 15 minutes; arguments as of PublishedSeries."""

    source = ETTM1
    ends = QUARTER_ENDS

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=32),
        lookback: Size = 96,
        horizon: Size = 96,
        step: Size = 1,
        windows: Size | None = None,
        marks: bool = True,
        name: str = "ettm1",
    ):
        super().__init__(root, loading, lookback, horizon, step, windows, marks, name)


class ETTm2(PublishedSeries):
    """The second transformer, every 15 minutes; arguments as of PublishedSeries."""

    source = ETTM2
    ends = QUARTER_ENDS

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=32),
        lookback: Size = 96,
        horizon: Size = 96,
        step: Size = 1,
        windows: Size | None = None,
        marks: bool = True,
        name: str = "ettm2",
    ):
        super().__init__(root, loading, lookback, horizon, step, windows, marks, name)


class Weather(PublishedSeries):
    """21 measurements, every 10 minutes, one year; arguments as of PublishedSeries."""

    source = WEATHER

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=32),
        lookback: Size = 96,
        horizon: Size = 96,
        step: Size = 1,
        windows: Size | None = None,
        marks: bool = True,
        name: str = "weather",
    ):
        super().__init__(root, loading, lookback, horizon, step, windows, marks, name)


class Exchange(PublishedSeries):
    """Eight exchange rates, daily, 1990 to 2010; arguments as of PublishedSeries."""

    source = EXCHANGE

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=32),
        lookback: Size = 96,
        horizon: Size = 96,
        step: Size = 1,
        windows: Size | None = None,
        marks: bool = True,
        name: str = "exchange",
    ):
        super().__init__(root, loading, lookback, horizon, step, windows, marks, name)


class ILI(PublishedSeries):
    """Influenza-like illness, weekly; its horizons are 24, 36, 48 and 60; arguments as of PublishedSeries."""

    source = ILI

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=32),
        lookback: Size = 36,
        horizon: Size = 24,
        step: Size = 1,
        windows: Size | None = None,
        marks: bool = True,
        name: str = "ili",
    ):
        super().__init__(root, loading, lookback, horizon, step, windows, marks, name)
