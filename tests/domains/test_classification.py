"""What all classifications share: the loss, the accuracy, the worst samples."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from polymamba.domains.classification import Classifying, Worst

CLASSES = 7


class Plain(Classifying):
    """Batches are logits and labels; the rows' first logit is kept."""

    def kept(self, batch, positions):
        return batch[0][positions, 0].tolist()

    def draw_worst(self):
        return [entry["sample"] for entry in self.worst.entries]


@pytest.mark.parametrize("describe", [{"num_classes": CLASSES}, {"classes": list("abcdefg")}])
def test_loss_accuracy_and_worst_samples(describe):
    logits = torch.randn(12, CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(12) % CLASSES
    task = Plain(nn.Identity(), describe, 0.1, 3, 1.0)
    spread = F.one_hot(labels, CLASSES) * 0.9 + 0.1 / CLASSES
    loss, scalars = task.step((logits, labels), "train")
    torch.testing.assert_close(loss.double(), -(spread * logits.log_softmax(1)).sum(1).mean(), rtol=1e-6, atol=1e-6)
    assert float(scalars["accuracy"]) == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    losses = F.cross_entropy(logits, labels, reduction="none")
    for part in (slice(0, 5), slice(5, 12)):
        loss, metrics = task.step((logits[part], labels[part]), "test")
        torch.testing.assert_close(loss.double(), losses[part].mean(), rtol=1e-6, atol=1e-6)
    assert float(metrics["accuracy"].compute()) == pytest.approx(float(scalars["accuracy"]))
    worst = logits[losses.topk(3).indices, 0]
    assert task.pictures("test") == {"worst_predictions": pytest.approx(worst.tolist())}
    assert task.pictures("val") == {}
    assert task.name_of(2) == ("c" if "classes" in describe else "class 2")
    task.on_test_start()
    assert task.pictures("test") == {}


def test_worst_keeps_the_highest_losses():
    worst, generator = Worst(4), torch.Generator().manual_seed(2)
    logits = torch.randn(20, CLASSES, generator=generator)
    samples, labels = torch.arange(20), torch.arange(20) % CLASSES
    losses = F.cross_entropy(logits, labels, reduction="none")
    for part in (slice(0, 3), slice(3, 11), slice(11, 20)):
        worst.add(losses[part], labels[part], logits[part], samples[part].__getitem__)
    order = losses.argsort(descending=True)[:4]
    assert worst.seen == 20
    assert [int(entry["sample"]) for entry in worst.entries] == order.tolist()
    for entry, index in zip(worst.entries, order.tolist(), strict=True):
        probabilities = logits[index].softmax(0)
        assert entry["loss"] == pytest.approx(float(losses[index]))
        assert (entry["true"], entry["predicted"]) == (int(labels[index]), int(probabilities.argmax()))
        assert entry["confidence"] == pytest.approx(float(probabilities.max()))
        assert entry["true_confidence"] == pytest.approx(float(probabilities[labels[index]]))


def test_worst_ranks_a_loss_that_is_not_a_number_first():
    worst = Worst(2)
    worst.add(
        torch.tensor([1.0, float("nan"), 5.0]), torch.arange(3), torch.zeros(3, CLASSES), torch.arange(3).__getitem__
    )
    assert [entry["true"] for entry in worst.entries] == [1, 2]
