"""The hippocampus volumes of the Medical Segmentation Decathlon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...core.ranges import Count, Fraction, Seed, Share, Size, checked
from ..files import data_root, not_there
from ..loading import Loading
from .folder import Declared, NiftiFolder
from .sources import HIPPOCAMPUS


class Hippocampus(NiftiFolder):
    """MR volumes of about 35x50x36 voxels of 1 mm, front and back of the hippocampus labelled; read from the data root.

    Arguments are NiftiFolder's.
    """

    source = HIPPOCAMPUS

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=2),
        patch_size: Size | Sequence[Size] | None = None,
        foreground: Share = 0.33,
        augment: bool = True,
        patches: Size = 1,
        fold: Count = 0,
        folds: Size = 5,
        val_fraction: Fraction = 0.1,
        split_seed: Seed = 0,
        name: str = "hippocampus",
    ):
        super().__init__(
            root,
            loading,
            patch_size,
            foreground,
            augment,
            patches,
            fold,
            folds,
            val_fraction,
            split_seed=split_seed,
            name=name,
        )

    @property
    def folder(self) -> Path:
        """See `NiftiFolder.folder`."""
        folder = data_root(self.root) / self.source.folder
        if not folder.is_dir():
            raise not_there("the hippocampus data set", data_root(self.root))
        return folder

    def _declared(self) -> Declared:
        return Declared({"background": 0, "anterior": 1, "posterior": 2}, {})
