"""Images in the user's own folders, one folder a class."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ...core.errors import UserError
from ...core.ranges import Fraction, Mass, Seed, Side, Size, checked
from ..folders import files_below, hidden
from ..loading import Loading
from ..module import SPLITS
from ..randomness import stratified
from .augmentation import LIGHT, Augmentation
from .image_files import ImageFiles
from .images import Split
from .photos import SUFFIXES, is_image
from .sources import IMAGE_FOLDER

log = logging.getLogger(__name__)

WORDS = {"train": "train|training|trn", "val": "val|valid|validation|dev|eval|evaluation", "test": "test|testing|tst"}
# what may stand beside the word: train_set, test-images, Training Data, val2017
BESIDE = "set|sets|split|data|dataset|image|images|img|imgs|photos|pictures|folder|samples"


class ImageFolder(ImageFiles):
    """Images in folders: root/train/CLASS/*, root/val/CLASS/*, root/test/CLASS/*; or root/CLASS/* with an automatic split.

    Folders inside a class belong to it. The splits' folders may have other names that say the same (Training, test_set,
    validation, …). Hidden files and folders are left out. How images are decoded: see `open_image`.

    A folder for val or test may be missing: then val is taken out of train, and without a test folder the validation
    images are tested on, which is said in the log and in `describe().tested`. Without one for train (ImageNet's val alone) the data
    are good for eval.py.

    Args:
        root: the folder.
        val_fraction: share of the images for validation, in each class, where there is no folder for them.
        test_fraction: share of the images for testing, where the classes lie in root directly.
        image_size: pixels, or (height, width) the model sees.
        channels: 3, or 1 for grey images.
        mean, std, crop, loading, augmentation, split_seed, name: see `ImageFiles`.
    """

    source = IMAGE_FOLDER

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=64),
        augmentation: Augmentation = LIGHT,
        image_size: Side | Sequence[Side] = 224,
        channels: Size = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        crop: Mass | None = None,
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        split_seed: Seed = 0,
        name: str = "image_folder",
    ):
        super().__init__(name, root, loading, augmentation, image_size, channels, mean, std, crop, split_seed)
        self.fractions = (val_fraction, test_fraction)

    def load(self) -> dict[str, Split]:
        """List the images and check the folders; see `ImageData.load`."""
        self.check_root()
        folders = self._folders()
        if not any(folders.values()):
            samples = self._list(self.root)
            train, val, test = self._parts(samples, *self.fractions)
            self.tested = "the test part (data.test_fraction)"
            return {"train": train, "val": val, "test": test}
        if folders["train"] is None:
            return self._only_tests(folders)
        train = self._list(folders["train"])
        if folders["val"] is None:
            train, val = self._parts(train, self.fractions[0])
        else:
            val = self._list(folders["val"], self.classes)
        if folders["test"] is not None:
            return {"train": train, "val": val, "test": self._list(folders["test"], self.classes)}
        log.warning("%s has no test folder: testing on the validation images", self.root)
        self.tested = "the validation images: there is no folder for test"
        return {"train": train, "val": val, "test": val}

    def _only_tests(self, folders: dict[str, Path | None]) -> dict[str, Split]:
        """The samples of a folder without one for train."""
        where = {split: folder for split, folder in folders.items() if folder is not None}
        if beside := [path.name for path in _subfolders(self.root) if path not in where.values()]:
            split, folder = next(iter(where.items()))
            raise UserError(
                f"{self.root} has a folder for {split} but none for train",
                given=f"{folder.name}: a split, no class; beside it {', '.join(beside)}",
                allowed=f"{self.root}/train/CLASS/image.jpg", do=f"rename {folder.name} where it is a class",
            )  # fmt: skip
        log.warning("%s has no folder for train, so it can only be tested on", self.root)
        found: dict[str, Split] = {}
        for split, folder in where.items():
            found[split] = self._list(folder, self.classes if found else None)
        if "test" not in found:
            self.tested = "the validation images: there is no folder for test"
        return {**found, "test": found.get("test", found.get("val"))}

    def _folders(self) -> dict[str, Path | None]:
        """The folder of each split, None where there is none."""
        found: dict[str, list[Path]] = {split: [] for split in SPLITS}
        others = []
        for folder in _subfolders(self.root):
            split = _split_of(folder.name)
            (others if split is None else found[split]).append(folder)
        for split, folders in found.items():
            if len(folders) > 1:
                raise UserError(
                    f"{self.root} has more than one folder for {split}", given=[path.name for path in folders]
                )
        for folder in others if any(found.values()) else []:
            if any(is_image(path) for path in files_below(folder)):
                log.warning("%s is not read: it is neither train nor val nor test", folder)
        return {split: next(iter(folders), None) for split, folders in found.items()}

    def _list(self, folder: Path, classes: Sequence[str] | None = None) -> Split:
        """The images under a folder of classes, sorted; the first folder listed says which classes there are."""
        names = [path.name for path in _subfolders(folder)]
        loose = sorted(path for path in folder.iterdir() if path.is_file() and is_image(path))
        if loose:
            raise UserError(
                f"{loose[0]} lies in no class's folder", given=f"{len(loose)} such images", do=_layout(folder)
            )
        if classes is None:
            if len(names) < 2:
                raise UserError(
                    f"{folder} has {'only one class' if names else 'no classes'}",
                    given=f"folders: {', '.join(names) or 'none'}",
                    allowed="two classes or more",
                    do=f"data.root={folder / names[0]}" if _holds_classes(folder, names) else _layout(folder),
                )
            if doubtful := [name for name in names if _looks_like_split(folder / name)]:
                raise UserError(
                    f"{folder / doubtful[0]} looks like a part of the data, not like a class",
                    given=f"folders: {', '.join(names)}",
                    allowed="folders named train, val and test; classes that hold images",
                    do=f"rename {doubtful[0]}: to train, val or test, or to the class's name",
                )
            self.classes = classes = tuple(names)
        elif unknown := sorted(set(names) - set(classes)):
            raise UserError(f"{folder / unknown[0]} is a class that train does not have", allowed=classes)
        elif absent := sorted(set(classes) - set(names)):
            raise UserError(f"{folder} lacks the class {absent[0]}", given=names, allowed=classes)
        paths, labels, others = [], [], set()
        for label, name in enumerate(classes):
            files = files_below(folder / name)
            images = [path for path in files if is_image(path)]
            others.update(path.suffix or path.name for path in files if not is_image(path))
            if not images:
                raise UserError(
                    f"The class folder {folder / name} holds no images",
                    allowed=f"files that end in {', '.join(SUFFIXES)}",
                    do="add images or remove the folder",
                )
            paths += images
            labels += [label] * len(images)
        if others:
            log.warning("%s: files that are no images are not read: %s", folder, ", ".join(sorted(others)[:8]))
        return Split(paths, torch.tensor(labels))

    def _parts(self, samples: Split, *fractions: float) -> list[Split]:
        keys = [f"{self.split_seed}/{path.relative_to(self.root).as_posix()}" for path in samples.images]
        digests = [int.from_bytes(hashlib.sha256(key.encode(errors="surrogateescape")).digest()[:8]) for key in keys]
        labels = samples.labels.numpy()
        parts = stratified(labels, np.array(digests, np.uint64), fractions)
        if lost := set(range(len(self.classes))) - set(labels[parts[0]].tolist()):
            raise UserError(f"The split leaves no training image of class {self.classes[min(lost)]}", do="add images")
        return [samples.take(part) for part in parts]


def _subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; raises UserError for a link that leads back to where it lies."""
    found = sorted(path for path in folder.iterdir() if path.is_dir() and not hidden(path.name))
    for path in found:
        if folder.resolve().is_relative_to(path.resolve()):
            raise UserError(f"{path} is a link to a folder that it lies in", given=path.resolve(), do=f"delete {path}")
    return found


def _split_of(name: str) -> str | None:
    """The split that a folder's name means: train for Training, train_set or train2017; None: a class."""
    word = re.sub(r"[^a-z]", "", name.lower())
    for split, words in WORDS.items():
        if re.fullmatch(f"({BESIDE})*({words})({BESIDE})*", word):
            return split
    return None


def _looks_like_split(folder: Path) -> bool:
    """Whether a name holds a split's word (seg_train) and the images lie in folders of their own, as classes do."""
    said = set(re.split(r"[^a-z]+", folder.name.lower())) & set("|".join(WORDS.values()).split("|"))
    return bool(said) and len(_subfolders(folder)) > 1 and not any(is_image(path) for path in folder.iterdir())


def _holds_classes(folder: Path, names: Sequence[str]) -> bool:
    """Whether all there is in a folder is one that holds folders, as an unpacked archive does."""
    return len(names) == 1 and len(_subfolders(folder / names[0])) > 1


def _layout(folder: Path) -> str:
    return f"put the images into folders named after their classes: {folder}/CLASS/image.jpg"
