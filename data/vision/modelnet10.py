"""ModelNet10: 4,899 clouds of points on the surfaces of furniture, 256 points each."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from ...core.errors import UserError
from ...core.ranges import Fraction, Seed, Size, checked
from ..files import check_content, data_root, find, not_there, read
from ..loading import Loading
from .cloud_files import normalised
from .clouds import CloudData, Clouds
from .sources import MODELNET10

COUNTS = {"train": 3991, "test": 908}


class ModelNet10(CloudData):
    """Furniture and bath tubs of ten kinds, upright and turned the same way, by the official division; read from the data root.

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`. The files may lie in it directly, or in
            point_clouds/modelnet10_256pts or modelnet10_256pts.
        val_fraction: share of the training clouds that is used for validation, in each class.
        loading, points, augment, split_seed: see `CloudData`.
        name: the data set's name in results.
    """

    source = MODELNET10
    own_points = 256
    classes = ("bathtub", "bed", "chair", "desk", "dresser", "monitor", "night_stand", "sofa", "table", "toilet")

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=32),
        points: Size | None = None,
        augment: bool = True,
        val_fraction: Fraction = 0.1,
        split_seed: Seed = 0,
        name: str = "modelnet10",
    ):
        super().__init__(name, loading, points, augment, split_seed)
        self.root, self.val_fraction = data_root(root), val_fraction

    def load(self) -> dict[str, Clouds]:
        """Read the files and check their sha256; see `Labelled.load`."""
        train, val = self._divided(self._part("train"), self.val_fraction)
        return {"train": train, "val": val, "test": self._part("test")}

    def _part(self, split: str) -> Clouds:
        count = COUNTS[split]
        cells = self._read(f"{split}_points_u16.npy", (count, 256, 3)).astype(np.float64)
        boxes = self._read(f"{split}_offset_scale.npy", (count, 4)).astype(np.float64)[:, None]
        labels = self._read(f"{split}_labels.npy", (count,)).astype(np.int64)
        points = normalised(cells * boxes[..., 3:] + boxes[..., :3]).astype(np.float32)
        return Clouds(torch.from_numpy(points), torch.from_numpy(labels))

    def _read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        folders = (self.source.folder, Path(self.source.folder).name, "")
        path = find([self.root / folder for folder in folders], name)
        if path is None:
            raise not_there(f"ModelNet10's {name}", self.root)
        content = read(path)
        check_content(path, content, self.source.content_sha256(name))
        values = np.load(io.BytesIO(content), allow_pickle=False)
        if values.shape != shape:
            raise UserError(f"{path} holds another number of values", given=values.shape, allowed=shape)
        return values
