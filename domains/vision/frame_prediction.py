"""Predicting the next frames of a video: MSE, MAE, PSNR and SSIM beside those of two simple guesses; the worst are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.functional.image import structural_similarity_index_measure

from ...core.errors import UserError
from ...core.ranges import Count, Size, Weight, checked
from ..task import Task
from .film import draw_films, moments

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALLEST_ERROR = 1e-10  # mean square; a frame that is met exactly counts 100 dB
SSIM_SIDE = 11  # pixels of its window
BATCH_DRAWN = 6


class FramePrediction(Task):
    """The frames that come after some.

    Batches are videos (batch, channels, frames, height, width), normalised, and labels, which are not looked at. The model is given
    the first frames within 0 and 1, and how many further ones it is to predict from its own predictions; it returns the frame
    after each, and what it would go on from. The loss is over all of these (as VMRNN is trained), metrics are of the frames to
    come alone.

    Args:
        model: the network.
        describe: of the data: "frames", "image_size", "mean", "std".
        past: frames that are given; None: half of the video's.
        worst: test videos drawn, the worst first; 0: no picture.
        auxiliary: weight of what the model itself wants added to the loss.
    """

    monitor: ClassVar[tuple[str, str]] = ("val/mse", "min")

    @checked(group="task")
    def __init__(
        self,
        model: nn.Module,
        describe: Mapping[str, Any],
        past: Size | None = None,
        worst: Count = 6,
        auxiliary: Weight = 1.0,
    ):
        super().__init__(model, describe, auxiliary)
        frames = self.describe.get("frames")
        if not frames:
            raise UserError(
                "frames are predicted of videos", given=f"data={describe.get('name')}", do="data=moving_shapes"
            )
        if not getattr(model, "predicts_frames", False):
            raise UserError("this model predicts no frames", given=type(model).__name__, do="model=vmrnn")
        self.past = max(1, frames // 2) if past is None else past
        if self.past >= frames:
            allowed = f"1 to {frames - 1}" if frames > 1 else "videos of 2 frames or more"
            raise UserError(
                "no frames are left to predict", given=f"task.past={self.past}, frames={frames}", allowed=allowed
            )
        for name, usual in (("mean", 0.0), ("std", 1.0)):
            values = torch.tensor(self.describe.get(name) or [usual]).view(-1, 1, 1, 1)
            self.register_buffer(f"pixel_{name}", values, persistent=False)
        self.worst, self._drawn, self._seen = worst, [], 0
        measures = ["mse", "mae", "psnr", *(["ssim"] if min(self.describe["image_size"]) >= SSIM_SIDE else [])]
        names = [
            f"{which}{each}" for which in ("", "repeat_", *(["linear_"] if self.past > 1 else [])) for each in measures
        ]
        self.metrics = nn.ModuleDict(
            {stage: nn.ModuleDict({name: MeanMetric() for name in names}) for stage in ("val", "test")}
        )

    @classmethod
    def asks(cls, describe: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """That the model answers with frames; see Task."""
        return {"predicts_frames": True}

    def pixels(self, videos: Tensor) -> Tensor:
        """Normalised videos as they were before, within 0 and 1."""
        return (videos * self.pixel_std.to(videos.dtype) + self.pixel_mean.to(videos.dtype)).clamp(0, 1)

    def inputs(self, batch: Any) -> tuple[Tensor, int]:
        """The frames that are given, (batch, channels, past, height, width), and how many predictions are fed back."""
        videos = batch[0]
        return self.pixels(videos[:, :, : self.past]), videos.shape[2] - self.past - 1

    def answer(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The frame that the model says to come after each but the last, and the frames themselves, the first left out."""
        said, _ = self.model(*self.inputs(batch))
        return said.float(), self.pixels(batch[0])[:, :, 1:].float()

    def step(self, batch: Any, stage: str) -> tuple[Tensor, dict[str, Tensor | Metric]]:
        said, truth = self.answer(batch)
        loss = F.mse_loss(said, truth)
        said, truth, seen = said[:, :, self.past - 1 :], truth[:, :, self.past - 1 :], self.inputs(batch)[0].float()
        if stage == "train":
            return loss, {"mse": F.mse_loss(said.detach(), truth)}
        metrics, found = self.metrics[stage], {}
        for which, frames in {"": said, **guesses(seen, truth.shape[2])}.items():
            for name, value in scores(frames, truth).items():
                found[f"{which}{name}"] = value
                metrics[f"{which}{name}"].update(value)
        if stage == "test":
            for number in range(len(said)):
                errors = {which: float(found[f"{which}mse"][number].mean()) for which in ("", "repeat_")}
                self._keep(errors, *(each[number] for each in (seen, truth, said)))
        return loss, dict(metrics)

    def on_test_start(self) -> None:
        self._drawn, self._seen = [], 0

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        if stage == "train":
            videos = self.pixels(batch[0][:BATCH_DRAWN]).cpu()
            heading = f"First training batch: {len(videos)} of {len(batch[0])} videos, {self.past} frames given"
            films = [[torch.cat([_some(each[:, : self.past]), _some(each[:, self.past :])], 1)] for each in videos]
            return {"first_batch": draw_films(films, ["video"], [""] * len(films), heading)}
        if stage == "val" or not self._drawn:
            return {}
        titles = [f"MSE {each['']:.4f}, of repeating the last frame {each['repeat_']:.4f}" for each in self._drawn]
        heading = f"Worst of {self._seen} test videos, {self.past} frames given"
        return {"worst_predictions": self.draw([each["frames"] for each in self._drawn], titles, heading)}

    def draw(self, films: Sequence[Sequence[Tensor]], titles: Sequence[str], heading: str) -> Figure:
        """Draws videos: the frames given with those that came, beneath these the answer and the difference.

        Args:
            films: given, came, said, each (channels, frames, height, width) within 0 and 1.
            titles: one a video.
        """
        drawn = []
        for seen, truth, said in films:
            seen, truth, said = map(_some, (seen, truth, said))
            blank = torch.ones_like(seen)
            drawn.append([torch.cat(each, 1) for each in ((seen, truth), (blank, said), (blank, (said - truth).abs()))])
        return draw_films(drawn, ["truth", "answer", "difference"], titles, heading)

    def _keep(self, errors: dict[str, float], *frames: Tensor) -> None:
        """One test video, among the `worst` so far or forgotten."""
        self._seen += 1
        self._drawn.append({**errors, "frames": [each.cpu() for each in frames]})
        self._drawn = sorted(self._drawn, key=lambda each: -each[""])[: self.worst]


def _some(frames: Tensor) -> Tensor:
    """Those of (channels, frames, height, width) that are drawn."""
    return frames[:, moments(frames.shape[1])]


def guesses(seen: Tensor, count: int) -> dict[str, Tensor]:
    """What can be said of coming frames without a model.

    Args:
        seen: (batch, channels, past, height, width) within 0 and 1. count: of the frames to come.

    Returns:
        "repeat_": the last frame again and again; where two are seen, "linear_": each pixel goes on as it went between them. Each
        (batch, channels, count, height, width).
    """
    last = seen[:, :, -1:]
    found = {"repeat_": last.expand(-1, -1, count, -1, -1)}
    if seen.shape[2] > 1:
        times = torch.arange(1, count + 1, device=seen.device, dtype=seen.dtype).view(-1, 1, 1)
        found["linear_"] = (last + times * (last - seen[:, :, -2:-1])).clamp(0, 1)
    return found


def scores(said: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """How near frames come to others, each (batch, frames): per pixel "mse" and "mae"; "psnr" in dB; "ssim" (Wang et al. 2004),
    where frames have its window's 11 pixels a side.

    Args:
        said, truth: (batch, channels, frames, height, width) within 0 and 1.
    """
    error, axes = said - truth, (1, 3, 4)
    mse = error.square().mean(axes)
    found = {"mse": mse, "mae": error.abs().mean(axes), "psnr": -10 * mse.clamp_min(SMALLEST_ERROR).log10()}
    if min(said.shape[-2:]) >= SSIM_SIDE:
        flat = (each.movedim(2, 1).flatten(0, 1) for each in (said, truth))
        found["ssim"] = structural_similarity_index_measure(*flat, data_range=1.0, reduction="none").view(mse.shape)
    return found
