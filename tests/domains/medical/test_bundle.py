"""MONAI alone predicts with a bundle: in a process that cannot import this package, the labels are the same."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.medical.plan import Plan
from polymamba.domains.medical.models.umamba import UMamba
from polymamba.domains.medical.predict import predict

from .test_predict import oblique, trained

nibabel = pytest.importorskip("nibabel")
PLAN = Plan(
    3,
    (16, 12, 8),
    ("background", "one", "two"),
    (0, 5, 2),
    spacing=(1.0, 1.2, 2.0),
    low=-1.0,
    high=30.0,
    mean=3.0,
    std=9.0,
)

ALONE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "polymamba":
            raise ImportError("polymamba is not here")
sys.meta_path.insert(0, Blocked())
import monai.bundle
folder = sys.argv[1]
monai.bundle.run(config_file=folder + "/bundle/configs/inference.json", meta_file=folder + "/bundle/configs/metadata.json",
    logging_file=False, bundle_root=folder + "/bundle", input=folder + "/scans", output_dir=folder + "/theirs")
assert "polymamba" not in sys.modules
"""


def network():
    torch.manual_seed(0)
    steps = {"kernels": [(3, 3, 3)] * 2, "strides": [(1, 1, 1), (2, 2, 2)]}
    return UMamba(1, 3, PLAN.patch_size, (8, 8), where="encoder", scan="bidirectional", **steps).eval()


@pytest.mark.parametrize("normalisation", ["zscore", pytest.param("ct", marks=pytest.mark.slow)])
def test_monai_alone_says_the_same(tmp_path, normalisation):
    rng = np.random.default_rng(0)
    (tmp_path / "scans").mkdir()
    for name, sizes in (("one", (30, 17, 12)), ("two", (9, 21, 6))):
        values = rng.normal(size=sizes).cumsum(0).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(values, oblique()), tmp_path / "scans" / f"{name}.nii.gz")
    plan = replace(PLAN, normalisation=normalisation, largest=("one",))
    run = replace(trained(tmp_path, plan), model=network(), describe={"name": "test", **plan.described()})
    predict(run, input=str(tmp_path / "scans"), output=str(tmp_path / "ours"), pictures=0)
    answer = predict(run, bundle=str(tmp_path / "bundle"))
    assert "monai.bundle run" in answer.lines[-1]
    subprocess.run([sys.executable, "-c", ALONE, str(tmp_path)], check=True, capture_output=True, text=True)
    for name in ("one", "two"):
        ours, theirs = (nibabel.load(tmp_path / side / f"{name}.nii.gz") for side in ("ours", "theirs"))
        np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-5)
        said = np.asarray(ours.dataobj)
        assert len(np.unique(said)) > 1
        assert set(np.unique(said)) <= {0, 5, 2}
        assert (
            np.asarray(theirs.dataobj) == said
        ).mean() > 0.9995  # rounding may decide where two classes are as likely
        assert theirs.get_data_dtype() == np.uint8
    about = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())
    assert about["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "one", "2": "two"}


def test_a_bundle_is_of_one_run_on_volumes(tmp_path):
    run = trained(tmp_path)
    with pytest.raises(UserError, match="one segmentation run"):
        predict(replace(run, others=(run,)), bundle=str(tmp_path / "bundle"))
    images = Plan(2, (16, 16), ("background", "ball"), (0, 5))
    with pytest.raises(UserError, match="of volumes"):
        predict(trained(tmp_path, images), bundle=str(tmp_path / "bundle"))
    assert not (tmp_path / "bundle").exists()
