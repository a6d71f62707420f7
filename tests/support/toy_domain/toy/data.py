"""Gaussian points, labelled by the largest of their first coordinates."""

from __future__ import annotations

import numpy as np
import torch

from polymamba.data.loading import Loading
from polymamba.data.module import DataModule, Description


class Points(DataModule):
    """Batches are inputs (batch, 4), as they lie around the centre of the training points, and labels (batch,)."""

    def __init__(self, loading: Loading, samples: int = 48, classes: int = 3):
        super().__init__("toy_points", loading)
        self.count, self.classes, self.centre = samples, classes, None

    def setup(self, stage=None):
        if self.splits is None:
            numbers = torch.Generator().manual_seed(self.loading.seed)
            self.splits = {split: torch.randn(self.count, 4, generator=numbers) for split in ("train", "val", "test")}
        if self.centre is None:
            self.centre = self.splits["train"].mean(0)

    def samples(self, split):
        return self.count if self.loading.limit is None else min(self.count, self.loading.limit)

    def load_batch(self, split, epoch, positions):
        inputs = self.splits[split][torch.from_numpy(np.asarray(positions))]
        return inputs - self.centre, inputs[:, : self.classes].argmax(1)

    def describe(self) -> Description:
        sizes = {"features": 4, "num_classes": self.classes}
        return self.described(values=4, shape=f"4 numbers, {self.classes} classes", for_model=sizes)

    def kept(self):
        self.setup()
        return {"centre": self.centre}

    def keep(self, folder):
        self.setup()
        folder.mkdir(parents=True, exist_ok=True)
        np.savetxt(folder / "centre.txt", self.centre.numpy())

    def restore(self, folder):
        self.centre = torch.from_numpy(np.loadtxt(folder / "centre.txt", dtype=np.float32))
