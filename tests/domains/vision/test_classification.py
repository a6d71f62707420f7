"""Image classification: losses, mixing, accuracies, pictures."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from polymamba.core.errors import UserError
from polymamba.domains.vision.classification import Classification

CLASSES = 7


class Fixed(nn.Module):
    """Logits that are looked up by the first pixel of an image."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images):
        return self.logits[images[:, 0, 0, 0].long()]


def describe(classes=CLASSES):
    return {"num_classes": classes, "classes": [f"class {i}" for i in range(classes)], "mean": [0.5], "std": [0.25]}


def batch(samples, classes=CLASSES):
    images = torch.arange(samples).float().reshape(-1, 1, 1, 1).expand(-1, 1, 6, 4).contiguous()
    return images, torch.arange(samples) % classes


@pytest.fixture
def logits():
    return torch.randn(12, CLASSES, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing_is_the_papers_formula_and_only_in_training(logits, smoothing):
    task = Classification(Fixed(logits), describe(), label_smoothing=smoothing)
    images, labels = batch(12)
    spread = F.one_hot(labels, CLASSES) * (1 - smoothing) + smoothing / CLASSES
    loss, metrics = task.step((images, labels), "train")
    torch.testing.assert_close(loss, -(spread * logits.log_softmax(1)).sum(1).mean())
    assert float(metrics["accuracy"]) == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    loss, _ = task.step((images, labels), "val")
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))


@pytest.mark.parametrize("stage", ["val", "test"])
def test_accuracies(logits, stage):
    task = Classification(Fixed(logits), describe())
    for start in (0, 8):
        images, labels = batch(12)
        _, metrics = task.step((images[start : start + 8], labels[start : start + 8]), stage)
    assert metrics.keys() == {"accuracy", "accuracy_top5"}
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)
    assert float(metrics["accuracy"].compute()) == pytest.approx(float((ranks < 1).float().mean()))
    assert float(metrics["accuracy_top5"].compute()) == pytest.approx(float((ranks < 5).float().mean()))


def test_top5_needs_more_than_five_classes(logits):
    task = Classification(Fixed(logits[:, :5]), describe(5))
    assert task.step(batch(5, 5), "val")[1].keys() == {"accuracy"}


def test_the_loss_is_float32_whatever_the_model_computes_in(logits):
    task = Classification(Fixed(logits.bfloat16()), describe(), label_smoothing=0.1)
    for stage in ("train", "val"):
        assert task.step(batch(12), stage)[0].dtype == torch.float32


@pytest.mark.parametrize("samples", [1, 2, 7, 8])
@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixing_mixes_images_and_labels_alike(logits, samples, mixup, cutmix):
    task = Classification(Fixed(logits), describe(), mixup=mixup, cutmix=cutmix, label_smoothing=0.07)
    images, labels = batch(samples)
    kept = images.clone()
    np.random.seed(samples)  # noqa: NPY002
    mixed, targets = task.mix(images, labels)
    assert torch.equal(images, kept), "the loader's own tensor was written to"
    assert mixed.shape == images.shape
    assert targets.shape == (samples, CLASSES)
    torch.testing.assert_close(targets.sum(1), torch.ones(samples))
    even = samples // 2 * 2
    partners = torch.cat([torch.arange(even).flip(0), torch.arange(even, samples)])
    # Every image is a constant, its number: the mean of the mixed one says how much of either is in it.
    share = torch.ones(samples)
    other = partners != torch.arange(samples)
    share[other] = (mixed.mean((1, 2, 3))[other] - partners[other]) / (torch.arange(samples) - partners)[other]
    hard = F.one_hot(labels, CLASSES) * share[:, None] + F.one_hot(labels[partners], CLASSES) * (1 - share[:, None])
    torch.testing.assert_close(targets, hard * 0.93 + 0.07 / CLASSES, rtol=1e-4, atol=1e-5)


def test_the_mixed_loss_is_that_of_soft_targets(logits):
    task = Classification(Fixed(logits), describe(), mixup=1.0, label_smoothing=0.1)
    task.mix = lambda images, labels: (images, targets)
    targets = torch.rand(12, CLASSES, generator=torch.Generator().manual_seed(1))
    targets = targets / targets.sum(1, keepdim=True)
    loss, metrics = task.step(batch(12), "train")
    torch.testing.assert_close(loss, -(targets * logits.log_softmax(1)).sum(1).mean())
    assert float(metrics["accuracy"]) == float((logits.argmax(1) == targets.argmax(1)).float().mean())


def test_validation_is_never_mixed(logits):
    task = Classification(Fixed(logits), describe(), mixup=1.0, cutmix=1.0)
    torch.testing.assert_close(task.step(batch(12), "val")[0], F.cross_entropy(logits, batch(12)[1]))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("label_smoothing", 1.0), ("label_smoothing", -0.1), ("mixup", -1), ("cutmix", -1), ("mix_probability", 1.1),
     ("cutmix_share", -0.5), ("worst", -1)],
)  # fmt: skip
def test_settings_out_of_range(logits, setting, value):
    with pytest.raises(UserError, match=rf"task\.{setting}"):
        Classification(Fixed(logits), describe(), **{setting: value})


def titles(figure):
    return [axis.get_title() for axis in figure.axes if axis.images]


def test_first_batch_picture(logits):
    task = Classification(Fixed(logits), describe())
    figure = task.draw_batch((torch.full((3, 1, 6, 4), 1.0), torch.tensor([2, 0, 6])))
    assert titles(figure) == ["class 2", "class 0", "class 6"]
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape == (6, 4)
    assert np.allclose(shown, 0.75), "1 × 0.25 + 0.5"
    assert "3 of 3 images, 6 × 4" in figure.get_suptitle()


def test_first_batch_picture_shows_the_mixing_and_leaves_the_random_numbers(logits):
    task = Classification(Fixed(logits), describe(), mixup=5.0)
    np.random.seed(0)  # noqa: NPY002
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    found = titles(task.draw_batch(batch(4)))
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002
    assert all(title.count("class") == 2 and title.count("%") == 2 for title in found)


def test_worst_picture(logits):
    task = Classification(Fixed(torch.eye(CLASSES) * 3), describe(), worst=2)
    assert task.pictures("test") == {}
    images = batch(3)[0]
    task.step((images, torch.tensor([0, 1, 4])), "test")
    right, low, high = np.exp(3) / (np.exp(3) + 6), 1 / (np.exp(3) + 6), np.exp(3) / (np.exp(3) + 6)
    assert titles(task.pictures("test")["worst_predictions"]) == [
        f"is class 4 ({low:.0%})\nsaid class 2 ({high:.0%})",
        f"is class 0 ({right:.0%})\nsaid class 0 ({right:.0%})",
    ]
    task.on_test_start()
    assert task.pictures("test") == {}


def test_no_worst_picture_where_none_is_wanted(logits):
    task = Classification(Fixed(logits), describe(), worst=0)
    task.step(batch(3), "test")
    assert task.pictures("test") == {}
