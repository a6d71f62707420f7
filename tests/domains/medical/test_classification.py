"""Classes of whole images: metrics, pictures, and what predict.py says."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from polymamba.core.errors import UserError
from polymamba.data.medical.classification import WholeImages
from polymamba.data.medical.plan import Plan
from polymamba.domains.medical.classification import Classification
from polymamba.domains.medical.predict import predict
from polymamba.domains.trained import Trained

DESCRIBE = {"task": "classification", "classes": ["dark", "bright"], "num_classes": 2, "image_size": [6, 5]}


class Bright(torch.nn.Module):
    """Says bright where the left half is brighter than the right."""

    def forward(self, x):
        left, right = x.flatten(2).mean(2).mean(1), x[..., : x.shape[-1] // 2].flatten(2).mean(2).mean(1)
        return torch.stack([left, right], 1)


def test_the_area_under_the_curve_is_that_of_scikit_learn():
    task = Classification(Bright(), DESCRIBE)
    images, labels = torch.randn(40, 1, 6, 5), torch.arange(40) % 2
    _, metrics = task.step((images, labels), "test")
    expected = roc_auc_score(labels, Bright()(images).softmax(1)[:, 1])
    assert float(metrics["auc"].compute()) == pytest.approx(expected, abs=1e-6)


def test_one_class_alone_has_no_area():
    task = Classification(Bright(), DESCRIBE)
    _, metrics = task.step((torch.randn(4, 1, 6, 5), torch.ones(4, dtype=torch.long)), "val")
    assert metrics["auc"].compute().isnan()


@pytest.mark.parametrize("sizes", [(6, 5), (4, 6, 5)])
def test_pictures_of_images_and_volumes(sizes):
    task = Classification(Bright(), DESCRIBE, worst=3)
    batch = torch.randn(9, 1, *sizes), torch.arange(9) % 2
    task.step(batch, "test")
    assert set(task.pictures("train", batch)) == {"first_batch"}
    assert set(task.pictures("test")) == {"worst_predictions"}


def test_the_classes_of_files(tmp_path):
    from PIL import Image

    plan = Plan(2, (6, 6), ("dark", "bright"), (0, 1))
    data = SimpleNamespace(volumes=lambda: WholeImages(plan))
    run = Trained(Bright(), None, data, {**DESCRIBE, "image_size": [6, 6]}, "cpu", tmp_path)
    (tmp_path / "scans").mkdir()
    for name, bright in (("left", slice(0, 10)), ("right", slice(10, 20))):
        values = np.zeros((12, 20, 3), np.uint8)
        values[:, bright] = 200
        Image.fromarray(values).save(tmp_path / "scans" / f"{name}.png")
    (tmp_path / "scans" / "bad.png").write_bytes(b"not an image")
    answer = predict(run, input=str(tmp_path / "scans"), output=str(tmp_path / "said"))
    rows = {
        row["file"].rsplit("/")[-1]: row
        for row in csv.DictReader((tmp_path / "said" / "predictions.csv").read_text().splitlines())
    }
    assert {name: row["class"] for name, row in rows.items()} == {"left.png": "bright", "right.png": "dark"}
    assert float(rows["left.png"]["confidence"]) + float(rows["left.png"]["confidence_2"]) == pytest.approx(1, abs=1e-5)
    assert "bad.png" in answer.problems[0]
    assert (tmp_path / "said" / "predictions.png").stat().st_size > 0
    with pytest.raises(UserError, match="which image"):
        predict(run)
