"""The hippocampus volumes of the Medical Segmentation Decathlon."""

from __future__ import annotations

from pathlib import Path

from ..files import data_root, not_there
from .folder import NiftiFolder
from .sources import HIPPOCAMPUS


class Hippocampus(NiftiFolder):
    """MR volumes of about 35x50x36 voxels of 1 mm, front and back of the hippocampus labelled; read from the data root.

    Arguments are NiftiFolder's.
    """

    source = HIPPOCAMPUS

    @property
    def folder(self) -> Path:
        """See `NiftiFolder.folder`."""
        folder = data_root(self.root) / self.source.folder
        if not folder.is_dir():
            raise not_there("the hippocampus data set", data_root(self.root))
        return folder

    def _declared(self) -> dict[str, int]:
        return {"background": 0, "anterior": 1, "posterior": 2}
