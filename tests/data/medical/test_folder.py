"""The user's own folders: their layouts, divisions and plan, and twelve that are broken."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from polymamba.core.errors import UserError
from polymamba.data.medical import NiftiFolder
from polymamba.data.medical.volumes import read_raw


def test_a_folder_of_nnunet(volumes):
    data = NiftiFolder(str(volumes()), patch_size=8)
    described = data.describe()
    assert described.counts == {"train": 3, "val": 1, "test": 2}
    assert data.plan.classes == ("background", "front", "back")
    assert data.plan.values == (0, 1, 3)
    assert data.plan.spacing == (1.0, 1.0, 2.0)
    images, labels = data.load_batch("train", 0, np.arange(2))
    assert images.shape == (2, 1, 8, 8, 8)
    assert set(labels.unique().tolist()) <= {0, 1, 2, 255}


def test_every_case_is_tested_in_one_fold_alone(volumes):
    root = str(volumes())
    tested, everything = [], set()
    for fold in range(5):
        data = NiftiFolder(root, fold=fold)
        data.setup()
        names = {split: {case.name for case in cases} for split, cases in data.splits.items()}
        assert not names["test"] & (names["train"] | names["val"])
        tested += names["test"]
        everything |= set().union(*names.values())
    assert sorted(tested) == sorted(everything) == [f"case{number}" for number in range(6)]


def test_a_division_of_ones_own(volumes, tmp_path):
    root = str(volumes())
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({"train": ["case0", "case1"], "val": ["case2"], "test": ["case5"]}))
    data = NiftiFolder(root, splits=str(mine))
    data.setup()
    assert [case.name for case in data.splits["train"]] == ["case0", "case1"]
    mine.write_text(json.dumps({"train": ["case0"], "val": ["case2"], "test": ["case0"]}))
    with pytest.raises(UserError, match="case0 is trained on and tested too"):
        NiftiFolder(root, splits=str(mine)).setup()
    mine.write_text(json.dumps({"train": ["nobody"], "val": ["case2"], "test": ["case0"]}))
    with pytest.raises(UserError, match="no case nobody"):
        NiftiFolder(root, splits=str(mine)).setup()


def test_labelled_test_cases_are_the_test(volumes):
    root = volumes()
    volumes(2, names=("imagesTs", "labelsTs"))
    data = NiftiFolder(str(root))
    assert data.describe().counts == {"train": 4, "val": 2, "test": 2}


def test_another_orientation_is_turned(volumes):
    """A volume that lies mirrored and with other axes first in its file is the same volume."""
    root = volumes(1)
    path = root / "imagesTr" / "case0_0000.nii.gz"
    upright = read_raw(path)
    turned = upright.values[0].transpose(2, 0, 1)[::-1]
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = -2.0, 1.0, 1.0, 1.0
    affine[2, 3] = 2.0 * (turned.shape[0] - 1)
    volumes.write(root / "turned.nii.gz", turned, affine)
    found = read_raw(root / "turned.nii.gz")
    np.testing.assert_allclose(found.values, upright.values)
    assert found.spacing == upright.spacing == (1.0, 1.0, 2.0)


def test_the_plan_is_kept_and_used_again(volumes, tmp_path):
    data = NiftiFolder(str(volumes()), patch_size=8, normalisation="ct")
    data.keep(tmp_path / "kept")
    other = NiftiFolder(str(volumes.root), patch_size=4)
    other.restore(tmp_path / "kept")
    other.setup()
    assert other.plan == data.plan
    (tmp_path / "kept" / "plan.json").write_text('{"axes": 7}')
    with pytest.raises(UserError, match=r"plan\.json is not a plan"):
        other.restore(tmp_path / "kept")


def _spoil_sizes(volumes, root):
    volumes.write(root / "labelsTr" / "case2.nii.gz", np.ones((12, 10, 7), np.uint8))
    return "labelsTr/case2.nii.gz"


def _spoil_spacing(volumes, root):
    volumes.write(root / "labelsTr" / "case2.nii.gz", np.ones((12, 10, 8), np.uint8), np.diag([1.0, 1.0, 3.0, 1.0]))
    return "labelsTr/case2.nii.gz"


def _spoil_origin(volumes, root):
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 3] = 40
    volumes.write(root / "labelsTr" / "case2.nii.gz", np.ones((12, 10, 8), np.uint8), affine)
    return "labelsTr/case2.nii.gz"


def _spoil_orientation(volumes, root):
    volumes.write(root / "labelsTr" / "case2.nii.gz", np.ones((12, 10, 8), np.uint8), np.diag([-1.0, 1.0, 2.0, 1.0]))
    return "labelsTr/case2.nii.gz"


def _spoil_nan(volumes, root):
    values = np.random.default_rng(0).normal(size=(12, 10, 8)).astype(np.float32)
    values[3, 3, 3] = np.nan
    volumes.write(root / "imagesTr" / "case2_0000.nii.gz", values)
    return "imagesTr/case2_0000.nii.gz"


def _spoil_constant(volumes, root):
    volumes.write(root / "imagesTr" / "case2_0000.nii.gz", np.zeros((12, 10, 8), np.float32))
    return "imagesTr/case2_0000.nii.gz"


def _spoil_values(volumes, root):
    volumes.write(root / "labelsTr" / "case2.nii.gz", np.full((12, 10, 8), 7, np.uint8))
    return "labelsTr/case2.nii.gz"


def _spoil_fractions(volumes, root):
    volumes.write(root / "labelsTr" / "case2.nii.gz", np.full((12, 10, 8), 0.5, np.float32))
    return "labelsTr/case2.nii.gz"


def _spoil_empty(volumes, root):
    volumes.write(root / "labelsTr" / "case2.nii.gz", np.zeros((12, 10, 8), np.uint8))
    return "labelsTr/case2.nii.gz"


def _spoil_no_labels(volumes, root):
    (root / "labelsTr" / "case2.nii.gz").unlink()
    return "imagesTr/case2_0000.nii.gz"


def _spoil_no_image(volumes, root):
    (root / "imagesTr" / "case2_0000.nii.gz").unlink()
    return "labelsTr/case2.nii.gz"


def _spoil_gzip(volumes, root):
    path = root / "imagesTr" / "case2_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    return "imagesTr/case2_0000.nii.gz"


def _spoil_content(volumes, root):
    (root / "labelsTr" / "case2.nii.gz").write_bytes(gzip.compress(b"not a volume" * 100))
    return "labelsTr/case2.nii.gz"


def _spoil_channels(volumes, root):
    volumes.write(root / "imagesTr" / "case2_0001.nii.gz", np.random.default_rng(0).normal(size=(12, 10, 8)))
    return "imagesTr/case2_0000.nii.gz"


def _spoil_meaning(volumes, root):
    (root / "dataset.json").write_text('{"labels": 3}')
    return "dataset.json"


SPOILT = {name.removeprefix("_spoil_"): spoil for name, spoil in list(globals().items()) if name.startswith("_spoil_")}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_broken_folder_is_refused_by_the_name_of_its_file(volumes, fault):
    root = volumes()
    named = SPOILT[fault](volumes, root)
    with pytest.raises(UserError) as refused:
        NiftiFolder(str(root)).setup()
    assert str(root / named) in str(refused.value)


def test_all_faults_are_said_at_once(volumes):
    root = volumes()
    names = [spoil(volumes, root) for spoil in (_spoil_nan, _spoil_empty)]
    with pytest.raises(UserError, match="2 faults") as refused:
        NiftiFolder(str(root)).setup()
    assert all(str(root / name) in str(refused.value) for name in names)


def test_a_broken_folder_leaves_nothing_behind(volumes, tmp_path, monkeypatch, capsys):
    from polymamba.engine.command_line.main import main

    root = volumes()
    _spoil_gzip(volumes, root)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    asked = ["domain=medical", "data=nifti_folder", f"data.root={root}", "run_dir=run", "trainer.progress=none"]
    assert main(asked) == 2
    assert "case2_0000.nii.gz" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="needs a folder"):
        NiftiFolder().setup()
    with pytest.raises(UserError, match="is not there"):
        NiftiFolder(str(tmp_path / "nowhere")).setup()
    with pytest.raises(UserError, match="has no images"):
        NiftiFolder(str(tmp_path)).setup()
    with pytest.raises(UserError, match="no such fold"):
        NiftiFolder(fold=5)
