"""Where the time series come from."""

from __future__ import annotations

from ..sources import RemoteFile, Source

CHAOTIC = Source(
    title="Mackey-Glass and Lorenz, integrated here",
    homepage="computed here",
    citation="M. Mackey, L. Glass, Science 197, 1977; E. Lorenz, Journal of the Atmospheric Sciences 20, 1963",
    licence="none needed: computed",
    protocol="in time: 70% training, 10% validation, 20% test",
)

CSV_FILE = Source(
    title="A table of your own",
    homepage="your own",
    citation="your own",
    licence="the user's own",
    protocol="in time: the last shares of each series are for validation and for testing",
)

ETT_HOURS = (
    "12, 4 and 4 months of 30 days: 8,640, 2,880 and 2,880 steps; the rest is not used (Informer, Time-Series-Library)"
)
ETT_QUARTERS = ETT_HOURS.replace("8,640, 2,880 and 2,880", "34,560, 11,520 and 11,520")
TENTHS = "in time: 70% training, 10% validation, 20% test (Time-Series-Library)"


def _ett(name: str, protocol: str, sha256: str, size: int) -> Source:
    address = f"https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/{name}.csv"
    return Source(
        title=f"Electricity transformer temperature, {name}",
        homepage="https://github.com/zhouhaoyi/ETDataset",
        citation="H. Zhou et al.: Informer, arXiv:2012.07436, 2021",
        licence="CC BY-ND 4.0",
        protocol=protocol,
        folder="time_series/ETT",
        files=(RemoteFile(f"{name}.csv", (address,), sha256, size),),
        content=((f"{name}.csv", sha256),),
    )


ETTH1 = _ett("ETTh1", ETT_HOURS, "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066", 2_589_657)
ETTH2 = _ett("ETTh2", ETT_HOURS, "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b", 2_417_960)
ETTM1 = _ett("ETTm1", ETT_QUARTERS, "6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e", 10_360_719)
ETTM2 = _ett("ETTm2", ETT_QUARTERS, "db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd", 9_677_236)

WEATHER = Source(
    title="Weather at Jena in 2020, every 10 minutes",
    homepage="https://www.bgc-jena.mpg.de/wetter",
    citation="H. Wu et al.: Autoformer, arXiv:2106.13008, 2021",
    licence="none stated",
    protocol=TENTHS,
    folder="time_series/weather",
    content=(("weather.csv", "34ee981d07313e51da2a50bb600072c8ae4a69cb4b0651f4cb93a069d7a2ba63"),),
)
EXCHANGE = Source(
    title="Exchange rates of eight currencies, daily, 1990 to 2010",
    homepage="https://github.com/laiguokun/multivariate-time-series-data",
    citation="G. Lai et al.: LSTNet, arXiv:1703.07015, 2018",
    licence="none stated",
    protocol=TENTHS,
    folder="time_series/exchange_rate",
    content=(("exchange_rate.csv", "48b4d9d3d508f5104162e85b9a6042e3557fde11aa9f2944eba8c0d0efc89842"),),
)
ILI = Source(
    title="Influenza-like illness in the United States, weekly, 2002 to 2020",
    homepage="https://gis.cdc.gov/grasp/fluview/fluportaldashboard.html",
    citation="H. Wu et al.: Autoformer, arXiv:2106.13008, 2021",
    licence="none stated",
    protocol=TENTHS,
    folder="time_series/national_illness",
    content=(("national_illness.csv", "93601f64d2566dc796ca4305adad8b8560c2db1a1ff04543c3bd813a7263570a"),),
)
UCR = Source(
    title="UCR and UEA archives of labelled time series",
    homepage="https://www.timeseriesclassification.com",
    citation="H. Dau et al.: The UCR Time Series Archive, arXiv:1810.07758; A. Bagnall et al.: arXiv:1811.00075, 2018",
    licence="none stated",
    protocol="each set's own training and test part; validation series are taken out of training",
    folder="time_series/UCR_UEA",
)
