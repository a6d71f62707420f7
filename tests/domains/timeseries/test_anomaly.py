"""Anomalies are put in where it is said, and found by a model that expects what is normal."""

import numpy as np
import pytest
import torch
from torch import nn

from polymamba.data.timeseries import Chaotic
from polymamba.domains.timeseries.anomaly import KINDS, Anomaly, alarm_threshold, put_in


class Shown(nn.Module):
    """Says what it was shown, and keeps it."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def forward(self, x, marks=None):
        self.shown.append(x)
        return x


def task_of(**settings):
    data = Chaotic(steps=600, lookback=48, horizon=1)
    describe = {"name": data.name, **data.describe().for_model, **data.kept()}
    return data, Anomaly(Shown(), describe, **settings)


def test_every_value_is_expected_from_the_others_alone():
    data, task = task_of(width=5)
    values = data.example(2).past
    expected = task.expected(values, None)
    assert all(((x == 0).sum(1) >= 20).all() for x in task.model.shown)
    other = values.clone()
    other[:, 12] += 100.0
    changed = task.expected(other, None)
    # step 12 is in the piece from 10 to 14, whose values are expected from the other pieces
    assert torch.equal(changed[:, 10:15], expected[:, 10:15])


@pytest.mark.parametrize("seed", range(12))
def test_an_anomaly_is_where_it_is_said(seed):
    random = np.random.default_rng(seed)
    before = torch.from_numpy(random.standard_normal((48, 3)).cumsum(0))
    values, wrong = before.clone(), torch.zeros(48, 3, dtype=torch.bool)
    assert put_in(values, wrong, random) in KINDS
    assert torch.equal(values[~wrong], before[~wrong])
    assert wrong.any(0).sum() == 1
    assert not torch.equal(values, before)


def test_a_share_of_the_windows_has_one_and_always_the_same():
    data, task = task_of(injected=0.5)
    batch = data.example(100)
    values, wrong = task.with_anomalies(batch)
    assert 0.35 < wrong.flatten(1).any(1).float().mean() < 0.65
    again = task.with_anomalies(batch)
    assert torch.equal(values, again[0])
    assert torch.equal(wrong, again[1])
    assert not task_of(injected=0.0)[1].with_anomalies(batch)[1].any()


def test_alarms_are_as_rare_on_normal_values_as_asked():
    data, task = task_of(alarms=0.1)
    threshold = alarm_threshold(task, data)
    values = data.window(data.splits["val"][::48]).past
    assert (task.scores(values, None) > threshold).float().mean() == pytest.approx(0.1, abs=0.01)


def test_areas_are_of_all_values():
    data, task = task_of()
    for first in (0, 40):
        task.step(data.load_batch("test", 0, np.arange(first, first + 40)), "test")
    batch = data.example(80)
    values, wrong = task.with_anomalies(batch)
    scores = task.scores(values, None)
    right, others = scores[wrong], scores[~wrong]
    # the area is the share of pairs in which the anomaly has the higher score, and half of those with none
    pairs = right[:, None] - others[torch.randperm(len(others), generator=torch.Generator().manual_seed(0))[:3_000]]
    expected = (pairs > 0).double().mean() + 0.5 * (pairs == 0).double().mean()
    assert task.areas["auroc"].compute().item() == pytest.approx(expected.item(), abs=0.02)
    assert task.areas["auroc_line"].compute() > 0.5
