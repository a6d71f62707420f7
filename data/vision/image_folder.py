"""Images in the user's own folders, one folder a class."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ...core.errors import UserError
from ...core.ranges import Fraction, Seed, Side, Size, checked
from ..folders import files_below, hidden
from ..loading import Loading
from ..module import SPLITS, Description
from ..randomness import stratified
from .augmentation import LIGHT, Augmentation
from .decoding import open_image
from .images import ImageData, Split
from .photos import SUFFIXES, is_image
from .sources import IMAGE_FOLDER

log = logging.getLogger(__name__)

WORDS = {"train": "train|training|trn", "val": "val|valid|validation|dev|eval|evaluation", "test": "test|testing|tst"}
# what may stand beside the word: train_set, test-images, Training Data, val2017
BESIDE = "set|sets|split|data|dataset|image|images|img|imgs|photos|pictures|folder|samples"
MOST_NAMED = 20


class ImageFolder(ImageData):
    """Images in folders: root/train/CLASS/*, root/val/CLASS/*, root/test/CLASS/*; or root/CLASS/* with an automatic split.

    Folders inside a class belong to it. The splits' folders may have other names that say the same (Training, test_set,
    validation, …). Hidden files and folders are left out. How images are decoded: see `open_image`.

    A folder for val or test may be missing: then val is taken out of train, and without a test folder the validation
    images are tested on, which is said in the log and in `describe().tested`.

    Args:
        root: the folder.
        val_fraction: share of the images for validation, in each class, where there is no folder for them.
        test_fraction: share of the images for testing, where the classes lie in root directly.
        image_size: pixels, or (height, width) the model sees.
        channels: 3, or 1 for grey images.
        mean, std: of each channel, for pixels in [0, 1]; None: ImageNet's.
        loading, augmentation, split_seed, name: see `Digits`.
    """

    source = IMAGE_FOLDER
    own_size, own_channels = (224, 224), 3
    in_memory = False
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

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
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        split_seed: Seed = 0,
        name: str = "image_folder",
    ):
        super().__init__(name, loading, augmentation, image_size, channels, split_seed)
        if not root:
            raise UserError("image_folder needs a folder of images", do="data.root=FOLDER")
        self.root = Path(root).expanduser()
        self.fractions = (val_fraction, test_fraction)
        if (mean is None) != (std is None):
            raise UserError("data.mean and data.std go together", given=f"mean={mean}, std={std}")
        if mean is not None:
            self.mean, self.std = tuple(mean), tuple(std)
            if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean) or min(self.std) <= 0:
                raise UserError("data.mean or data.std does not fit", given=f"mean={mean}, std={std}")

    def load(self) -> dict[str, Split]:
        """List the images and check the folders; see `ImageData.load`."""
        if not self.root.is_dir():
            raise UserError("There is no such folder", given=f"data.root={self.root}", do="data.root=FOLDER")
        folders = self._folders()
        if folders["train"] is None:
            if alone := folders["val"] or folders["test"]:
                raise UserError(
                    f"{self.root} has a folder for {'val' if folders['val'] else 'test'} but none for train",
                    given=f"{alone.name}: a split, no class", allowed=f"{self.root}/train/CLASS/image.jpg",
                    do=f"rename {alone.name} where it is a class",
                )  # fmt: skip
            samples = self._list(self.root)
            train, val, test = self._parts(samples, *self.fractions)
            self.tested = "the test part (data.test_fraction)"
            return {"train": train, "val": val, "test": test}
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

    def describe(self) -> Description:
        """See `ImageData.describe`."""
        return replace(super().describe(), source=str(self.root))

    def verify(self) -> None:
        """Decode every image; raises UserError that names each broken file (the first twenty)."""
        splits = self.load()
        paths = sorted({path for split in splits.values() for path in split.images})
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            broken = [error for error in pool.map(_broken, paths) if error is not None]
        if broken:
            named = [f"{error.problem.removeprefix('Broken image: ')} ({error.given})" for error in broken[:MOST_NAMED]]
            more = [f"and {len(broken) - MOST_NAMED} more"] if len(broken) > MOST_NAMED else []
            raise UserError(
                f"{len(broken)} of {len(paths)} images in {self.root} are broken",
                given="\n           ".join([*named, *more]),
                do="replace or delete these files",
            )

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


def _broken(path: Path) -> UserError | None:
    try:
        open_image(path)
    except UserError as error:
        return error
    return None


def _layout(folder: Path) -> str:
    return f"put the images into folders named after their classes: {folder}/CLASS/image.jpg"
