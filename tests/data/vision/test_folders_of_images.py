"""Folders as people have them: other names for the splits, what systems leave behind, links, archives."""

import shutil

import pytest
from PIL import Image

from polymamba.core.errors import UserError
from polymamba.data.vision import ImageFolder


def fill(folder, count=4, classes=("blue", "red"), suffix="png"):
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (8, 8), name).save(folder / name / f"{i}.{suffix}")
    return folder


def told(root, **options):
    return ImageFolder(root=str(root), image_size=8, **options).describe()


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Training", "Validation", "Testing"), ("TRAIN", "VAL", "TEST"), ("train_set", "valid-set", "test set"),
        ("train_images", "val_images", "images_test"), ("train2017", "val2017", "test2017"),
        ("Training Data", "dev", "TestData"), ("trainset", "valset", "testset"), ("trn", "eval", "tst"),
    ],
)  # fmt: skip
def test_other_names_of_the_splits(tmp_path, train, val, test):
    for name, count in ((train, 5), (val, 3), (test, 2)):
        fill(tmp_path / name, count)
    found = told(tmp_path)
    assert found.for_model["classes"] == ["blue", "red"]
    assert found.counts == {"train": 10, "val": 6, "test": 4}


@pytest.mark.parametrize("names", [("test_tube", "train_station"), ("trainers", "boots"), ("evaluator", "tested")])
def test_classes_whose_names_resemble_a_split(tmp_path, names):
    fill(tmp_path, 9)
    for old, new in zip(("blue", "red"), names, strict=True):
        (tmp_path / old).rename(tmp_path / new)
    assert told(tmp_path, val_fraction=0.2).for_model["classes"] == sorted(names)


def test_what_may_be_a_split_or_a_class_is_asked_about(tmp_path):
    for name in ("seg_train", "seg_test"):
        fill(tmp_path / "parts" / name)
    with pytest.raises(UserError, match="seg_test looks like a part of the data, not like a class"):
        told(tmp_path / "parts")
    for name in ("Control", "Test"):
        fill(tmp_path / "groups" / name)
    with pytest.raises(UserError, match="a folder for test but none for train") as caught:
        told(tmp_path / "groups")
    assert "rename Test" in caught.value.do
    fill(tmp_path / "doubled" / "train")
    fill(tmp_path / "doubled" / "Training")
    with pytest.raises(UserError, match="more than one folder for train"):
        told(tmp_path / "doubled")


def test_folders_beside_the_splits_are_mentioned(tmp_path, caplog):
    for name in ("train", "val", "test", "unlabelled"):
        fill(tmp_path / name)
    (tmp_path / "annotations").mkdir()
    told(tmp_path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'unlabelled'} is not read: it is neither train nor val nor test"
    ]


def test_what_systems_leave_behind_is_not_read(tmp_path):
    fill(tmp_path / "train", 5)
    fill(tmp_path / "test", 2)
    for where in (tmp_path, tmp_path / "train", tmp_path / "train" / "red"):
        for name in (".git", ".ipynb_checkpoints", "__MACOSX", "@eaDir", "$RECYCLE.BIN"):
            (where / name).mkdir()
            Image.new("RGB", (8, 8)).save(where / name / "copy.png")
            (where / name / "broken.jpg").write_bytes(b"")
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
            (where / name).write_bytes(b"\0")
    data = ImageFolder(root=str(tmp_path), image_size=8, val_fraction=0.2)
    data.verify()
    assert [len(split) for split in data.load().values()] == [8, 2, 4]


def test_folders_inside_a_class_belong_to_it(tmp_path, caplog):
    for place in ("", "indoors", "outdoors/winter"):
        fill(tmp_path / "a" / place, 2, ["red"])
        fill(tmp_path / "b" / place, 2, ["red"])
    (tmp_path / "a" / "indoors" / "notes.heic").write_bytes(b"?")
    data = ImageFolder(root=str(tmp_path), image_size=8, val_fraction=0.2)
    assert data.describe().for_model["classes"] == ["a", "b"]
    assert sum(len(split) for split in data.splits.values()) == 12
    assert [each.getMessage() for each in caplog.records] == [
        f"{tmp_path}: files that are no images are not read: .heic"
    ]


def test_links(tmp_path):
    fill(tmp_path / "elsewhere", 6)
    root = tmp_path / "root"
    root.mkdir()
    for name in ("blue", "red"):
        (root / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere" / "red" / "again").symlink_to(tmp_path / "elsewhere" / "red")
    more = fill(tmp_path / "more", 3, ["red"])
    (tmp_path / "elsewhere" / "red" / "more").symlink_to(more)
    data = ImageFolder(root=str(root), image_size=8)
    assert [int((split.labels == 1).sum()) for split in data.load().values()] == [6, 1, 2]
    (root / "round").symlink_to(root)
    with pytest.raises(UserError, match="round is a link to a folder that it lies in"):
        data.load()
    (root / "round").unlink()
    (root / "red" / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"gone\.png"):
        data.verify()


def test_an_archive_in_a_folder_of_its_own(tmp_path):
    for name in ("train", "test"):
        fill(tmp_path / "flowers" / name)
    with pytest.raises(UserError, match="only one class") as caught:
        told(tmp_path)
    assert caught.value.do == f"data.root={tmp_path / 'flowers'}"


def test_upper_case_and_further_suffixes(tmp_path):
    for suffix in ("JPG", "Png", "jfif", "tga"):
        fill(tmp_path, 3, suffix=suffix)
    assert sum(told(tmp_path).counts.values()) == 24


def test_a_train_folder_that_holds_images_is_a_class(tmp_path):
    fill(tmp_path, 4)
    shutil.copytree(tmp_path / "red", tmp_path / "train")
    with pytest.raises(UserError, match=r"train/0\.png lies in no class's folder"):
        told(tmp_path)
