"""Images and masks in the user's own folders, and two sets of microscope and eye images in the same form."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ...core.errors import UserError
from ...core.ranges import Fraction, Seed, Side, Size, checked
from ..files import check_content, data_root, find, not_there, read
from ..folders import files_below
from ..loading import Loading
from ..randomness import divided
from .decoding import open_image
from .mask_files import read_mask
from .masks import IGNORED, MaskData, Masked
from .photos import is_image
from .sources import CHASE_DB1, EM_MEMBRANE, MASK_FOLDER

log = logging.getLogger(__name__)

IMAGES, MASKS = (
    ("images", "image", "imgs", "img"),
    ("masks", "mask", "labels", "label", "annotations", "SegmentationClass"),
)
SPLITS = ("train", "val", "test")
ENDS = ("", "_mask", "_label", "_labels", "_gt", "_1stHO")  # behind an image's name in its mask's


class MaskFolder(MaskData):
    """Images and masks of the same names: root/images/*.jpg and root/masks/*.png; or root/{train,val,test}/images and …/masks.

    A mask's pixels are classes: the index of a palette, or a grey value. Where all masks hold but 0 and 255, 255 is class 1;
    otherwise `ignore` says where nothing is known. The folders may be named images, image, imgs or img, and masks, mask, labels,
    label, annotations or SegmentationClass; a mask's name may end in _mask, _label or _gt.

    Args:
        root: the folder.
        loading, image_size, augment, channels, crops: see `MaskData`.
        classes: names, in the order of their numbers; None: numbers from 0 to the largest in the masks.
        ignore: the number of what is neither learnt nor counted.
        mean, std: of each channel, for pixels in [0, 1]; None: ImageNet's.
        val_fraction, test_fraction: share of the images, where there are no folders for them.
        split_seed: seed of these parts.
        name: the data set's name in results.
    """

    source = MASK_FOLDER

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=8),
        image_size: Side | Sequence[Side] = 256,
        augment: bool = True,
        channels: Size = 3,
        crops: Size = 1,
        classes: Sequence[str] | None = None,
        ignore: Size = IGNORED,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        split_seed: Seed = 0,
        name: str = "mask_folder",
    ):
        super().__init__(name, loading, image_size, augment, channels, crops)
        self.root, self.named, self.ignore = root, classes, ignore
        self.fractions, self.split_seed = (val_fraction, test_fraction), split_seed
        if mean is not None and std is not None:
            self.mean, self.std = tuple(mean), tuple(std)
            if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean) or min(self.std) <= 0:
                raise UserError("data.mean or data.std does not fit", given=f"mean={mean}, std={std}")

    def load(self) -> dict[str, list[Masked]]:
        """Pair images and masks and look through all masks; see `MaskData.load`."""
        if not self.root:
            raise UserError(f"{self.name} needs a folder of images and masks", do="data.root=FOLDER")
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise UserError("There is no such folder", given=f"data.root={root}", do="data.root=FOLDER")
        if (root / "train").is_dir():
            pairs = {split: _pairs(root / split) for split in SPLITS if (root / split).is_dir()}
        else:
            pairs = self._divided(_pairs(root))
        if "val" not in pairs:
            pairs |= dict(zip(("train", "val"), self._parts(pairs["train"], self.fractions[0]), strict=True))
        if "test" not in pairs:
            log.warning("%s has no test folder: testing on the validation images", root)
            pairs["test"], self.tested = pairs["val"], "the validation images: there is no folder for test"
        values = self._numbers([mask for split in pairs.values() for _, mask in split])
        return {
            split: [Masked(image.name, partial(read_pair, image, mask, values)) for image, mask in found]
            for split, found in pairs.items()
        }

    def _divided(self, pairs: Sequence[tuple[Path, Path]]) -> dict[str, list[tuple[Path, Path]]]:
        self.tested = "the test part (data.test_fraction)"
        return dict(zip(SPLITS, self._parts(pairs, *self.fractions), strict=True))

    def _parts(self, pairs: Sequence[tuple[Path, Path]], *fractions: float) -> list[list[tuple[Path, Path]]]:
        return [[pairs[each] for each in part] for part in divided(len(pairs), self.split_seed, *fractions)]

    def _numbers(self, masks: Sequence[Path]) -> np.ndarray:
        """The class of each number that may stand in a mask, uint8 (256,), after a look through all of them."""
        found: dict[int, Path] = {}
        for path in masks:
            for number in np.unique(read_mask(path)).tolist():
                found.setdefault(number, path)
        values = np.full(256, IGNORED, np.uint8)
        if set(found) <= {0, 255} and len(found) == 2:
            values[[0, 255]] = 0, 1
            largest = 1
        else:
            largest = max((number for number in found if number != self.ignore), default=0)
            values[: largest + 1] = np.arange(largest + 1)
            if self.ignore <= 255:
                values[self.ignore] = IGNORED
        names = (
            [str(each) for each in self.named] if self.named else [f"class {number}" for number in range(largest + 1)]
        )
        if largest >= len(names):
            raise UserError(
                f"{found.get(largest) or found[255]} holds a class that data.classes does not name", given=f"number {largest}",
                allowed=f"0 to {len(names) - 1}, and {self.ignore} for what is not known",
            )  # fmt: skip
        if len(names) < 2:
            raise UserError(
                "the masks hold one class alone", given=f"numbers {sorted(found)}", allowed="two classes or more"
            )
        self.classes = tuple(names)
        return values


class ChaseDB1(MaskFolder):
    """Retinal vessels in 28 fundus photographs of 999x960, by the first observer; the last eight are tested. From the data root.

    Args:
        loading, image_size, augment, channels, crops: see `MaskData`.
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`.
        val_fraction: share of the other twenty images.
        name: the data set's name in results.
    """

    source = CHASE_DB1

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=8),
        image_size: Side | Sequence[Side] = 96,
        augment: bool = True,
        channels: Size = 3,
        crops: Size = 8,
        val_fraction: Fraction = 0.1,
        split_seed: Seed = 0,
        name: str = "chase_db1",
    ):
        fractions = {"val_fraction": val_fraction, "split_seed": split_seed}
        names = ("background", "vessel")
        super().__init__(root, loading, image_size, augment, channels, crops, names, **fractions, name=name)

    def load(self) -> dict[str, list[Masked]]:
        """Pair the photographs with the first observer's masks; see `MaskData.load`."""
        folder = data_root(self.root) / self.source.folder
        images = sorted(folder.glob("Image_*.jpg"))
        if len(images) != 28:
            raise not_there("CHASE_DB1", data_root(self.root))
        pairs = [(path, path.with_name(f"{path.stem}_1stHO.png")) for path in images]
        train, val = self._parts(pairs[:20], self.fractions[0])
        values, self.classes, self.tested = np.arange(256, dtype=np.uint8), tuple(self.named), "the last eight images"
        return {
            split: [Masked(image.name, partial(read_pair, image, mask, values)) for image, mask in found]
            for split, found in (("train", train), ("val", val), ("test", pairs[20:]))
        }


class EMMembrane(MaskData):
    """Membranes in 30 electron microscope images of 512x512; images 24 to 29 are tested. Read from the data root.

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`.
        loading, image_size, augment, crops: see `MaskData`.
        val: images before the 25th that are validated.
        name: the data set's name in results.
    """

    source = EM_MEMBRANE
    mean, std = (0.495,), (0.173,)
    classes = ("membrane", "cell")
    tested = "images 24 to 29"

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=8),
        image_size: Side | Sequence[Side] = 96,
        augment: bool = True,
        crops: Size = 8,
        val: Size = 2,
        name: str = "em_membrane",
    ):
        super().__init__(name, loading, image_size, augment, 1, crops)
        self.root, self.val = data_root(root), min(val, 23)

    def load(self) -> dict[str, list[Masked]]:
        """Read the two files and check their sha256; see `MaskData.load`."""
        images, labels = (self._read(f"train_{each}.npy") for each in ("images", "labels"))
        masks = (labels > 0).astype(np.uint8)
        every = [Masked(f"image {number}", partial(_pair, images[number][None], masks[number])) for number in range(30)]
        return {"train": every[: 24 - self.val], "val": every[24 - self.val : 24], "test": every[24:]}

    def _read(self, name: str) -> np.ndarray:
        path = find([self.root / self.source.folder, self.root / Path(self.source.folder).name, self.root], name)
        if path is None:
            raise not_there(f"the membranes' {name}", self.root)
        content = read(path)
        check_content(path, content, self.source.content_sha256(name))
        return np.load(io.BytesIO(content), allow_pickle=False)


def read_pair(image: Path, mask: Path, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An image, uint8 (3, height, width), and its classes, uint8 (height, width).

    Raises:
        UserError: one of them cannot be read, or they differ in size.
    """
    pixels, classes = np.array(open_image(image)).transpose(2, 0, 1), values[read_mask(mask)]
    if pixels.shape[1:] != classes.shape:
        given = " and ".join("x".join(map(str, shape)) for shape in (pixels.shape[1:], classes.shape))
        raise UserError(f"{mask} and its image differ in size", given=given)
    return pixels, classes


def _pair(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return image, mask


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """The images of a folder with their masks; raises UserError naming one that has none."""
    images, masks = (
        next((folder / each for each in names if (folder / each).is_dir()), None) for names in (IMAGES, MASKS)
    )
    if images is None or masks is None:
        raise UserError(
            f"{folder} has no folder for {'images' if images is None else 'masks'}",
            allowed=f"one of {', '.join(IMAGES if images is None else MASKS)}",
        )
    known = {path.stem: path for path in files_below(masks) if is_image(path)}
    found = []
    for path in files_below(images):
        if not is_image(path):
            continue
        mask = next((known[path.stem + end] for end in ENDS if path.stem + end in known), None)
        if mask is None:
            raise UserError(f"{path} has no mask", given=f"no {path.stem}.png in {masks}")
        found.append((path, mask))
    if not found:
        raise UserError(f"{images} holds no images")
    return found
