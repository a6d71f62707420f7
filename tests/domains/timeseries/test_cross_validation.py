"""Windows whose future is known are forecast from their past alone."""

import csv

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.timeseries import Chaotic
from polymamba.domains.timeseries.cross_validation import cross_validation
from polymamba.domains.timeseries.forecasting import Forecasting
from polymamba.domains.timeseries.models.linear import DLinear
from polymamba.domains.timeseries.predict import predict
from polymamba.domains.trained import Trained


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    data = Chaotic(steps=400, lookback=60, horizon=6)
    describe = {"name": data.name, **data.describe().for_model, **data.kept()}
    task = Forecasting(DLinear(60, 6), describe)
    task.eval()
    return Trained(task.model, task, data, describe, "cpu", tmp_path)


def test_the_windows_are_the_last_ones(run):
    [found] = cross_validation(run, 3, step=4)
    values = run.data.series[0].values
    assert found.cutoffs.tolist() == [400 - 6 - 8 - 1, 400 - 6 - 4 - 1, 400 - 6 - 1]
    for place, cutoff in enumerate(found.cutoffs):
        np.testing.assert_allclose(found.truth[place], values[cutoff + 1 : cutoff + 7], rtol=1e-4)
        past = run.data.scaler.scaled(values[cutoff - 59 : cutoff + 1], 0)
        said = run.model(torch.from_numpy(past)[None])[0].detach().double().numpy()
        np.testing.assert_allclose(found.forecast[place], run.data.scaler.original(said, 0), rtol=1e-4, atol=1e-5)
    assert (found.low <= found.forecast).all()
    assert (found.forecast <= found.high).all()


def test_longer_windows_go_on_from_what_was_said(run):
    [found] = cross_validation(run, 2, horizon=9)
    assert found.forecast.shape == (2, 9, 4)
    assert found.times[-1].tolist() == list(range(391, 400))
    [short] = cross_validation(run, 1, horizon=6, step=1)
    assert not np.allclose(found.forecast[-1, :6], short.forecast[-1])


def test_windows_do_not_reach_into_what_was_trained_on(run):
    with pytest.raises(UserError, match="up to 13 within its test part of 80 steps"):
        cross_validation(run, 14)
    assert len(cross_validation(run, 13)[0].cutoffs) == 13


def test_the_table_and_what_does_not_go_with_it(run, tmp_path):
    answer = predict(run, windows=2)
    with open(answer.files[0], newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 6 * 4
    assert len(answer.lines) == 3
    with pytest.raises(UserError, match="step= lies between windows"):
        predict(run, step=3)
    with pytest.raises(UserError, match="the run's own data"):
        predict(run, windows=2, input="other.csv")
