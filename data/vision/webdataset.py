"""Images of the user's own in WebDataset shards, as ImageNet is passed on where millions of small files are not wanted."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from ...core.errors import UserError
from ...core.ranges import Fraction, Mass, Seed, Side, Size, checked
from ..folders import files_below
from ..loading import Loading
from ..module import SPLITS
from .augmentation import LIGHT, Augmentation
from .image_files import ImageFiles
from .image_folder import WORDS
from .images import Split
from .shards import read_shards
from .sources import WEBDATASET

log = logging.getLogger(__name__)

NAMES = "classes.txt"


class WebDataset(ImageFiles):
    """Images in tar files: root/imagenet1k-train-0000.tar, …, root/imagenet1k-validation-00.tar, or root/train/*.tar.

    A sample is the files of one name, an image and its label: 0001.jpg with 0001.cls (a number) or 0001.json ({"label": 3}). Which
    split a shard belongs to is a word in its name, else in its folder's. Shards are read at any place, so the order of the samples,
    resuming and several processes are as with files; the place of each image is found once and kept in the cache.

    What is missing of the splits: see `ImageFolder`.

    Args:
        root: the folder of the shards.
        classes: a file of class names, one a line, in the order of the labels; None: root/classes.txt, else numbers.
        val_fraction: share of the images for validation, in each class, where no shard is for it.
        test_fraction: share of the images for testing, where no shard's name says what it is for.
        image_size: pixels, or (height, width) the model sees.
        channels: 3, or 1 for grey images.
        mean, std, crop, loading, augmentation, split_seed, name: see `ImageFiles`.
    """

    source = WEBDATASET

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
        classes: str | None = None,
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        split_seed: Seed = 0,
        name: str = "webdataset",
    ):
        super().__init__(name, root, loading, augmentation, image_size, channels, mean, std, crop, split_seed)
        self.named = None if classes is None else Path(classes).expanduser()
        self.fractions = (val_fraction, test_fraction)

    def load(self) -> dict[str, Split]:
        """Find where the images lie; see `Labelled.load`."""
        self.check_root()
        shards = [path for path in files_below(self.root) if path.suffix == ".tar"]
        if not shards:
            raise UserError(
                f"There are no shards in {self.root}",
                allowed="files that end in .tar",
                do="data.root=FOLDER of the shards",
            )
        sorted_out: dict[str | None, list[Path]] = {}
        for shard in shards:
            sorted_out.setdefault(_split_of(shard.relative_to(self.root)), []).append(shard)
        if None in sorted_out and len(sorted_out) > 1:
            log.warning(
                "not read, since their names have no word for a split: %s", ", ".join(map(str, sorted_out[None]))
            )
        found = {split: Split(*read_shards(sorted_out[split])) for split in SPLITS if split in sorted_out}
        everything = [] if found else [Split(*read_shards(shards))]
        self._name_classes([*found.values(), *everything])
        if everything:
            train, val, test = self._divided(everything[0], *self.fractions)
            self.tested = "the test part (data.test_fraction)"
            return {"train": train, "val": val, "test": test}
        if "train" not in found:
            log.warning("%s has no shards for train, so it can only be tested on", self.root)
        elif "val" not in found:
            found["train"], found["val"] = self._divided(found["train"], self.fractions[0])
        if "test" not in found:
            self.tested = "the validation images: there are no shards for test"
        return {**found, "test": found.get("test", found.get("val"))}

    def _name_classes(self, splits: Sequence[Split]) -> None:
        """Set `classes`; raises UserError where a label is of none."""
        lowest = min(int(split.labels.min()) for split in splits)
        highest = max(int(split.labels.max()) for split in splits)
        path = self.named or self.root / NAMES
        if self.named is None and not path.is_file():
            self.classes = tuple(str(label) for label in range(highest + 1))
        else:
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"cannot read the class names: {error}", given=f"data.classes={path}") from error
            self.classes = tuple(line.strip() for line in lines if line.strip())
        if lowest < 0 or highest >= len(self.classes):
            raise UserError(
                f"a label in {self.root} is of no class", given=lowest if lowest < 0 else highest,
                allowed=f"0 to {len(self.classes) - 1}", do=f"add its name to {path}" if lowest >= 0 else None,
            )  # fmt: skip


def _split_of(path: Path) -> str | None:
    """The split that a word in a shard's name means, else one in its folder's; None: no word."""
    for name in reversed(path.parts):
        said = set(re.split(r"[^a-z]+", name.lower()))
        for split, words in WORDS.items():
            if said & set(words.split("|")):
                return split
    return None
