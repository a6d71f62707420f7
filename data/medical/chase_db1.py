"""CHASE_DB1: 28 photographs of the retinas of 14 children, 999x960 pixels, vessels labelled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...core.ranges import Share, Size, checked
from ..files import data_root, not_there
from ..loading import Loading
from .cases import Case
from .checks import Checked, Files, check_pairs
from .plan import Plan, prepared_labels
from .segmentation import SegmentationData, shrunk
from .sources import CHASE_DB1

PARTS = {"train": range(1, 10), "val": (10,), "test": range(11, 15)}  # children, each with two eyes
SIDE = 960


class ChaseDB1(SegmentationData):
    """Retinas in colours, vessel or not; the first observer's labels.

    The usual division: the first 20 images are for training (child 10's two for validation), the last 8 are tested.

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`.
        loading, patch_size, foreground, augment, patches: SegmentationData's.
        shrink: how many pixels along each axis become one, which makes everything quicker and the answers coarser.
        name: the data set's name in results.
    """

    source = CHASE_DB1

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=4),
        patch_size: Size | Sequence[Size] | None = None,
        foreground: Share = 0.33,
        augment: bool = True,
        patches: Size = 8,
        shrink: Size = 1,
        name: str = "chase_db1",
    ):
        super().__init__(name, loading, patch_size, foreground, augment, patches)
        self.root, self.shrink = data_root(root), shrink

    @property
    def folder(self) -> Path:
        """Where the images are."""
        folder = self.root / self.source.folder
        if not folder.is_dir():
            raise not_there("CHASE_DB1", self.root)
        return folder

    def make_plan(self) -> Plan:
        side = min(256, SIDE // self.shrink // 8 * 8)
        return Plan(2, self.patch_of(2, (side, side)), ("background", "vessel"), (0, 255), channels=3)

    def load(self, plan: Plan) -> dict[str, list[Case]]:
        names = {
            split: [f"Image_{child:02}{eye}" for child in children for eye in "LR"] for split, children in PARTS.items()
        }
        files = {
            split: [Files(each, (self.folder / f"{each}.jpg",), self.folder / f"{each}_1stHO.png") for each in of_split]
            for split, of_split in names.items()
        }
        found = check_pairs(files, {0, 255})
        return {split: [self._case(case, plan) for case in cases] for split, cases in found.items()}

    def _case(self, case: Checked, plan: Plan) -> Case:
        image, labels = case.files.read()
        small, vessels = shrunk(image.values, prepared_labels(labels, plan, (), None), self.shrink)
        return Case(case.name, plan.normalised(small), vessels)
