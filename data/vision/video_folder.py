"""Videos in the user's own folders, one folder a class."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ...core.errors import UserError
from ...core.ranges import Fraction, Seed, Side, Size, checked
from ..folders import hidden
from ..loading import Loading
from .sources import VIDEO_FOLDER
from .video_files import Clip, clips_below, open_clip
from .videos import Clips, VideoData

log = logging.getLogger(__name__)


class VideoFolder(VideoData):
    """Videos in folders: root/{train,val,test}/CLASS/*, or root/CLASS/* with an automatic division.

    A video is a file (the extra `video` decodes it) or a folder of frames, images that are named in their order. Without a folder
    for val it is taken out of train; without one for test the validation videos are tested on.

    Args:
        root: the folder.
        loading, frames, image_size, flip, split_seed: see `VideoData`.
        val_fraction, test_fraction: share of the videos, in each class, where there are no folders for them.
        name: the data set's name in results.
    """

    source = VIDEO_FOLDER

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=8),
        frames: Size = 16,
        image_size: Side | Sequence[Side] = 224,
        flip: bool = True,
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        split_seed: Seed = 0,
        name: str = "video_folder",
    ):
        super().__init__(name, loading, frames, image_size, flip, split_seed)
        if not root:
            raise UserError("video_folder needs a folder of videos", do="data.root=FOLDER")
        self.root, self.fractions = Path(root).expanduser(), (val_fraction, test_fraction)

    def load(self) -> dict[str, Clips]:
        """List the videos and look at each; see `Labelled.load`."""
        if not self.root.is_dir():
            raise UserError("There is no such folder", given=f"data.root={self.root}", do="data.root=FOLDER")
        parts = {split: self.root / split for split in ("train", "val", "test") if (self.root / split).is_dir()}
        if "train" not in parts:
            train, val, test = self._divided(self._listed(self.root), *self.fractions)
            return {"train": train, "val": val, "test": test}
        found = {split: self._listed(folder) for split, folder in parts.items()}
        if "val" not in found:
            found["train"], found["val"] = self._divided(found["train"], self.fractions[0])
        if "test" not in found:
            log.warning("%s has no test folder: testing on the validation videos", self.root)
        return {**found, "test": found.get("test", found["val"])}

    def _listed(self, folder: Path) -> Clips:
        """The videos under a folder of classes, sorted; the first folder listed says which classes there are."""
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not hidden(path.name))
        if not hasattr(self, "classes"):
            self.classes = tuple(names)
        if len(names) < 2 or tuple(names) != self.classes:
            raise UserError(
                f"{folder} does not hold the classes", given=f"folders: {', '.join(names) or 'none'}",
                allowed="two or more" if len(names) < 2 else ", ".join(self.classes),
            )  # fmt: skip
        clips, labels = [], []
        for label, name in enumerate(names):
            found = clips_below(folder / name)
            if not found or found == [folder / name]:
                raise UserError(
                    f"the class folder {folder / name} holds no videos",
                    allowed="video files, or a folder of frames for each video",
                )
            clips += [_LazyClip(path) for path in found]
            labels += [label] * len(found)
        return Clips(clips, torch.tensor(labels))


class _LazyClip:
    """A clip that is opened when it is first asked for something."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.name

    @property
    def length(self) -> int:
        return _opened(self.path).length

    def read(self, index: list[int]) -> np.ndarray:
        return _opened(self.path).read(index)


@lru_cache(maxsize=4096)
def _opened(path: Path) -> Clip:
    return open_clip(path)
