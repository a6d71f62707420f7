"""What comes after the end, in units and times."""

import csv
from datetime import date, timedelta

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.timeseries import Archive, Chaotic, CSVFile
from polymamba.domains.timeseries.anomaly import Anomaly
from polymamba.domains.timeseries.classification import Classification
from polymamba.domains.timeseries.forecasting import Forecasting
from polymamba.domains.timeseries.imputation import Imputation
from polymamba.domains.timeseries.models import mamba_forecaster
from polymamba.domains.timeseries.models.linear import DLinear
from polymamba.domains.timeseries.models.mambaformer import Mambaformer
from polymamba.domains.timeseries.models.naive import SeasonalNaive
from polymamba.domains.timeseries.predict import coming, predict
from polymamba.domains.timeseries.tables import said_time
from polymamba.domains.trained import Trained

START = date(2024, 1, 1)


def shops(folder, name="shops.csv", days=140, extra=""):
    rows = ["unique_id,ds,y,holiday"]
    for shop, level in (("north", 100), ("south", 1_000)):
        for day in range(days):
            rows.append(f"{shop},{START + timedelta(day)},{level * (1 + day % 7)},{'yes' if day % 7 == 6 else 'no'}")
    (folder / name).write_text("\n".join(rows) + extra)
    return str(folder / name)


def run_of(data, folder, model=None):
    describe = {"name": data.name, **data.describe().for_model, **data.kept()}
    model = model or SeasonalNaive(data.lookback, data.horizon, data.period)
    task = Forecasting(model, describe)
    task.eval()
    return Trained(model, task, data, describe, "cpu", folder)


@pytest.fixture
def run(tmp_path):
    data = CSVFile(files=shops(tmp_path), lookback=14, horizon=7)
    return run_of(data, tmp_path)


def test_the_coming_days_in_the_shops_own_units(run, tmp_path):
    north, south = coming(run, horizon=10)
    assert north.times[0] == np.datetime64("2024-05-20")
    assert len(north.times) == 10
    expected = [100 * (1 + day % 7) for day in range(140, 150)]
    np.testing.assert_allclose(north.forecast[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(south.forecast[:, 0], 10 * np.array(expected), rtol=1e-5)
    assert (north.low <= north.forecast).all()
    assert (north.forecast <= north.high).all()


def test_the_table(run, tmp_path):
    answer = predict(run, horizon=3, series="south")
    assert answer.files == [tmp_path / "forecasts.csv", tmp_path / "forecasts.png"]
    with open(answer.files[0], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["time"] for row in rows] == ["2024-05-20", "2024-05-21", "2024-05-22"]
    assert {row["series"] for row in rows} == {"south"}
    assert float(rows[0]["forecast"]) == pytest.approx(1_000)


def test_other_data_are_gone_on_from_in_their_own_times(run, tmp_path):
    [north, _] = coming(run, input=shops(tmp_path, "longer.csv", 150), horizon=2)
    assert north.times[0] == np.datetime64("2024-05-30")
    assert north.forecast[0, 0] == pytest.approx(100 * (1 + 150 % 7))


def test_a_series_that_there_is_not(run):
    with pytest.raises(UserError, match="series=south"):
        predict(run, series="sooth")


def test_so_far_ahead_there_are_no_intervals(run):
    answer = predict(run, horizon=40, pictures=0)
    assert "no intervals" in answer.problems[0]


def test_coming_values_of_what_is_known_ahead_are_asked_for(tmp_path):
    data = CSVFile(files=shops(tmp_path), lookback=14, horizon=7, future="holiday")
    data.describe()
    model = Mambaformer(14, 7, 1, mark_features=5, d_model=8, d_ff=8, n_layer=1, n_heads=2)
    run = run_of(data, tmp_path, model)
    with pytest.raises(UserError, match="coming 7 values of holiday are needed"):
        predict(run)
    short = shops(tmp_path, "coming.csv", 143)
    with pytest.raises(UserError, match="none for 2024-05-23"):
        predict(run, future=short)
    one = coming(run, future=shops(tmp_path, "coming.csv", 150))
    assert len(one[0].times) == 7
    text = (tmp_path / "coming.csv").read_text().replace("2024-05-20,100,no", "2024-05-20,100,yes")
    (tmp_path / "other.csv").write_text(text)
    other = coming(run, future=str(tmp_path / "other.csv"))
    assert not np.allclose(one[0].forecast, other[0].forecast)
    np.testing.assert_allclose(one[1].forecast, other[1].forecast)


def test_series_without_times_go_on_in_steps(tmp_path):
    torch.manual_seed(0)
    run = run_of(Chaotic(steps=300, lookback=60, horizon=6), tmp_path)
    [found] = coming(run, horizon=2)
    assert found.times.tolist() == [300, 301]
    assert said_time(found.times[0]) == "300"
    with pytest.raises(UserError, match="no other files"):
        predict(run, input="some.csv")


def test_intervals_behind_the_end_have_learnt_from_the_test_part(tmp_path):
    # the errors of the test part are half as large as those of the validation part
    days = np.arange(400)
    noise = np.random.default_rng(0).standard_normal(400) * np.where(days < 320, 1.0, 0.2)
    rows = ["ds,y", *(f"{START + timedelta(int(day))},{10 + each:.4f}" for day, each in zip(days, noise, strict=True))]
    (tmp_path / "calmer.csv").write_text("\n".join(rows))
    data = CSVFile(files=str(tmp_path / "calmer.csv"), lookback=14, horizon=2, frequency="1 day")
    run = run_of(data, tmp_path)
    [found] = coming(run)
    from polymamba.domains.timeseries.forecasting import calibrate

    split = calibrate(run.task, data).width(0.9).numpy() * data.scaler.deviation[0]
    assert (found.high - found.low < 2 * split).all()


def scorer(tmp_path):
    data = CSVFile(files=shops(tmp_path), lookback=14, horizon=7)
    describe = {"name": data.name, **data.describe().for_model, **data.kept()}
    torch.manual_seed(0)
    task = Anomaly(DLinear(14, 14), describe, width=3, alarms=0.05)
    task.eval()
    return Trained(task.model, task, data, describe, "cpu", tmp_path)


def test_values_are_scored(tmp_path):
    run = scorer(tmp_path)
    answer = predict(run, series="north")
    assert answer.files == [tmp_path / "scores.csv", tmp_path / "scores.png"]
    with open(answer.files[0], newline="") as file:
        rows = list(csv.DictReader(file))
    # the test part: a fifth of 140 days
    assert [row["time"] for row in rows] == [str(START + timedelta(day)) for day in range(112, 140)]
    for row in rows:
        assert (float(row["score"]) > 1) == (row["alarm"] == "True")
    text = (
        (tmp_path / "shops.csv")
        .read_text()
        .replace(f"north,{START + timedelta(125)},700", f"north,{START + timedelta(125)},9000")
    )
    (tmp_path / "wrong.csv").write_text(text)
    answer = predict(run, input=str(tmp_path / "wrong.csv"), series="north", pictures=0)
    with open(answer.files[0], newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 140
    assert max(rows, key=lambda row: float(row["score"]))["time"] == str(START + timedelta(125))
    assert rows[125]["alarm"] == "True"
    assert float(rows[125]["value"]) == 9000


def test_classes_are_named_and_explained(tmp_path):
    header = ["@univariate true", "@classLabel true up down", "@data"]
    rows = [
        f"{','.join(str(sign * (step + each)) for step in range(20))}:{label}"
        for each in range(4)
        for sign, label in ((1, "up"), (-1, "down"))
    ]
    for part in ("TRAIN", "TEST"):
        (tmp_path / f"Ramps_{part}.ts").write_text("\n".join([*header, *rows]))
    data = Archive(root=str(tmp_path), set="Ramps", val_fraction=0.25)
    describe = {"name": data.name, **data.describe().for_model, **data.kept()}
    torch.manual_seed(0)
    model = mamba_forecaster.build(describe, d_model=8, n_layer=1, patch_len=8, stride=4).eval()
    run = Trained(model, Classification(model, describe), data, describe, "cpu", tmp_path / "run")
    answer = predict(run, pictures=3, top=2)
    assert answer.files == [tmp_path / "run/predictions.csv", tmp_path / "run/predictions.png"]
    assert answer.lines[-1].endswith("8 series with a label are named as it is")
    (tmp_path / "new.ts").write_text("\n".join(["@univariate true", "@classLabel false", "@data", "1,2,3", "3,2,1,0"]))
    answer = predict(run, input=str(tmp_path / "new.ts"), pictures=0)
    assert len(answer.lines) == 2
    [picture] = predict(run, explain="attribution", pictures=2).files
    assert picture.stat().st_size > 0
    with pytest.raises(UserError, match="horizon= is not for classification"):
        predict(run, horizon=3)
    with pytest.raises(UserError, match="no such file"):
        predict(run, input="none.ts")


def test_forecasts_are_explained(tmp_path):
    data = CSVFile(files=shops(tmp_path), lookback=14, horizon=7)
    describe = {"name": data.name, **data.describe().for_model, **data.kept()}
    model = mamba_forecaster.build(describe, d_model=8, n_layer=1, patch_len=8, stride=4)
    run = run_of(data, tmp_path, model)
    [picture] = predict(run, explain="rollout").files
    assert picture == tmp_path / "explained_rollout.png"


def test_tasks_that_answer_nothing_of_a_persons_own_say_so(tmp_path):
    run = scorer(tmp_path)
    task = Imputation(DLinear(14, 14), run.describe)
    with pytest.raises(UserError, match="answers nothing about data of your own"):
        predict(Trained(task.model, task, run.data, run.describe, "cpu", tmp_path))
