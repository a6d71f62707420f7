"""Values are hidden as asked, and only those count."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from polymamba.core.errors import UserError
from polymamba.data.timeseries import Chaotic
from polymamba.domains.timeseries.imputation import Imputation, line
from polymamba.domains.timeseries.models.linear import DLinear


def task_of(model=None, **settings):
    data = Chaotic(steps=400, lookback=40, horizon=1)
    describe = {"name": data.name, **data.describe().for_model, **data.kept()}
    model = model or DLinear(40, Imputation.asks(describe, {})["horizon"])
    return data, Imputation(model, describe, **settings)


class Zero(nn.Module):
    """Says zero, which is the mean of what is seen, and keeps what it was shown."""

    def forward(self, x, marks=None):
        self.shown = x
        return torch.zeros_like(x)


def test_what_is_hidden_is_not_shown():
    data, task = task_of(Zero())
    batch = data.example(3)
    seen = task.seen_of(batch, "test")
    other = batch._replace(past=torch.where(seen, batch.past, 1e6))
    task.filled(batch.past, seen, None)
    first = task.model.shown
    task.filled(other.past, seen, None)
    assert torch.equal(task.model.shown, first)
    assert (first[~seen] == 0).all()
    for window, variable in np.ndindex(3, 4):
        values = first[window, seen[window, :, variable], variable]
        assert values.mean().abs() < 1e-5
        assert values.std(correction=0) == pytest.approx(1, abs=1e-3)


def test_only_hidden_values_count():
    data, task = task_of(Zero())
    batch = data.example(5)
    seen = task.seen_of(batch, "val")
    values, errors = batch.past.double().numpy(), []
    for window, step, variable in np.argwhere(~seen.numpy()):
        shown = values[window, seen[window, :, variable], variable]
        errors.append(values[window, step, variable] - shown.mean())
    loss, metrics = task.step(batch, "val")
    assert loss.item() == pytest.approx(np.square(errors).mean(), rel=1e-5)
    assert metrics["mae"].item() == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    _, tested = task.step(batch, "test")
    assert_close(tested["mse_mean"], metrics["mse"])


@pytest.mark.parametrize("hidden", [0.125, 0.5])
def test_as_many_are_hidden_as_asked_and_always_the_same(hidden):
    data, task = task_of(hidden=hidden)
    batch = data.example(60)
    seen = task.seen_of(batch, "test")
    assert (~seen).float().mean() == pytest.approx(hidden, abs=0.02)
    assert torch.equal(seen, task.seen_of(batch, "val"))
    assert torch.equal(seen[7:9], task.seen_of(batch._replace(past=batch.past[7:9], index=batch.index[7:9]), "test"))
    assert not torch.equal(task.seen_of(batch, "train"), task.seen_of(batch, "train"))


def test_the_line_between_what_is_seen():
    values = torch.tensor([1.0, 9.0, 9.0, 4.0, 9.0])[None, :, None]
    seen = torch.tensor([True, False, False, True, False])[None, :, None]
    assert_close(line(values, seen).flatten(), torch.tensor([1.0, 2.0, 3.0, 4.0, 4.0]))
    assert line(values, ~seen | seen).equal(values)
    assert line(values, seen & ~seen).abs().sum() == 0


def test_a_model_learns_to_fill_in():
    torch.manual_seed(0)
    data, task = task_of()
    optimizer = torch.optim.Adam(task.model.parameters(), 1e-2)
    for number in range(40):
        batch = data.load_batch("train", 0, np.random.default_rng(number).integers(0, data.samples("train"), 64))
        optimizer.zero_grad()
        task.step(batch, "train")[0].backward()
        optimizer.step()
    _, metrics = task.step(data.example(50), "test")
    assert metrics["mse"] < 0.5 * metrics["mse_mean"]


def test_what_cannot_fill_in_is_refused():
    with pytest.raises(UserError, match="no series of windows"):
        Imputation(nn.Identity(), {"name": "points"})
    model = nn.Identity()
    model.future_marks = True
    with pytest.raises(UserError, match="fills in none"):
        Imputation(model, {"lookback": 4, "variables": 1})
