"""Windows over series: none dropped, none across a border, scaled by the training part."""

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.timeseries import Chaotic
from polymamba.data.timeseries.scaling import Scaler
from polymamba.data.timeseries.windows import shares


def small(**settings):
    data = Chaotic(**{"steps": 200, "lookback": 24, "horizon": 6, **settings})
    data.setup()
    return data


def test_every_step_of_a_part_is_forecast_and_no_other():
    data = small()
    train, val_end, end = shares(200, 0.1, 0.2)
    for split, first, last in (("train", 24, train), ("val", train, val_end), ("test", val_end, end)):
        starts = data.splits[split]
        forecast = np.unique(starts[:, None] + 24 + np.arange(6))
        np.testing.assert_array_equal(forecast, np.arange(first, last))
        assert data.samples(split) == last - first - 5


def test_a_window_is_the_scaled_series():
    data = small()
    batch = data.load_batch("test", 0, np.array([0, 7]))
    train, val_end, _ = shares(200, 0.1, 0.2)
    values = data.series[0].values
    scaled = (values - values[:train].mean(0)) / values[:train].std(0)
    np.testing.assert_allclose(batch.future[1], scaled[val_end + 7 : val_end + 13], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(batch.past[0], scaled[val_end - 24 : val_end], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        data.scaler.original(batch.past[0].double().numpy(), 0), values[val_end - 24 : val_end], rtol=1e-5
    )


def test_rolling_windows_end_at_the_end():
    data = small(step=6, windows=3)
    assert data.splits["test"].tolist() == [200 - 30 - 12, 200 - 30 - 6, 200 - 30]


def test_a_limit_takes_windows_from_all_of_a_part():
    data = small(loading=Loading(limit=3))
    assert data.samples("train") == 3
    assert data.splits["train"][-1] - data.splits["train"][0] == 140 - 30


def test_the_scaler_goes_with_the_run(tmp_path):
    data = small()
    data.keep(tmp_path / "data")
    other = Chaotic(steps=300, lookback=24, horizon=6)
    other.restore(tmp_path / "data")
    other.setup()
    np.testing.assert_array_equal(other.scaler.mean, data.scaler.mean)
    with pytest.raises(UserError, match="cannot be read"):
        Scaler.load(tmp_path)


def test_mase_is_measured_by_the_training_parts_seasons():
    data = small(steps=300)
    train = data.scaler.scaled(data.series[0].values[:210], 0).astype(np.float64)
    expected = np.abs(train[50:] - train[:-50]).mean(0)
    np.testing.assert_allclose(data.scaler.seasonal_error[0], expected, rtol=1e-4)


def test_parts_too_short_say_what_is_needed():
    with pytest.raises(UserError, match="at least 60 steps in the val part"):
        small(horizon=60)


def test_the_systems_are_what_they_say():
    data = small(steps=2_000)
    mackey_glass, x, y, z = data.series[0].values.T
    assert 0.2 < mackey_glass.min() < mackey_glass.max() < 1.5
    # Lorenz's attractor is symmetric in x and y, and z stays about rho - 1
    assert -20 < x.min() < 0 < x.max() < 20
    assert np.corrcoef(x, y)[0, 1] > 0.8
    assert z.mean() == pytest.approx(23.5, abs=1)


def test_batches_do_not_depend_on_who_asks():
    data = small()
    one, two = (data.load_batch("train", epoch, np.arange(4)) for epoch in (0, 3))
    assert all(map(torch.equal, one, two))
