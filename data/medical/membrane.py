"""The electron microscopy of the ISBI 2012 challenge: 30 sections of a fly's nerve tissue, 512x512 pixels, membranes labelled."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from ...core.errors import UserError
from ...core.ranges import Count, Share, Size, checked
from ..files import check_content, data_root, find, not_there, read
from ..loading import Loading
from .cases import Case
from .plan import Plan
from .segmentation import SegmentationData, shrunk
from .sources import EM_MEMBRANE

FILES = ("train_images.npy", "train_labels.npy")
BLOCKS, SIDE = 5, 512


class Membrane(SegmentationData):
    """Sections of nerve tissue, cell or membrane.

    Neighbouring sections look alike, so the parts are blocks of six sections: part `fold` is tested, the two sections that lie the
    farthest from it are validated.

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`.
        loading, patch_size, foreground, augment, patches: SegmentationData's.
        shrink: how many pixels along each axis become one, which makes everything quicker and the answers coarser.
        fold: the block that is tested, 0 to 4.
        name: the data set's name in results.
    """

    source = EM_MEMBRANE

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=4),
        patch_size: Size | Sequence[Size] | None = None,
        foreground: Share = 0.33,
        augment: bool = True,
        patches: Size = 4,
        shrink: Size = 1,
        fold: Count = BLOCKS - 1,
        name: str = "em_membrane",
    ):
        super().__init__(name, loading, patch_size, foreground, augment, patches)
        if fold >= BLOCKS:
            raise UserError("there is no such fold", given=f"data.fold={fold}", allowed=f"0 to {BLOCKS - 1}")
        self.root, self.shrink, self.fold = data_root(root), shrink, fold

    def make_plan(self) -> Plan:
        side = min(256, SIDE // self.shrink // 8 * 8)
        return Plan(2, self.patch_of(2, (side, side)), ("cell", "membrane"), (0, 255))

    def load(self, plan: Plan) -> dict[str, list[Case]]:
        images, labels = (self._read(name) for name in FILES)
        cases = []
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            small, membrane = shrunk(image[None], (label == 0).astype(np.uint8), self.shrink)
            cases.append(Case(f"section {number}", plan.normalised(small), membrane))
        size = len(cases) // BLOCKS
        held = range(self.fold * size, (self.fold + 1) * size)
        others = sorted(set(range(len(cases))) - set(held), key=lambda number: min(abs(number - each) for each in held))
        parts = {"train": sorted(others[:-2]), "val": sorted(others[-2:]), "test": held}
        return {split: [cases[number] for number in numbers] for split, numbers in parts.items()}

    def _read(self, name: str) -> np.ndarray:
        path = find([self.root / folder for folder in (self.source.folder, "")], name)
        if path is None:
            raise not_there(f"{self.source.folder}/{name}", self.root)
        content = read(path)
        check_content(path, content, self.source.content_sha256(name))
        return np.load(io.BytesIO(content))
