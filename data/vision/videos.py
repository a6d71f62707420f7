"""Videos: what all of their data sets share, and shapes that move, made here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ...core.errors import UserError
from ...core.ranges import Seed, Share, Side, Size, checked
from ..loading import Loading
from ..module import Description
from ..randomness import hashed, uniforms
from .augmentation import Finish
from .drawn_shapes import ground, silhouette
from .labelled import Labelled
from .sources import MOVING_SHAPES
from .video_files import Clip, VideoFiles

MICRO = 64  # up to this many pixels a side, the data set asks for the micro model
WHICH = 31  # stream of random numbers


@dataclass(frozen=True)
class Clips:
    """clips: of the samples. labels: int64 (samples,)."""

    clips: Sequence[Clip]
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray) -> Clips:
        """The samples at these positions, (count,)."""
        return Clips([self.clips[int(each)] for each in positions], self.labels[torch.from_numpy(positions)])


class VideoData(Labelled):
    """Base of the data modules of videos: a subclass says where they come from, with `load()`.

    Batches are (videos, labels): float32 (batch, channels, frames, height, width), and int64 (batch,).

    Args:
        name, loading, split_seed: see `Labelled`.
        frames: of a clip that the model sees, evenly spaced over a video; for training each from anywhere in its part of it.
        image_size: height and width the model sees, or one number for both: what is in the middle, in its proportions.
        flip: mirror every second training clip.
    """

    what = "videos"
    classes: Sequence[str]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    @checked(group="data")
    def __init__(
        self,
        name: str,
        loading: Loading,
        frames: Size,
        image_size: Side | Sequence[Side],
        flip: bool,
        split_seed: Seed = 0,
    ):
        super().__init__(name, loading, split_seed)
        sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        if len(sides) != 2:
            raise UserError(
                "data.image_size does not fit", given=image_size, allowed="a number of pixels, or [height, width]"
            )
        self.frames, self.size, self.flip = frames, sides, flip

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Videos and labels; see the class."""
        part, train = self.taken(split, epoch, positions), split == "train"
        draws = (
            uniforms(self.frames + 1, self.loading.seed, WHICH, epoch, positions) if train else [None] * len(positions)
        )
        videos = []
        for clip, each in zip(part.clips, draws, strict=True):
            video = shown(clip, self.frames, self.size, None if each is None else each[:-1])
            videos.append(video.flip(-1) if self.flip and each is not None and each[-1] < 0.5 else video)
        return self.finish(videos), part.labels

    def taken(self, split: str, epoch: int, positions: np.ndarray) -> Clips:
        """The samples at these positions."""
        return self.splits[split].take(positions)

    def finish(self, videos: Sequence[torch.Tensor]) -> torch.Tensor:
        """uint8 (frames, 3, height, width) each to normalised float32 (batch, 3, frames, height, width)."""
        stacked = torch.stack(list(videos))
        frames = Finish(self.mean, self.std)(stacked.flatten(0, 1), 0, np.arange(stacked.shape[:2].numel()))
        return frames.unflatten(0, stacked.shape[:2]).transpose(1, 2).contiguous()

    def describe(self) -> Description:
        """See `DataModule.describe`."""
        self.read()
        height, width = self.size
        return self.described(
            shape=f"3×{self.frames}×{height}×{width}, {len(self.classes)} classes",
            for_model={
                "channels": 3,
                "frames": self.frames,
                "image_size": list(self.size),
                "classes": list(self.classes),
                "num_classes": len(self.classes),
                "mean": list(self.mean),
                "std": list(self.std),
                "model_size": "micro" if max(self.size) <= MICRO else "tiny",
            },
            values=3 * self.frames * height * width,
            resized_by="data.image_size",
        )

    def photos(self) -> VideoFiles:
        """What opens and prepares videos from anywhere as the test videos are prepared; reads nothing."""
        return VideoFiles(lambda clips: self.finish([shown(each, self.frames, self.size) for each in clips]))


def shown(clip: Clip, frames: int, size: tuple[int, int], draws: np.ndarray | None = None) -> torch.Tensor:
    """So many frames of a clip at the model's size, uint8 (frames, 3, height, width).

    Args:
        draws: (frames,) from 0 to below 1, where in its part of the video each frame is taken; None: in the middle.
    """
    inside = np.full(frames, 0.5) if draws is None else draws
    index = np.minimum((np.arange(frames) + inside) * clip.length / frames, clip.length - 1).astype(int)
    pixels = torch.from_numpy(clip.read(index.tolist()))
    (height, width), (high, wide) = size, pixels.shape[-2:]
    if (high, wide) != size:
        share = min(high / height, wide / width)
        rows, columns = max(1, round(share * height)), max(1, round(share * width))
        top, left = (high - rows) // 2, (wide - columns) // 2
        pixels = pixels[..., top : top + rows, left : left + columns]
        pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True)
    return pixels


class MovingShapes(VideoData):
    """Clips of a shape of any form and colour that moves in one of eight ways, on a ground that stands still; nothing to download.

    A single frame does not say the class, nor does a clip whose frames come in any order: left and right, up and down, the two
    turns, growing and shrinking differ in the direction of time alone.

    Args:
        loading, frames, image_size: see `VideoData`; clips are made with so many frames and pixels.
        noise: standard deviation of what is added to each pixel of each frame, where white is 1.
        train, val, test: clips of each part; those for training are made anew in each epoch, lest they be learned by heart.
        data_seed: seed of the clips; apart from the run's seed, so that runs can be compared.
        name: the data set's name in results.
    """

    source = MOVING_SHAPES
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    classes = ("right", "left", "down", "up", "clockwise", "anticlockwise", "growing", "shrinking")

    @checked(group="data")
    def __init__(
        self,
        loading: Loading = Loading(batch_size=16),
        frames: Size = 8,
        image_size: Side | Sequence[Side] = 32,
        noise: Share = 0.05,
        train: Size = 640,
        val: Size = 160,
        test: Size = 320,
        data_seed: Seed = 0,
        split_seed: Seed = 0,
        name: str = "moving_shapes",
    ):
        super().__init__(name, loading, frames, image_size, False, split_seed)
        self.noise, self.data_seed = noise, data_seed
        self.counts = {"train": train, "val": val, "test": test}

    def load(self) -> dict[str, Clips]:
        """Make the clips; see `Labelled.load`."""
        return {
            split: Clips(
                [self._clip(number % len(self.classes), part, number) for number in range(count)],
                torch.arange(count) % len(self.classes),
            )
            for part, (split, count) in enumerate(self.counts.items())
        }

    def taken(self, split: str, epoch: int, positions: np.ndarray) -> Clips:
        part = super().taken(split, epoch, positions)
        if split != "train" or not epoch:
            return part
        clips = [
            self._clip(label, 0, int(number), epoch)
            for label, number in zip(part.labels.tolist(), positions, strict=True)
        ]
        return Clips(clips, part.labels)

    def _clip(self, label: int, *key: int) -> Clip:
        """Of a class; `key` tells it from all other clips: its part, its number, and perhaps an epoch."""
        random = np.random.default_rng(hashed(self.data_seed, *key).item())
        kind, backwards = divmod(label, 2)
        (height, width), short = self.size, min(self.size)
        form = int(random.choice([2, 3, 5])) if kind == 2 else int(random.integers(1, 6))
        still, colour = ground(random, self.size), random.uniform(0, 1, (3, 1))
        row, column = random.uniform(0.3, 0.7) * height, random.uniform(0.3, 0.7) * width
        radius, angle = random.uniform(0.18, 0.3) * short, random.uniform(0, 2 * np.pi)
        far = random.uniform(0.3, 0.6)
        frames = np.empty((self.frames, 3, *self.size), np.uint8)
        for frame, time in enumerate(np.linspace(-0.5, 0.5, self.frames)):
            time = -time if backwards else time
            moved = [row, column, radius, angle]
            if kind == 0:
                moved[1] += far * width * time
            elif kind == 1:
                moved[0] += far * height * time
            elif kind == 2:
                # less than a quarter of a turn in all: a square that turns farther looks as one that turns the other way
                moved[3] -= far * time
            else:
                moved[2] *= np.exp(1.5 * far * time)
            image = still.copy()
            image[:, silhouette(form, self.size, *moved)] = colour
            image += self.noise * random.standard_normal(image.shape)
            frames[frame] = (255 * image).clip(0, 255).astype(np.uint8)
        return Clip("/".join(map(str, key)), self.frames, frames.__getitem__)
