"""Recall: accuracy where something is asked, at each length, the same in pieces as whole."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.nlp import MQAR, InductionHeads, SelectiveCopying
from polymamba.domains.nlp.models import LanguageModel
from polymamba.domains.nlp.recall import Recall


class Remembers(nn.Module):
    """Solves induction heads by rule, up to a distance; its state is what it has read."""

    def __init__(self, vocab_size, reach):
        super().__init__()
        self.vocab_size, self.reach = vocab_size, reach
        self.lm_head = nn.Identity()
        self.longest = 0

    def hidden(self, input_ids, states=None, seq_idx=None):
        self.longest = max(self.longest, input_ids.shape[1])
        read = input_ids if states is None else torch.cat([states, input_ids], 1)
        answers = []
        for row in read.tolist():
            first = row.index(self.vocab_size - 1) if self.vocab_size - 1 in row else 0
            known = len(row) - first <= self.reach and first + 1 < len(row)
            answers.append(row[first + 1] if known else self.vocab_size - 1)
        scores = 9.0 * F.one_hot(torch.tensor(answers), self.vocab_size).float()
        return scores[:, None].expand(-1, input_ids.shape[1], -1), read


def description(data):
    return {**data.describe().for_model, **data.kept()}


def run_test(task, data):
    for batch in data.test_dataloader():
        _, named = task.step(batch, "test")
    return named


def test_accuracy_at_each_length_is_the_rules():
    data = InductionHeads(length=16, vocab_size=8, test_lengths=[16, 32, 64], test_samples=50)
    model = Remembers(8, reach=24)
    task = Recall(model, description(data), chunk=10)
    run_test(task, data)
    task.on_test_epoch_end()
    within = {}
    for place, length in enumerate((16, 32, 64)):
        ids = data.load_batch("test", 0, place * 50 + np.arange(50))["input_ids"]
        within[length] = float((length - (ids == 7).int().argmax(1) <= 24).float().mean())
    assert within[16] == 1
    assert 0 < within[64] < within[32] < 1
    assert task.tested == pytest.approx(within)
    assert model.longest == 10
    assert float(task.metrics["test"]["accuracy"].compute()) == pytest.approx(sum(within.values()) / 3)
    assert task.pictures("test")["worst_predictions"].axes[0].lines[0].get_xdata().tolist() == [16, 32, 64]


def test_lengths_that_lie_close_together_are_told_apart():
    data = SelectiveCopying(
        length=20, data_tokens=6, vocab_size=8, test_lengths=[20, 24], test_samples=4, loading=Loading(batch_size=4)
    )
    task = Recall(LanguageModel(8, 16, 1, backend="reference").eval(), description(data))
    shapes = []
    for batch in data.test_dataloader():
        _, named = task.step(batch, "test")
        shapes.append((batch["labels"].shape[1], [name for name in named if "_at_" in name]))
    assert shapes == [(26, ["accuracy_at_20"]), (30, ["accuracy_at_24"])]


@pytest.mark.parametrize("chunk", [7, 64])
def test_pieces_give_what_the_whole_gives(chunk):
    torch.manual_seed(0)
    data = MQAR(length=64, pairs=8, vocab_size=40)
    model = LanguageModel(40, 16, 2, backend="reference").eval()
    task = Recall(model, description(data), chunk=chunk)
    batch = data.load_batch("val", 0, np.arange(6))
    with torch.no_grad():
        logits, _ = model(batch["input_ids"])
        loss, named = task.step(batch, "val")
    asked = batch["labels"] >= 0
    torch.testing.assert_close(loss, F.cross_entropy(logits[asked][:, :40], batch["labels"][asked]))
    right = (logits[asked][:, :40].argmax(1) == batch["labels"][asked]).float().mean()
    assert float(named["accuracy"].compute()) == pytest.approx(float(right))
    assert asked.sum() == 48


def test_training_step_and_picture():
    data = InductionHeads(length=16, vocab_size=8)
    model = LanguageModel(8, 16, 1, backend="reference")
    task = Recall(model, description(data))
    batch = data.load_batch("train", 0, np.arange(4))
    loss, scalars = task.step(batch, "train")
    loss.backward()
    assert model.lm_head.weight.grad.abs().sum() > 0
    assert 0 <= float(scalars["accuracy"]) <= 1
    assert "4 of 4 samples of 16 tokens" in task.pictures("train", batch)["first_batch"].texts[0].get_text()
    assert task.pictures("test") == {}


def test_what_does_not_fit():
    told = description(InductionHeads())
    with pytest.raises(UserError, match="is for language modelling"):
        Recall(Remembers(16, 9), {**told, "task": "language_modelling"})
    with pytest.raises(UserError, match=r"task\.chunk"):
        Recall(Remembers(16, 9), told, chunk=0)


def test_smoothed_labels_are_for_training_alone():
    data = InductionHeads(length=16, vocab_size=8)
    model = LanguageModel(8, 8, 1)
    batch = data.load_batch("train", 0, np.arange(4))
    hard, soft = (Recall(model, description(data), label_smoothing=share) for share in (0.0, 0.3))
    logits, _ = model(batch["input_ids"])
    expected = F.cross_entropy(logits[:, -1, :8], batch["labels"][:, -1], label_smoothing=0.3)
    torch.testing.assert_close(soft.step(batch, "train")[0], expected)
    assert soft.step(batch, "train")[0] != hard.step(batch, "train")[0]
    torch.testing.assert_close(soft.step(batch, "val")[0], hard.step(batch, "val")[0], rtol=0, atol=0)
    with pytest.raises(UserError, match="label_smoothing"):
        Recall(model, description(data), label_smoothing=1.0)
