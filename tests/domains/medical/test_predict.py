"""From a file to labels on the same grid."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.medical.plan import Plan
from polymamba.data.medical.volumes import Volumes
from polymamba.domains.medical.explaining import attention_over
from polymamba.domains.medical.models.umamba import UMamba
from polymamba.domains.medical.parts import largest_parts
from polymamba.domains.medical.predict import predict
from polymamba.domains.trained import Trained

nibabel = pytest.importorskip("nibabel")
PLAN = Plan(3, (16, 16, 16), ("background", "ball"), (0, 5), spacing=(1.0, 1.0, 1.0))


class Bright(torch.nn.Module):
    """Says ball where a voxel is bright, the surer the larger `sure` is."""

    def __init__(self, sure=1.0):
        super().__init__()
        self.sure = sure

    def forward(self, x):
        return self.sure * torch.cat([0.5 - x, x - 0.5], 1)


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


def test_the_largest_part_of_each_class_stays():
    classes = np.zeros((1, 12), np.uint8)
    classes[0, :2], classes[0, 3:8], classes[0, 9:10], classes[0, 10:] = 1, 1, 2, 2
    assert largest_parts(classes.copy(), [1])[0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 0, 2, 2, 2]
    apart = np.array([[2, 0, 2, 2, 0, 1]], np.uint8)
    assert largest_parts(apart.copy(), [1, 2])[0].tolist() == [0, 0, 2, 2, 0, 1]
    assert largest_parts(apart.copy(), [])[0].tolist() == apart[0].tolist()


def test_largest_parts_are_kept_where_validation_was_the_better_for_it(tmp_path):
    values = np.zeros((20, 20, 20), np.float32)
    values[3:9, 3:9, 3:9], values[15:17, 15:17, 15:17] = 100, 100
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "scan.nii.gz")
    found = {}
    for decided in (None, (), ("ball",)):
        run = trained(tmp_path, replace(PLAN, largest=decided))
        for asked in (None, True, False):
            answer = predict(
                run, input=str(tmp_path / "scan.nii.gz"), output=str(tmp_path / "said"), largest=asked, pictures=0
            )
            count = int((np.asarray(nibabel.load(tmp_path / "said" / "scan.nii.gz").dataobj) == 5).sum())
            found[decided, asked] = count, answer.lines[-1]
    assert found[("ball",), None][0] == found[None, True][0] < found[None, False][0]
    assert found[None, None][0] == found[(), None][0] == found[("ball",), False][0] == found[None, False][0]
    assert "not looked at" in found[None, None][1]
    assert "largest part alone: ball" in found[("ball",), None][1]


def test_several_runs_answer_by_the_mean_of_their_probabilities(tmp_path):
    truth = scan(tmp_path / "scan.nii.gz", oblique())
    sure, other = trained(tmp_path), trained(tmp_path, replace(PLAN, patch_size=(8, 12, 16), spacing=(1.0, 1.5, 2.0)))
    wrong = replace(other, model=Bright(-0.1))  # the contrary, less sure of it
    predict(
        replace(sure, others=(wrong,)), input=str(tmp_path / "scan.nii.gz"), output=str(tmp_path / "both"), pictures=0
    )
    predict(wrong, input=str(tmp_path / "scan.nii.gz"), output=str(tmp_path / "wrong"), pictures=0)
    both, alone = (np.asarray(nibabel.load(tmp_path / name / "scan.nii.gz").dataobj) == 5 for name in ("both", "wrong"))
    assert (both == truth).mean() > 0.97
    assert (alone == truth).mean() < 0.5
    stranger = trained(tmp_path, replace(PLAN, values=(0, 4)))
    with pytest.raises(UserError, match="same classes"):
        predict(replace(sure, others=(stranger,)), input=str(tmp_path / "scan.nii.gz"))


def test_a_scan_that_is_not_finite_is_a_problem(tmp_path):
    values = np.random.default_rng(0).normal(size=(9, 8, 7)).astype(np.float32)
    values[2, 3, 4] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "scan.nii.gz")
    with pytest.raises(UserError, match="not finite"):
        predict(trained(tmp_path), input=str(tmp_path / "scan.nii.gz"))


def test_an_explanation_shows_each_class_beside_where_it_comes_from(tmp_path):
    scan(tmp_path / "scan.nii.gz", oblique())
    asked = {"input": str(tmp_path / "scan.nii.gz"), "output": str(tmp_path / "said"), "explain": True}
    with pytest.raises(UserError, match="no hidden attention"):
        predict(trained(tmp_path), **asked)
    kinds = {"scan": "raster", "channels": 1, "classes": 2, "patch_size": (16, 16, 16), "features": (8, 8)}
    steps = {"kernels": [(3, 3, 3)] * 2, "strides": [(1, 1, 1), (2, 2, 2)]}
    torch.manual_seed(0)
    run = replace(trained(tmp_path), model=UMamba(**kinds, **steps).eval())
    predict(run, **asked)
    assert (tmp_path / "said" / "scan_attention.png").stat().st_size > 0
    matrix, sizes = attention_over(run.model, torch.randn(1, 16, 16, 16))
    assert sizes == (8, 8, 8)
    assert matrix.shape == (512, 512)
    assert not matrix.triu(1).any()  # a raster looks back alone


MEASURED = """
import resource, sys, torch
from pathlib import Path
sys.path[:0] = [{tests!r}]
from test_predict import PLAN, trained
from dataclasses import replace
from polymamba.domains.medical.predict import predict
plan = replace(PLAN, patch_size=(64, 64, 64), spacing={spacing})
run = trained(Path({folder!r}), plan)
torch.set_num_threads(1)
predict(run, input={folder!r} + "/large.nii.gz", overlap=0.25, pictures=1, output={folder!r} + "/said")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("spacing", [(0.8, 0.8, 1.5), (0.6, 0.6, 1.0)])
def test_a_large_volume_fits_into_memory(tmp_path, spacing):
    """512x512x300 voxels, in a process of its own: memory is the volume, its answer and a patch's depth, resampled or not."""
    rng, affine = np.random.default_rng(0), np.diag([0.8, 0.8, 1.5, 1.0])
    values = rng.integers(-1000, 1000, (512, 512, 300), dtype=np.int16)
    values[200:260, 200:260, 100:140] = 3000
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "large.nii.gz")
    code = MEASURED.format(tests=str(Path(__file__).parent), folder=str(tmp_path), spacing=spacing)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) / 1024**2 < 4
    found = nibabel.load(tmp_path / "said" / "large.nii.gz")
    assert found.shape == (512, 512, 300)
    assert (np.asarray(found.dataobj[205:255, 205:255, 105:135]) == 5).all()
