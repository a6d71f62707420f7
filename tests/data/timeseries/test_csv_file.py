"""Shop sales as people write them: each way is read right, or refused with the line that is wrong."""

import numpy as np
import pytest

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.timeseries import CSVFile

DAYS = np.arange("2024-02-20", "2024-05-30", dtype="datetime64[D]")  # with a leap day
SALES = [100 + 10 * (day % 7) + 0.25 * (day % 4) for day in range(len(DAYS))]


def lines(date="%Y-%m-%d", separator=",", decimal="."):
    dates = [day.item().strftime(date) for day in DAYS]
    numbers = [f"{sale:.2f}".replace(".", decimal) for sale in SALES]
    return [
        f"ds{separator}sales",
        *(f"{day}{separator}{number}" for day, number in zip(dates, numbers, strict=True)),
    ]


def data_of(folder, rows, encoding="utf-8", end="\n", file="sales.csv", **settings):
    (folder / file).write_bytes((end.join(rows) + end).encode(encoding))
    return CSVFile(files=str(folder / file), **{"lookback": 14, "horizon": 7, **settings})


def series_of(*arguments, **settings):
    data = data_of(*arguments, **settings)
    data.setup()
    [found] = data.series
    return found


READ = {
    "plain": {},
    "semicolons and decimal commas": {"rows": lines(separator=";", decimal=",")},
    "a mark at the beginning": {"encoding": "utf-8-sig"},
    "tabs": {"rows": lines(separator="\t")},
    "lines of Windows": {"end": "\r\n"},
    "German dates": {"rows": lines("%d.%m.%Y", ";", ",")},
    "dates with the month first": {"rows": lines("%m/%d/%Y")},
    "two bytes a letter": {"encoding": "utf-16"},
    "newest first": {"rows": [lines()[0], *lines()[:0:-1]]},
    "a row twice": {"rows": [*lines(), lines()[5]]},
    "empty lines": {"rows": [lines()[0], "", *lines()[1:], ""]},
    "spaces around": {"rows": [row.replace(",", " , ") for row in lines()]},
    "quotes": {"rows": ['"ds","sales"', *(f'"{row[:10]}","{row[11:]}"' for row in lines()[1:])]},
    "midnights": {"rows": lines("%Y-%m-%d 00:00:00")},
    "day, month in words, year": {"rows": lines("%d %b %Y")},
    "another column of text that is not asked for": {
        "rows": ["ds,sales,note", *(f"{row},fine" for row in lines()[1:])], "targets": "sales",
    },
    "a sign before numbers": {"rows": [row.replace(",", ",+") if row[0] == "2" else row for row in lines()]},
}  # fmt: skip


@pytest.mark.parametrize("way", READ)
def test_it_is_read_right(tmp_path, way):
    found = series_of(tmp_path, **{"rows": lines(), **READ[way]})
    np.testing.assert_array_equal(found.stamps, DAYS.astype("datetime64[s]"))
    np.testing.assert_allclose(found.values[:, 0], SALES)


def test_thousands_marks_are_read_where_other_numbers_show_what_they_mean(tmp_path):
    thousands = [1_000 * sale for sale in SALES]
    for file, mark, point, separator in (("point.csv", ",", ".", ";"), ("comma.csv", ".", ",", ";")):
        numbers = [f"{each:,.2f}".translate(str.maketrans(",.", mark + point)) for each in thousands]
        rows = [f"ds{separator}sales", *(f"{day}{separator}{each}" for day, each in zip(DAYS, numbers, strict=True))]
        np.testing.assert_allclose(series_of(tmp_path, rows, file=file).values[:, 0], thousands)


@pytest.mark.parametrize("way", ["a line left out", "an empty cell", "NA", "a dash"])
def test_a_gap_is_filled_between_its_neighbours(tmp_path, way):
    row = lines()[20].split(",")[0]
    rows = changed(21, {"an empty cell": f"{row},", "NA": f"{row},NA", "a dash": f"{row},-"}.get(way, ""))
    found = series_of(tmp_path, [each for each in rows if each])
    expected = np.array(SALES)
    expected[19] = (SALES[18] + SALES[20]) / 2
    np.testing.assert_allclose(found.values[:, 0], expected)


def changed(line, text):
    rows = lines()
    rows[line - 1] = text
    return rows


AMBIGUOUS = ["ds;sales", *(f"2024-01-{day:02};1,{100 + day}" for day in range(1, 31))]
REFUSED = {
    "text in a number column": (changed(8, "2024-02-26,12 pcs"), ("line 8", "'sales'", "12 pcs")),
    "two date formats": (changed(9, "27.02.2024,120"), ("line 9", "'ds'", "27.02.2024")),
    "a time stamp with two values": ([*lines(), "2024-03-01,7"], ("lines 12, 102", "data.duplicates")),
    "a column too many": (changed(4, "2024-02-22,1,5"), ("line 4", "2")),
    "a thousand or one and a bit": (AMBIGUOUS, ("line 2", "data.decimal")),
    "a currency": (changed(5, "2024-02-23,EUR 120"), ("line 5", "'sales'", "120")),
    "a day that there is not": (changed(12, "2024-02-30,5"), ("line 12", "'ds'", "2024-02-30")),
    "two marks of decimals": (changed(6, "2024-02-24,1.2.3"), ("line 6", "'sales'", "1.2.3")),
    "a number too large": (changed(7, "2024-02-25,1e999"), ("line 7", "1e999")),
    "a line cut short": (changed(10, "2024-02-28"), ("line 10", "1")),
    "a word among dates": (changed(3, "yesterday,5"), ("line 3", "'ds'", "yesterday")),
    "no names": (lines()[1:], ("no line of names", "2024-02-20, 100.00")),
    "another encoding": (["ds,sales", "2024-01-01,1", "2024-01-02,1 \xe9"], ("line 3", "latin-1")),
    "names and nothing else": (lines()[:1], ("nothing else",)),
    "no column of times": (["a,b", "1,2", "3,4"], ("data.time",)),
    "one name twice": (["ds,y,y", "2024-01-01,1,2"], ("line 1", "'y'")),
    "words to be forecast": (["ds,shop,y", "2024-01-01,North,1", "2024-01-02,South,2"], ("'shop'", "data.id=shop")),
}


@pytest.mark.parametrize("way", REFUSED)
def test_it_is_refused_with_the_place(tmp_path, way):
    rows, said = REFUSED[way]
    data = data_of(tmp_path, rows, encoding="latin-1")
    with pytest.raises(UserError) as error:
        data.setup()
    assert all(each in str(error.value) for each in said), str(error.value)


def test_what_was_done_is_said(tmp_path, caplog):
    rows = lines()
    data_of(tmp_path, [rows[0], *rows[:10:-1], *rows[3:11]], file="said.csv").setup()
    said = " ".join(caplog.messages)
    assert "sorted" in said
    assert "times are column 'ds'" in said
    assert "a step is 1 day, a season 7 steps" in said


@pytest.mark.parametrize(
    ("policy", "expected"), [("interpolate", [115.0, 130.0]), ("forward", [100.0, 100.0]), ("zero", [0.0, 0.0])]
)
def test_gaps_are_filled_as_the_policy_says(tmp_path, policy, expected):
    rows = lines()
    rows[11:14] = [rows[11].split(",")[0] + ",100", rows[12].split(",")[0] + ",", rows[13].split(",")[0] + ",NA"]
    rows[14] = rows[14].split(",")[0] + ",145"
    found = series_of(tmp_path, rows, missing=policy)
    np.testing.assert_allclose(found.values[11:13, 0], expected)
    without = series_of(tmp_path, rows[:12] + rows[14:], missing=policy, file="without.csv")
    np.testing.assert_allclose(found.values, without.values)


def test_gaps_are_refused_where_that_is_asked(tmp_path):
    with pytest.raises(UserError, match="2024-02-29"):
        data_of(tmp_path, [row for row in lines() if "2024-02-29" not in row], missing="refuse").setup()


@pytest.mark.parametrize(("policy", "expected"), [("first", 1.0), ("last", 3.0), ("mean", 2.0), ("sum", 4.0)])
def test_duplicates_are_merged_as_the_policy_says(tmp_path, policy, expected):
    rows = [row for row in lines() if "2024-03-05" not in row]
    found = series_of(tmp_path, [*rows, "2024-03-05,1", "2024-03-05,3"], duplicates=policy)
    assert found.values[found.stamps == np.datetime64("2024-03-05"), 0] == expected


def test_stamps_between_steps(tmp_path):
    rows = changed(20, "2024-03-09 11:00,1")
    with pytest.raises(UserError, match="line 20"):
        data_of(tmp_path, rows).setup()
    assert series_of(tmp_path, rows, irregular="nearest").values[18, 0] == 1


def long_rows():
    shops = {"north": 1.0, "south": 5.0}
    rows = ["unique_id,ds,y,price,holiday,kind"]
    for name, level in shops.items():
        for number, day in enumerate(DAYS):
            holiday = "yes" if number % 7 == 6 else "no"
            rows.append(f"{name},{day},{level * SALES[number]},{number % 5},{holiday},{name}_kind")
    return rows


def test_many_series_each_in_its_own_units(tmp_path):
    data = data_of(tmp_path, long_rows(), past="price", future="holiday", static=["kind"])
    described = data.describe()
    assert [each.name for each in data.series] == ["north", "south"]
    assert described.for_model["variables"] == 2
    assert described.for_model["targets"] == 1
    # holiday and kind have two values each, and the calendar of days three features
    assert described.for_model["mark_features"] == 2 + 2 + 3
    np.testing.assert_allclose(data.scaler.mean[1, 0], 5 * data.scaler.mean[0, 0])
    batch = data.load_batch("train", 0, np.array([0, data.samples("train") - 1]))
    assert batch.series.tolist() == [0, 1]
    assert batch.marks[0, :, 2:4].unique(dim=0).tolist() == [[1.0, 0.0]]


def test_hours_in_a_zone_with_summer_time(tmp_path):
    hours = np.arange("2024-03-29T00", "2024-04-02T00", dtype="datetime64[h]")
    wall = [f"{hour}:00".replace("T", " ") for hour in hours if str(hour) != "2024-03-31T02"]
    rows = ["time,load", *(f"{each},{number}" for number, each in enumerate(wall))]
    data = data_of(tmp_path, rows, time_zone="Europe/Berlin", lookback=8, horizon=4)
    data.setup()
    [found] = data.series
    assert set(np.diff(found.stamps).astype(int)) == {3_600}
    assert data.local(found.stamps[:1])[0] == "2024-03-29 00:00:00+01:00"
    assert data.local(found.stamps[-1:])[0] == "2024-04-01 23:00:00+02:00"
    with pytest.raises(UserError, match="the clocks skip"):
        data_of(tmp_path, [*rows, "2024-03-31 02:00,5"], time_zone="Europe/Berlin").setup()


def test_parquet_says_the_same(tmp_path):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"ds": [day.item() for day in DAYS], "sales": SALES})
    frame.write_parquet(tmp_path / "sales.parquet")
    data = CSVFile(files=str(tmp_path / "sales.parquet"), lookback=14, horizon=7)
    data.setup()
    np.testing.assert_array_equal(data.series[0].stamps, DAYS.astype("datetime64[s]"))
    np.testing.assert_allclose(data.series[0].values[:, 0], SALES)


def test_steps_follow_from_the_season_and_the_length(tmp_path):
    data = data_of(tmp_path, lines(), lookback=None, horizon=None)
    assert data.describe().for_model["horizon"] == 7
    assert data.lookback == 32
    kept = CSVFile(files=str(tmp_path / "sales.csv"))
    data.keep(tmp_path / "data")
    kept.restore(tmp_path / "data")
    kept.setup()
    assert (kept.lookback, kept.horizon) == (32, 7)


def test_too_few_rows_say_how_many_are_needed(tmp_path):
    with pytest.raises(UserError, match="no window fits into the val part"):
        data_of(tmp_path, lines()[:40]).setup()


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        CSVFile(files=str(tmp_path / "none.csv")).setup()
    with pytest.raises(UserError, match=r"data\.files=FILE"):
        CSVFile(loading=Loading())
