"""Pan-sharpening: L1, and beside each measure of the answer that of bicubic interpolation; the worst images drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image import (
    error_relative_global_dimensionless_synthesis,
    peak_signal_noise_ratio,
    spectral_angle_mapper,
    structural_similarity_index_measure,
)

from ...core.errors import UserError
from ...core.ranges import Count, Weight, checked
from ..task import Task
from .bands import enlarged
from .image_grid import draw_grid
from .label_pictures import squared

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of the darkest and brightest values of an image, the share that is drawn as black and as white.
CLIPPED = 0.01
COLUMNS = ("coarse", "panchromatic", "answer", "truth", "error")


class Sharpening(Task):
    """The bands of a coarse image at the size of a panchromatic one.

    Batches are coarse, panchromatic and true images: (batch, bands, height, width), (batch, 1, ratio * height, ratio * width) and
    (batch, bands, ratio * height, ratio * width), where white is 1; the model is called with the first two. PSNR in dB, SSIM, SAM
    in degrees and ERGAS are means over images; `_bicubic` are those of the coarse image enlarged.

    Args:
        model: the network.
        describe: of the data: "ratio", and for the pictures "shown", the bands drawn red, green and blue.
        worst: test images drawn, the worst first; 0: no picture.
        auxiliary: weight of what the model itself wants added to the loss.
    """

    monitor: ClassVar[tuple[str, str]] = ("val/psnr", "max")

    @checked(group="task")
    def __init__(self, model: nn.Module, describe: Mapping[str, Any], worst: Count = 6, auxiliary: Weight = 1.0):
        super().__init__(model, describe, auxiliary)
        if "ratio" not in self.describe:
            given = f"data={self.describe.get('name')}"
            raise UserError("bands are sharpened by a second image", given=given, do="data=drawn_bands")
        self.worst = worst
        self._drawn: list[tuple[float, list[Tensor]]] = []
        self._seen = 0

    def inputs(self, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return batch[0], batch[1]

    def step(self, batch: tuple[Tensor, Tensor, Tensor], stage: str) -> tuple[Tensor, dict[str, Tensor]]:
        ms, pan, truth = batch
        said = self.model(ms, pan).float()
        loss = F.l1_loss(said, truth)
        said = said.detach().clamp(0, 1)
        if stage == "train":
            return loss, {"psnr": peak_signal_noise_ratio(said, truth, data_range=1.0)}
        found, plain = (self.measured(each, truth) for each in (said, enlarged(ms, pan).clamp(0, 1)))
        if stage == "test":
            self._keep(ms, pan, said, truth)
        return loss, {**found, **{f"{name}_bicubic": value for name, value in plain.items()}}

    def measured(self, said: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Of images (batch, bands, height, width) within 0 and 1, each a mean over images."""
        truth = truth.to(said.dtype)
        psnr = [peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in zip(said, truth, strict=True)]
        angles = spectral_angle_mapper(said, truth, reduction="none")  # not a number where all bands are black
        return {
            "psnr": torch.stack(psnr).mean(),
            "ssim": structural_similarity_index_measure(said, truth, data_range=1.0),
            "sam": torch.rad2deg(angles.nanmean()),
            "ergas": error_relative_global_dimensionless_synthesis(said, truth, ratio=self.describe["ratio"]),
        }

    def on_test_start(self) -> None:
        self._drawn, self._seen = [], 0

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        if stage == "train":
            ms, pan, truth = (each[:4].cpu() for each in batch)
            rows = [[ms[n], pan[n], truth[n]] for n in range(len(ms))]
            return {"first_batch": self._draw(rows, ("coarse", "panchromatic", "truth"), "First training batch")}
        if stage == "val" or not self._drawn:
            return {}
        rows = [each for _, each in self._drawn]
        peak = max(float((said - truth).abs().mean(0).max()) for _, _, said, truth in rows) or 1.0
        rows = [[*each, ((each[2] - each[3]).abs().mean(0, keepdim=True) / peak)] for each in rows]
        first = [f"PSNR {psnr:.1f} dB" for psnr, _ in self._drawn]
        heading = f"Worst of {self._seen} test images; error: mean over bands, white {peak:.2f}"
        return {"worst_predictions": self._draw(rows, COLUMNS, heading, first)}

    def draw_answer(self, ms: Tensor, pan: Tensor, said: Tensor, name: str) -> Figure:
        """A pair, (bands, height, width) and (1, height, width), and its answer side by side."""
        return self._draw([[ms, pan, said]], COLUMNS[:3], name)

    def _keep(self, ms: Tensor, pan: Tensor, said: Tensor, truth: Tensor) -> None:
        """Test images, among the `worst` so far or forgotten."""
        self._seen += len(ms)
        for each in zip(ms, pan, said, truth, strict=True):
            psnr = float(peak_signal_noise_ratio(each[2], each[3], data_range=1.0))
            self._drawn.append((psnr, [part.cpu() for part in each]))
        self._drawn = sorted(self._drawn, key=lambda each: each[0])[: self.worst]

    def _draw(self, rows: list[list[Tensor]], columns: tuple[str, ...], heading: str, first: list[str] | None = None):
        """Rows of images (channels, height, width), those of several bands alike bright: by the last of them in the row."""
        pictures, titles = [], []
        for number, row in enumerate(rows):
            of_bands = next(each for each in reversed(row) if each.shape[0] > 1)
            pictures += [squared(self._visible(each, of_bands)) for each in row]
            titles += [f"{first[number]}\n{columns[0]}" if first else columns[0], *columns[1:]]
        return draw_grid(torch.stack(pictures), titles, heading, columns=len(columns))

    def _visible(self, image: Tensor, like: Tensor) -> Tensor:
        """(3, height, width) within 0 and 1; of several bands the three shown, stretched as `like`'s are."""
        image = image.float()
        if image.shape[0] == 1:
            return image.expand(3, -1, -1).clamp(0, 1)
        shown = self.describe.get("shown") or [0] * 3
        low, high = torch.quantile(like[shown].float().flatten(), torch.tensor([CLIPPED, 1 - CLIPPED]))
        return ((image[shown] - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
