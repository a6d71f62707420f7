"""The user's own folders: their layouts, divisions and plan."""

from __future__ import annotations

import json

import numpy as np
import pytest

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.medical import NiftiFolder
from polymamba.data.medical.cases import Preparation, StoredCase
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


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="needs a folder"):
        NiftiFolder().setup()
    with pytest.raises(UserError, match="is not there"):
        NiftiFolder(str(tmp_path / "nowhere")).setup()
    with pytest.raises(UserError, match="has no images"):
        NiftiFolder(str(tmp_path)).setup()
    with pytest.raises(UserError, match="no such fold"):
        NiftiFolder(fold=5)


def test_regions_are_labels_together(volumes, tmp_path):
    root = volumes()
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "whole": [1, 3], "back": 3}}))
    data = NiftiFolder(str(root), patch_size=8)
    described = data.describe().for_model
    assert described["classes"] == ["background", "label 1", "back"]
    assert described["regions"] == {"whole": [1, 2], "back": [2]}
    data.keep(tmp_path / "kept")
    other = NiftiFolder(str(root))
    other.restore(tmp_path / "kept")
    assert other.describe().for_model["regions"] == described["regions"]
    mine = NiftiFolder(str(root), patch_size=8, regions={"all": [1, 3]})
    assert mine.describe().for_model["regions"] == {"all": [1, 2]}
    for wrong in ({"all": [1, 7]}, {"all": []}, {"all": 1}, {"all": [0, 1]}):
        with pytest.raises(UserError, match="region all"):
            NiftiFolder(str(root), patch_size=8, regions=wrong).setup()


def test_an_ignored_label_is_no_class(volumes):
    root = volumes()
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "front": 1, "ignore": 3}}))
    data = NiftiFolder(str(root), patch_size=8)
    assert data.describe().for_model["classes"] == ["background", "front"]
    labels = data.splits["train"][0].labels
    assert set(np.unique(labels)) == {0, 1, 255}
    assert (labels == 255).sum() == 2 * 4 * 3


@pytest.mark.parametrize("held", [0, 5000], ids=["none", "some"])
def test_cases_that_memory_does_not_hold_are_the_same_from_the_cache(volumes, tmp_path, monkeypatch, caplog, held):
    root = volumes()
    volumes.write(root / "labelsTr" / "case2.nii.gz", np.zeros((12, 10, 8), np.uint8))  # nothing lies inside
    monkeypatch.setenv("POLYMAMBA_CACHE", str(tmp_path / "cache"))
    arguments = {"root": str(root), "patch_size": (12, 8, 8), "allow_empty": True, "foreground": 1.0}
    expected = NiftiFolder(**arguments)
    expected.setup()
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(NiftiFolder, "held", held)
    data = NiftiFolder(**arguments)
    data.setup()
    assert "memory holds" in caplog.text
    stored = sum(isinstance(case, StoredCase) for cases in data.splits.values() for case in cases)
    assert stored == (6 if held == 0 else 5)
    for split in ("train", "val", "test"):
        for epoch in range(2):
            positions = np.arange(data.samples(split))[: None if split == "train" else 1]
            for one, other in zip(
                data.load_batch(split, epoch, positions), expected.load_batch(split, epoch, positions), strict=True
            ):
                assert one.equal(other)


def test_the_cache_answers_for_the_files_and_the_plan_they_were_prepared_by(volumes, tmp_path, monkeypatch):
    root = volumes()
    monkeypatch.setenv("POLYMAMBA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(NiftiFolder, "held", 0)

    def files(**arguments):
        data = NiftiFolder(str(root), **arguments)
        data.setup()
        return {case.name: case.files for cases in data.splits.values() for case in cases}

    first = files()
    made = {path: path.stat().st_mtime_ns for paths in first.values() for path in paths}
    assert files(patch_size=4, fold=1) == first
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert not set(files(normalisation="ct").values()) & set(first.values())
    labels = root / "labelsTr" / "case3.nii.gz"
    changed = np.asarray(read_raw(labels, True).values[0]).copy()
    changed[0, 0, 0] = 3
    volumes.write(labels, changed)
    second = files()
    assert [name for name in first if second[name] != first[name]] == ["case3"]
    found = np.load(second["case3"][1])
    assert found[0, 0, 0] == 2


def test_verifying_reads_the_files_again(volumes):
    root = volumes()
    data = NiftiFolder(str(root))
    data.setup()
    labels = root / "labelsTr" / "case4.nii.gz"
    labels.write_bytes(labels.read_bytes()[:50])
    with pytest.raises(UserError, match="case4"):
        data.verify()


def test_a_trial_prepares_no_more_cases_than_it_uses(volumes, monkeypatch):
    made = []
    monkeypatch.setattr(Preparation, "__call__", lambda self, case: made.append(case.name))
    NiftiFolder(str(volumes()), loading=Loading(batch_size=2, limit=1)).setup()
    assert len(made) == 3
