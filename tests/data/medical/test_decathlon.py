"""The Decathlon's archives: found, unpacked whole or not at all, with the checksums that MONAI has."""

from __future__ import annotations

import tarfile

import pytest

from polymamba.core.errors import UserError
from polymamba.data.medical import Decathlon
from polymamba.data.medical.decathlon import SETS


@pytest.fixture
def archive(volumes, tmp_path):
    """An archive as the Decathlon has them: archive() -> its path."""
    root = volumes()
    for path in (root / "imagesTr").iterdir():
        path.rename(path.with_name(path.name.replace("_0000", "")))
    (root / "imagesTr" / "._case0.nii.gz").write_bytes(b"of a Mac")
    (root / "dataset.json").write_text('{"labels": {"0": "background", "1": "front", "3": "back"}}')
    path = tmp_path / "data" / "Task04_Hippocampus.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as files:
        files.add(root, "Task04_Hippocampus")
    return path


def test_an_archive_beside_the_data_is_unpacked_once(archive):
    data = Decathlon(str(archive.parent), patch_size=8)
    assert data.describe().counts == {"train": 3, "val": 1, "test": 2}
    assert data.plan.classes == ("background", "front", "back")
    archive.unlink()
    assert Decathlon(str(archive.parent)).describe().counts == {"train": 3, "val": 1, "test": 2}
    home = archive.parent / "medical" / "decathlon"
    assert [path.name for path in home.iterdir()] == ["Task04_Hippocampus"]


def test_a_damaged_archive_leaves_no_folder(archive):
    archive.write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(UserError, match="damaged or cut off") as refused:
        Decathlon(str(archive.parent)).read()
    assert str(archive) in str(refused.value)
    assert list((archive.parent / "medical" / "decathlon").iterdir()) == []


def test_another_archive_is_named(archive):
    archive.rename(archive.with_name("Task02_Heart.tar"))
    with pytest.raises(UserError, match="no folder Task02_Heart"):
        Decathlon(str(archive.parent), set="Task02_Heart").read()


@pytest.mark.slow
def test_addresses_and_checksums_are_those_of_monai():
    from monai.apps.datasets import DecathlonDataset

    files = [Decathlon.source.file(f"{name}.tar") for name in SETS]
    assert {name: file.urls[0] for name, file in zip(SETS, files, strict=True)} == DecathlonDataset.resource
    assert {name: file.md5 for name, file in zip(SETS, files, strict=True)} == DecathlonDataset.md5


def test_a_task_that_there_is_not():
    with pytest.raises(UserError, match="Task11"):
        Decathlon(set="Task11_Nothing")
