"""Errors of the same forecasts on the same windows are what the Time-Series-Library and neuralforecast call them."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from sklearn.preprocessing import StandardScaler

from polymamba.data.loading import Loading
from polymamba.data.timeseries import Chaotic
from polymamba.domains.timeseries.forecasting import Forecasting
from polymamba.domains.timeseries.models.linear import DLinear
from polymamba.domains.timeseries.models.naive import SeasonalNaive

LOOKBACK, HORIZON, STEPS = 40, 12, 701


def library_windows(values):
    """The test windows as data_provider/data_loader.py there makes them (Dataset_Custom), written out: pasts and futures."""
    train, test = int(STEPS * 0.7), int(STEPS * 0.2)
    begin, end = STEPS - test - LOOKBACK, STEPS
    part = StandardScaler().fit(values[:train]).transform(values)[begin:end]
    starts = range(len(part) - LOOKBACK - HORIZON + 1)
    pasts = np.stack([part[start : start + LOOKBACK] for start in starts])
    return pasts, np.stack([part[start + LOOKBACK : start + LOOKBACK + HORIZON] for start in starts])


@pytest.fixture(scope="module")
def tested():
    """What a test says, with a last batch that is not full; the model's forecasts of the library's windows, and their truth."""
    torch.manual_seed(0)
    data = Chaotic(Loading(batch_size=32), lookback=LOOKBACK, horizon=HORIZON, steps=STEPS)
    describe = {"name": data.name, **data.describe().for_model, **data.kept()}
    task = Forecasting(DLinear(LOOKBACK, HORIZON), describe)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False
    )  # fmt: skip
    [found] = trainer.test(task, data, verbose=False)
    pasts, truth = library_windows(data.series[0].values)
    with torch.no_grad():
        said = task.model(torch.from_numpy(pasts).float()).double().numpy()
    return found, said, truth, pasts


def test_no_window_is_dropped(tested):
    _, _, truth, _ = tested
    # the library's own count, len(data) - look-back - horizon + 1
    assert len(truth) == int(STEPS * 0.2) + LOOKBACK - LOOKBACK - HORIZON + 1
    assert len(truth) % 32


def test_errors_are_those_of_the_time_series_library(tested):
    found, said, truth, pasts = tested
    # utils/metrics.py there: MSE and MAE are means over all windows, steps and variables
    assert found["test/mse"] == pytest.approx(np.mean((said - truth) ** 2), rel=1e-6)
    assert found["test/mae"] == pytest.approx(np.mean(np.abs(said - truth)), rel=1e-6)
    last = pasts[:, -1:]
    assert found["test/mse_repeat_last"] == pytest.approx(np.mean((last - truth) ** 2), rel=1e-6)
    assert found["test/mae_repeat_last"] == pytest.approx(np.mean(np.abs(last - truth)), rel=1e-6)


@pytest.mark.slow
def test_errors_are_those_of_neuralforecast(tested):
    losses = pytest.importorskip("neuralforecast.losses.pytorch", reason="neuralforecast is not installed")
    found, said, truth, _ = tested
    truth, said = (torch.from_numpy(each) for each in (truth, said))
    assert found["test/mse"] == pytest.approx(float(losses.MSE()(truth, said)), rel=1e-6)
    assert found["test/mae"] == pytest.approx(float(losses.MAE()(truth, said)), rel=1e-6)


@pytest.mark.slow
def test_the_seasonal_forecast_is_statsforecast_s(tested):
    models = pytest.importorskip("statsforecast.models", reason="statsforecast is not installed")
    pasts, season = tested[-1], 10
    ours = SeasonalNaive(LOOKBACK, HORIZON, season)(torch.from_numpy(pasts[:5])).numpy()
    for window, variable in np.ndindex(5, 4):
        theirs = models.SeasonalNaive(season).forecast(y=pasts[window, :, variable], h=HORIZON)["mean"]
        np.testing.assert_allclose(ours[window, :, variable], theirs, rtol=1e-6)
