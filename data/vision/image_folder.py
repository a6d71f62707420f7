"""Images in the user's own folders, one folder a class."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ...core.errors import UserError
from ...core.ranges import Fraction, Seed, Share, Side, Size, Workers
from ..loading import Loading
from ..randomness import stratified
from ..sources import IMAGE_FOLDER
from .augmentation import Augmentation, open_image
from .module import SPLITS, ImageData, Split, checked_fraction

log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
ALIASES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
MOST_NAMED = 20


class ImageFolder(ImageData):
    """Images in folders: root/train/CLASS/*, root/val/CLASS/*, root/test/CLASS/*; or root/CLASS/* with an automatic split.

    A folder for val or test may be missing: then val is taken out of train, and without a test folder the validation
    images are tested on, which is said in the log and in `describe()`.

    Args:
        root: the folder.
        val_fraction: share of the images for validation, in each class, where there is no folder for them.
        test_fraction: share of the images for testing, where the classes lie in root directly.
        image_size: pixels, or (height, width) the model sees.
        channels: 3, or 1 for grey images.
        mean, std: of each channel, for pixels in [0, 1]; None: ImageNet's.
        batch_size, workers, seed, augmentation, rand_augment, erasing, split_seed, limit, pin_memory, name: see `Digits`.
    """

    source = IMAGE_FOLDER
    own_size, own_channels = (224, 224), 3
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(
        self,
        root: str | None = None,
        batch_size: Size = 64,
        workers: Workers = 0,
        seed: Seed = 0,
        image_size: Side | Sequence[Side] = 224,
        channels: Size = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        augmentation: Literal["none", "light", "standard"] = "light",
        rand_augment: str | None = None,
        erasing: Share | None = None,
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        split_seed: Seed = 0,
        limit: Size | None = None,
        pin_memory: bool = False,
        name: str = "image_folder",
    ):
        loading = Loading(batch_size, workers, seed, limit, pin_memory)
        super().__init__(
            name, loading, Augmentation(augmentation, rand_augment, erasing), image_size, channels, split_seed
        )
        if not root:
            raise UserError("image_folder needs a folder of images", do="data.root=FOLDER")
        self.root = Path(root).expanduser()
        self.fractions = (
            checked_fraction("val_fraction", val_fraction),
            checked_fraction("test_fraction", test_fraction),
        )
        if (mean is None) != (std is None):
            raise UserError("data.mean and data.std go together", given=f"mean={mean}, std={std}")
        if mean is not None:
            self.mean, self.std = tuple(mean), tuple(std)
            if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean) or min(self.std) <= 0:
                raise UserError("data.mean or data.std does not fit", given=f"mean={mean}, std={std}")
        self.test_is_val = False

    def load(self) -> dict[str, Split]:
        """List the images and check the folders; see `ImageData.load`."""
        if not self.root.is_dir():
            raise UserError("There is no such folder", given=f"data.root={self.root}", do="data.root=FOLDER")
        folders = {split: self._folder_of(split) for split in SPLITS}
        if folders["train"] is None:
            if folders["val"] or folders["test"]:
                raise UserError(
                    f"{self.root} has a folder for {'val' if folders['val'] else 'test'} but none for train"
                )
            samples = self._list(self.root)
            train, val, test = self._parts(samples, *self.fractions)
            return {"train": train, "val": val, "test": test}
        train = self._list(folders["train"])
        if folders["val"] is None:
            train, val = self._parts(train, self.fractions[0])
        else:
            val = self._list(folders["val"], self.classes)
        self.test_is_val = folders["test"] is None
        if self.test_is_val:
            log.warning("%s has no test folder: testing on the validation images", self.root)
        test = val if self.test_is_val else self._list(folders["test"], self.classes)
        return {"train": train, "val": val, "test": test}

    def describe(self) -> dict[str, object]:
        """See `ImageData.describe`; `test_is_val` says that there are no test images of their own."""
        return {**super().describe(), "source": str(self.root), "test_is_val": self.test_is_val}

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

    def _folder_of(self, split: str) -> Path | None:
        found = [self.root / name for name in ALIASES[split] if (self.root / name).is_dir()]
        if len(found) > 1:
            raise UserError(f"{self.root} has more than one folder for {split}", given=[path.name for path in found])
        return found[0] if found else None

    def _list(self, folder: Path, classes: Sequence[str] | None = None) -> Split:
        """The images under a folder of classes, sorted; the first folder listed says which classes there are."""
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        names = [entry.name for entry in entries if entry.is_dir()]
        if loose := [entry for entry in entries if entry.is_file() and entry.suffix.lower() in SUFFIXES]:
            raise UserError(
                f"{loose[0]} lies in no class's folder", given=f"{len(loose)} such images", do=_layout(folder)
            )
        if classes is None:
            if len(names) < 2:
                raise UserError(
                    f"{folder} has {'only one class' if names else 'no classes'}",
                    given=f"folders: {', '.join(names) or 'none'}",
                    allowed="two classes or more",
                    do=_layout(folder),
                )
            self.classes = classes = tuple(names)
        elif unknown := sorted(set(names) - set(classes)):
            raise UserError(f"{folder / unknown[0]} is a class that train does not have", allowed=classes)
        elif absent := sorted(set(classes) - set(names)):
            raise UserError(f"{folder} lacks the class {absent[0]}", given=names, allowed=classes)
        paths, labels = [], []
        for label, name in enumerate(classes):
            images = _images(folder / name)
            if not images:
                raise UserError(
                    f"The class folder {folder / name} holds no images",
                    allowed=f"files that end in {', '.join(SUFFIXES)}",
                    do="add images or remove the folder",
                )
            paths += images
            labels += [label] * len(images)
        return Split(paths, torch.tensor(labels))

    def _parts(self, samples: Split, *fractions: float) -> list[Split]:
        keys = [f"{self.split_seed}/{path.relative_to(self.root).as_posix()}" for path in samples.images]
        digests = [int.from_bytes(hashlib.sha256(key.encode(errors="surrogateescape")).digest()[:8]) for key in keys]
        labels = samples.labels.numpy()
        parts = stratified(labels, np.array(digests, np.uint64), fractions)
        if lost := set(range(len(self.classes))) - set(labels[parts[0]].tolist()):
            raise UserError(f"The split leaves no training image of class {self.classes[min(lost)]}", do="add images")
        return [samples.take(part) for part in parts]


def _images(folder: Path) -> list[Path]:
    found = (Path(where) / name for where, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def _broken(path: Path) -> UserError | None:
    try:
        open_image(path)
    except UserError as error:
        return error
    return None


def _layout(folder: Path) -> str:
    return f"put the images into folders named after their classes: {folder}/CLASS/image.jpg"
