"""PneumoniaMNIST from any copy with the published counts, and from none other."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from polymamba.core.errors import UserError
from polymamba.data.medical import PneumoniaMNIST
from polymamba.data.medical.pneumonia import COUNTS


def write(root, change=lambda arrays: None):
    """An archive of the published form with noise for images, those without pneumonia first."""
    rng, arrays = np.random.default_rng(0), {}
    for split, (normal, ill) in COUNTS.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (normal + ill, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = np.repeat(np.array([0, 1], np.uint8), (normal, ill))[:, None]
    change(arrays)
    path = root / "medical" / "pneumoniamnist" / "pneumoniamnist.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **arrays)
    return path


def test_the_published_form(tmp_path):
    write(tmp_path)
    data = PneumoniaMNIST(str(tmp_path))
    described = data.describe()
    assert described.counts == {"train": 4_708, "val": 524, "test": 624}
    assert described.for_model["classes"] == ["normal", "pneumonia"]
    labels = np.array([case.label for case in data.splits["train"]])
    assert labels.sum() == 3_494
    assert 0.5 < labels[:200].mean() < 0.95  # whatever the order in the file
    image = data.splits["test"][0].image
    assert image.shape == (1, 28, 28)
    assert abs(float(image.mean())) < 1e-4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda arrays: arrays.pop("val_labels"), "val images as published"),
        (lambda arrays: arrays.update(test_images=arrays["test_images"][:600]), "test images as published"),
        (lambda arrays: arrays.update(train_labels=0 * arrays["train_labels"]), "train images as published"),
    ],
)
def test_another_content_is_refused_by_name(tmp_path, change, said):
    path = write(tmp_path, change)
    with pytest.raises(UserError, match=said) as refused:
        PneumoniaMNIST(str(tmp_path)).setup()
    assert str(path) in str(refused.value)


def test_a_damaged_archive(tmp_path):
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="damaged") as refused:
        PneumoniaMNIST(str(tmp_path)).setup()
    assert str(path) in str(refused.value)


@pytest.mark.skipif("POLYMAMBA_DATA" not in os.environ, reason="POLYMAMBA_DATA names no folder")
def test_the_copy_at_hand():
    if not (Path(os.environ["POLYMAMBA_DATA"]) / PneumoniaMNIST.source.folder).is_dir():
        pytest.skip("PneumoniaMNIST is not in POLYMAMBA_DATA")
    assert PneumoniaMNIST(image_size=32).describe().for_model["image_size"] == [32, 32]
