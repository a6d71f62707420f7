"""Videos in files: folders of frames, and files that PyAV (the extra `video`) decodes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ...core.errors import UserError
from ..folders import files_below, hidden
from .decoding import open_image
from .photos import is_image

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v", ".gif")


@dataclass(frozen=True)
class Clip:
    """A video.

    Args:
        name: what to call it.
        length: frames.
        read: given some of their numbers, uint8 (frames, 3, height, width).
    """

    name: str
    length: int
    read: Callable[[list[int]], np.ndarray]


class VideoFiles:
    """Finds, opens and prepares videos.

    Args:
        make: what the model sees of clips, float32 (batch, 3, frames, height, width).
    """

    def __init__(self, make: Callable[[Sequence[Clip]], torch.Tensor]):
        self.make = make

    def find(self, where: str) -> list[Path]:
        """A video file; a folder of frames; all videos and folders of frames below a folder."""
        path = Path(where).expanduser()
        found = (
            [path]
            if path.is_file() or (path.is_dir() and holds_frames(path))
            else clips_below(path)
            if path.is_dir()
            else []
        )
        if not found:
            raise UserError(
                "there are no videos", given=f"input={where}",
                allowed=f"files that end in {', '.join(SUFFIXES)}, or a folder of frames",
            )  # fmt: skip
        return found

    def open(self, path: str | Path) -> Clip:
        """See `open_clip`."""
        return open_clip(Path(path))

    def prepare(self, clips: Sequence[Clip]) -> torch.Tensor:
        """Clips of any length and size to what the model sees."""
        return self.make(clips)


def is_video(path: Path) -> bool:
    """Whether a file's name is that of a video."""
    return path.suffix.lower() in SUFFIXES and not hidden(path.name)


def holds_frames(folder: Path) -> bool:
    """Whether a folder holds images itself."""
    return any(path.is_file() and is_image(path) and not is_video(path) for path in folder.iterdir())


def clips_below(folder: Path) -> list[Path]:
    """The videos below a folder, sorted: files, and folders that hold frames."""
    files = files_below(folder)
    return sorted({path if is_video(path) else path.parent for path in files if is_video(path) or is_image(path)})


def open_clip(path: Path) -> Clip:
    """A video file or a folder of frames, which are in the order of their names.

    Raises:
        UserError: it holds no frames, or it cannot be read, or it is a file and PyAV is not installed.
    """
    if path.is_dir():
        frames = sorted(each for each in path.iterdir() if each.is_file() and is_image(each))
        if not frames:
            raise UserError(f"{path} holds no frames", allowed="images, named in their order")
        return Clip(path.name, len(frames), partial(_read_frames, frames))
    count = _decoded(path, None)
    if not count:
        raise _broken(path, "no frames")
    return Clip(path.name, count, partial(_decoded, path))


def _read_frames(paths: Sequence[Path], index: list[int]) -> np.ndarray:
    frames = [np.array(open_image(paths[each])).transpose(2, 0, 1) for each in index]
    if len({frame.shape for frame in frames}) > 1:
        raise UserError(
            f"the frames in {paths[0].parent} differ in size", given=sorted({frame.shape[1:] for frame in frames})
        )
    return np.stack(frames)


def _decoded(path: Path, index: list[int] | None) -> np.ndarray | int:
    """Some frames of a file, by their numbers; without numbers, how many there are."""
    if importlib.util.find_spec("av") is None:
        raise UserError(
            "PyAV, which decodes videos, is not installed",
            given=str(path),
            do="pip install 'polymamba[video]', or give folders of frames",
        )
    import av

    wanted, found, count = set(index or ()), {}, 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise _broken(path, "it holds no pictures")
            if index is None and container.streams.video[0].frames:
                return container.streams.video[0].frames
            # Frame by frame: seeking by time is not exact in every container.
            for number, frame in enumerate(container.decode(video=0)):
                count += 1
                if number in wanted:
                    found[number] = frame.to_ndarray(format="rgb24").transpose(2, 0, 1)
                    if len(found) == len(wanted):
                        break
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _broken(path, f"{type(error).__name__}: {error}") from error
    if index is None:
        return count
    if not found:
        raise _broken(path, "no frames")
    # A header may promise more frames than there are: the last one stands for those.
    last = max(found)
    return np.stack([found.get(each, found[last]) for each in index])


def _broken(path: Path, why: str) -> UserError:
    return UserError(f"Broken video: {path}", given=why, do="replace or delete this file")
