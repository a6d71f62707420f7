"""From a file to labels on the same grid."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.medical.plan import Plan
from polymamba.data.medical.volumes import Volumes
from polymamba.domains.medical.predict import largest_parts, likeliest, predict
from polymamba.domains.trained import Trained

nibabel = pytest.importorskip("nibabel")
PLAN = Plan(3, (16, 16, 16), ("background", "ball"), (0, 5), spacing=(1.0, 1.0, 1.0))


class Bright(torch.nn.Module):
    """Says ball where a voxel is bright."""

    def forward(self, x):
        return torch.cat([0.5 - x, x - 0.5], 1)


def trained(folder, plan=PLAN):
    data = SimpleNamespace(volumes=lambda: Volumes(plan))
    return Trained(Bright(), None, data, plan.described(), "cpu", folder)


def oblique():
    """An affine with another spacing along each axis, two of them exchanged and one mirrored, turned by 0.3 about the third."""
    turn = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
    axes = np.array([[0, -1.0, 0], [1.0, 0, 0], [0, 0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes @ np.diag([0.5, 1.0, 2.5])
    affine[:3, 3] = (-20.0, 13.0, 7.5)
    return affine


def scan(path, affine, sizes=(50, 26, 12), spacing=(0.5, 1.0, 2.5)):
    """Writes a ball of 8 mm; returns where it is."""
    places = np.meshgrid(
        *((np.arange(n) - n / 2) * step for n, step in zip(sizes, spacing, strict=True)), indexing="ij"
    )
    truth = sum(each**2 for each in places) < 64
    nibabel.save(nibabel.Nifti1Image(truth.astype(np.float32) * 100, affine), path)
    return truth


def test_labels_lie_on_the_grid_of_the_scan(tmp_path):
    from scipy.ndimage import distance_transform_edt

    truth = scan(tmp_path / "scan.nii.gz", oblique())
    answer = predict(trained(tmp_path), input=str(tmp_path / "scan.nii.gz"), output=str(tmp_path / "said"))
    given, found = nibabel.load(tmp_path / "scan.nii.gz"), nibabel.load(tmp_path / "said" / "scan.nii.gz")
    assert found.shape == given.shape
    np.testing.assert_array_equal(found.affine, given.affine)
    assert found.get_data_dtype() == np.uint8
    said = np.asarray(found.dataobj)
    assert set(np.unique(said)) == {0, 5}
    wrong = (said == 5) != truth
    near = np.maximum(*(distance_transform_edt(each, sampling=(0.5, 1.0, 2.5)) for each in (truth, ~truth)))
    assert near[wrong].max(initial=0) <= 2.5
    assert wrong.mean() < 0.02
    assert (tmp_path / "said" / "scan_overlay.png") in answer.files
    [row] = csv.DictReader((tmp_path / "said" / "volumes.csv").read_text().splitlines())
    assert row["class"] == "ball"
    assert float(row["ml"]) == pytest.approx((said == 5).sum() * 1.25 / 1000, rel=1e-4)


def test_a_folder_with_a_damaged_file(tmp_path):
    (tmp_path / "scans").mkdir()
    scan(tmp_path / "scans" / "good.nii.gz", oblique())
    (tmp_path / "scans" / "bad.nii.gz").write_bytes(b"not a volume")
    answer = predict(trained(tmp_path), input=str(tmp_path / "scans"), output=str(tmp_path / "said"), pictures=0)
    assert [path.name for path in answer.files] == ["good.nii.gz", "volumes.csv"]
    assert "bad.nii.gz" in answer.problems[0]


def test_what_cannot_be_answered(tmp_path):
    with pytest.raises(UserError, match="which image"):
        predict(trained(tmp_path))
    with pytest.raises(UserError, match="no images here"):
        predict(trained(tmp_path), input=str(tmp_path / "nowhere"))
    scan(tmp_path / "scan.nii.gz", oblique())
    with pytest.raises(UserError, match="would replace the image"):
        predict(trained(tmp_path), input=str(tmp_path / "scan.nii.gz"), output=str(tmp_path))
    images = Plan(2, (16, 16), ("background", "ball"), (0, 5))
    with pytest.raises(UserError, match="does not fit the model"):
        predict(trained(tmp_path, images), input=str(tmp_path / "scan.nii.gz"), output=str(tmp_path / "said"))


def test_an_image_is_answered_by_an_image(tmp_path):
    from PIL import Image

    values = np.zeros((30, 21), np.uint8)
    values[5:12, 3:9] = 200
    Image.fromarray(values).save(tmp_path / "cell.png")
    plan = Plan(2, (16, 16), ("background", "ball"), (0, 255))
    predict(trained(tmp_path, plan), input=str(tmp_path / "cell.png"), output=str(tmp_path / "said"))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "said" / "cell.png")) == 255, values > 0)


def test_the_likeliest_class_of_another_grid_is_that_of_all_classes_resampled():
    logits = torch.randn(4, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    whole = torch.nn.functional.interpolate(logits[None], size=(9, 4, 7), mode="trilinear")[0].argmax(0)
    assert torch.equal(likeliest(logits, (9, 4, 7)).long(), whole)
    assert torch.equal(likeliest(logits, (5, 6, 7)).long(), logits.argmax(0))


def test_the_largest_part_of_each_class_stays():
    classes = np.zeros((1, 12), np.uint8)
    classes[0, :2], classes[0, 3:8], classes[0, 9:10], classes[0, 10:] = 1, 1, 2, 2
    assert largest_parts(classes, 3)[0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 0, 2, 2, 2]
