"""Losses, metrics and what a model is told in training."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from polymamba.core.errors import UserError
from polymamba.data.timeseries import Chaotic, CSVFile
from polymamba.domains.timeseries.forecasting import Forecasting, calibrate, forecast
from polymamba.domains.timeseries.models.linear import DLinear
from polymamba.domains.timeseries.models.mambats import MambaTS
from polymamba.domains.timeseries.models.naive import SeasonalNaive


def chaotic(**settings):
    return Chaotic(**{"steps": 400, "lookback": 60, "horizon": 6, **settings})


def task_of(data, model=None, **settings):
    describe = {"name": data.name, **data.describe().for_model, **data.kept()}
    return Forecasting(DLinear(data.lookback, data.horizon) if model is None else model, describe, **settings)


class Remembering(nn.Module):
    """Says zero, and keeps what it was told."""

    def __init__(self, horizon):
        super().__init__()
        self.horizon, self.observed, self.seen = horizon, [], []
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x, marks=None):
        self.seen.append((x, marks))
        return x[:, : self.horizon] * 0 + self.weight

    def observe(self, losses):
        self.observed.append(losses)


@pytest.mark.parametrize(
    ("settings", "loss"),
    [
        ({}, F.mse_loss),
        ({"loss": "mae"}, F.l1_loss),
        ({"loss": "huber"}, F.huber_loss),
        ({"loss": "quantile", "quantile": 0.5}, lambda said, truth: F.l1_loss(said, truth) / 2),
    ],
)
def test_losses(settings, loss):
    data = chaotic()
    task, batch = task_of(data, **settings), data.example(5)
    expected = loss(task.model(batch.past), batch.future)
    assert_close(task.step(batch, "train")[0], expected)
    assert_close(task.step(batch, "val")[0], expected)


def test_metrics_are_those_of_the_time_series_library():
    data = chaotic()
    task, batch = task_of(data), data.example(40)
    _, metrics = task.step(batch, "test")
    said, truth = task.model(batch.past).detach().numpy(), batch.future.numpy()
    # utils/metrics.py there: means over all windows, steps and variables, of scaled values
    assert metrics["mse"].item() == pytest.approx(float(np.mean((said - truth) ** 2)), rel=1e-6)
    assert metrics["mae"].item() == pytest.approx(float(np.mean(np.abs(said - truth))), rel=1e-6)
    last = batch.past[:, -1:].numpy()
    assert metrics["mse_repeat_last"].item() == pytest.approx(float(np.mean((last - truth) ** 2)), rel=1e-6)
    season = batch.past[:, 10:16].numpy()
    assert metrics["mse_seasonal_naive"].item() == pytest.approx(float(np.mean((season - truth) ** 2)), rel=1e-6)
    values = data.series[0].values
    units = data.scaler.original(said.astype(np.float64), 0)
    true_units = np.stack([values[start + 60 : start + 66] for start in data.splits["test"][:40]])
    assert metrics["mae_units"].item() == pytest.approx(np.abs(units - true_units).mean(), rel=1e-4)
    train = values[:280]
    scale = np.abs(train[50:] - train[:-50]).mean(0)
    assert metrics["mase"].item() == pytest.approx((np.abs(units - true_units).mean((0, 1)) / scale).mean(), rel=1e-4)
    smape = (200 * np.abs(units - true_units) / (np.abs(units) + np.abs(true_units))).mean()
    assert metrics["smape"].item() == pytest.approx(smape, rel=1e-3)


def test_the_seasonal_forecast_has_a_mase_of_about_one():
    data = chaotic(steps=2_000)
    task = task_of(data, SeasonalNaive(60, 6, 50))
    _, metrics = task.step(data.example(200), "test")
    assert 0.5 < metrics["mase"] < 2


def test_a_model_is_told_the_loss_of_each_window():
    data = chaotic()
    model = Remembering(6)
    task, batch = task_of(data, model), data.example(5)
    loss, _ = task.step(batch, "train")
    task.step(batch, "val")
    [observed] = model.observed
    assert_close(observed, batch.future.square().mean((1, 2)))
    assert_close(loss, observed.mean())


def test_mambats_learns_an_order():
    data = chaotic()
    model = MambaTS(60, 6, 4, patch_len=12, stride=12, n_layer=1)
    task = task_of(data, model)
    task.train()
    task.step(data.example(8), "train")
    assert model.encoder.count_matrix.sum() == 8 * 4
    assert sorted(model.variable_order()) == [0, 1, 2, 3]


def test_channels_are_mixed_in_training_alone():
    data = chaotic()
    model = Remembering(6)
    task, batch = task_of(data, model, channel_mixup=1.0), data.example(5)
    task.step(batch, "train")
    task.step(batch, "val")
    assert not torch.equal(model.seen[0][0], batch.past)
    assert torch.equal(model.seen[1][0], batch.past)


def test_only_targets_count(tmp_path):
    rows = ["ds,y,price", *(f"2024-{1 + day // 28:02}-{1 + day % 28:02},{day % 7},{day % 3}" for day in range(168))]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    data = CSVFile(
        files=str(tmp_path / "a.csv"), targets="y", past="price", lookback=14, horizon=7, frequency="1 day",
        missing="forward",
    )  # fmt: skip
    task, batch = task_of(data), data.example(3)
    assert batch.past.shape[-1] == 2
    loss, _ = task.step(batch, "train")
    assert_close(loss, F.mse_loss(task.model(batch.past)[..., :1], batch.future[..., :1]))


def test_beyond_its_horizon_it_goes_on_from_what_it_said():
    data = chaotic()
    task, batch = task_of(data), data.example(3)
    found = forecast(task, batch.past, torch.zeros(3, 60 + 18, 0), 15).middle
    first = task.model(batch.past)
    second = task.model(torch.cat([batch.past, first], 1)[:, -60:])
    third = task.model(torch.cat([batch.past, first, second], 1)[:, -60:])
    assert_close(found, torch.cat([first, second, third], 1)[:, :15].detach())


def test_intervals_come_from_the_validation_part():
    data = chaotic()
    task = task_of(data)
    found = calibrate(task, data)
    batch = data.load_batch("val", 0, np.arange(data.samples("val")))
    expected = (batch.future - task.model(batch.past)).detach().sort(0).values
    assert_close(found.errors, expected)
    assert calibrate(task, data, 9).errors.shape == (40 - 11, 9, 4)
    assert calibrate(task, data, 60) is None


def test_data_that_are_no_series_are_refused():
    with pytest.raises(UserError, match="no series to forecast"):
        Forecasting(DLinear(8, 2), {"name": "points"})


def quantile_task(data, quantiles=(0.05, 0.5, 0.95), **settings):
    asked = {"loss": "quantiles", "quantiles": list(quantiles), **settings}
    steps = Forecasting.asks(data.describe().for_model, asked)["horizon"]
    return task_of(data, DLinear(data.lookback, steps), **asked)


def test_quantiles_are_ordered_and_their_losses_averaged():
    data = chaotic()
    task, batch = quantile_task(data), data.example(5)
    answer = task.model(batch.past).unflatten(1, (3, 6))
    loss = task.step(batch, "train")[0]
    above = batch.future[:, None] - answer
    levels = torch.tensor([0.05, 0.5, 0.95])[:, None, None]
    assert_close(loss, torch.where(above > 0, levels * above, (levels - 1) * above).mean())
    said = task.said(task.model(batch.past))
    assert (said.low <= said.middle).all()
    assert (said.middle <= said.high).all()
    assert said.quantiles.shape == (3, 5, 6, 4)


def test_learnt_quantiles_are_held_and_their_score_is_that_of_the_quantiles():
    torch.manual_seed(0)
    data = chaotic(steps=800, horizon=3)
    task = quantile_task(data)
    optimizer = torch.optim.Adam(task.model.parameters(), 1e-2)
    for _ in range(60):
        batch = data.load_batch("train", 0, np.random.default_rng(0).integers(0, data.samples("train"), 64))
        optimizer.zero_grad()
        task.step(batch, "train")[0].backward()
        optimizer.step()
    batch = data.example(data.samples("test"))
    said, truth = task.said(task.model(batch.past).detach()), batch.future
    held = ((said.low <= truth) & (truth <= said.high)).float().mean()
    assert 0.75 < held <= 1
    _, metrics = task.step(batch, "test")
    expected = [
        2 * torch.maximum(q * (truth - each), (q - 1) * (truth - each))
        for q, each in zip((0.05, 0.5, 0.95), said.quantiles, strict=True)
    ]
    assert_close(metrics["crps"], torch.stack(expected).mean())


def test_beyond_its_horizon_quantiles_go_on_from_the_median():
    data = chaotic()
    task, batch = quantile_task(data), data.example(3)
    found = forecast(task, batch.past, torch.zeros(3, 60 + 12, 0), 9)
    first = task.said(task.model(batch.past))
    second = task.said(task.model(torch.cat([batch.past, first.middle], 1)[:, -60:]))
    assert_close(found.quantiles, torch.cat([first.quantiles, second.quantiles], 2)[:, :, :9].detach())
    assert_close(found.low, torch.cat([first.low, second.low], 1)[:, :9].detach())


@pytest.mark.parametrize("quantiles", [[], [0.5, 0.1], [0.0, 0.5], [0.5, 0.5]])
def test_quantiles_that_are_none(quantiles):
    with pytest.raises(UserError, match=r"task\.quantiles"):
        Forecasting.asks({"horizon": 6}, {"loss": "quantiles", "quantiles": quantiles})
