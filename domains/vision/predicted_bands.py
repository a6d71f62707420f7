"""Coarse images of several bands sharpened by panchromatic ones, from files, written as arrays and drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.pictures import save_figure
from ..trained import Answer, Trained
from .image_grid import shorten

PAIR = ("pan", "ms")
SHOWN = 20  # images in the list that is printed


def write_sharpened(run: Trained, where: str, pictures: int, folder: Path, coarse: str | None = None) -> Answer:
    """Writes NAME.npy, (bands, height, width) in the numbers of the coarse image, for each pair, and NAME.png for some.

    Args:
        run: of the task Sharpening.
        where: a panchromatic image, or a folder that holds pan/* and ms/* of the same names.
        pictures: images drawn.
        folder: of what is written; made where it is not there.
        coarse: the image of several bands; None: `where` is a folder.

    Raises:
        UserError: there is no pair, or a file that is wrong.
    """
    pairs = _pairs(run, where, coarse)
    ready = [_read(run, *pair) for pair in pairs]
    folder.mkdir(parents=True, exist_ok=True)
    lines, written, drawn = [], [], []
    for (pan_path, _), (pan, ms, white, dtype) in zip(pairs, ready, strict=True):
        with torch.inference_mode():
            said = run.model(ms.to(run.device), pan.to(run.device)).float().cpu().clamp(0, 1)[0]
        values = white * said.numpy()
        written.append(folder / f"{pan_path.stem}.npy")
        np.save(written[-1], (np.rint(values) if dtype.kind == "u" else values).astype(dtype))
        lines.append(f"  {shorten(pan_path.name, 40):<24}  {'×'.join(map(str, said.shape))}, {dtype}")
        if len(drawn) < pictures:
            drawn.append(written[-1].with_suffix(".png"))
            save_figure(run.task.draw_answer(ms[0], pan[0], said, pan_path.name), drawn[-1])
    more = [f"  … and {len(lines) - SHOWN:,} more images"] if len(lines) > SHOWN else []
    return Answer(
        [*lines[:SHOWN], *more, f"  {len(written)} images of {said.shape[0]} bands in {folder}"],
        [*written[:3], *drawn[:1]],
    )


def _pairs(run: Trained, where: str, coarse: str | None) -> list[tuple[Path, Path]]:
    path = Path(where).expanduser()
    if coarse is not None:
        return [(path, Path(coarse).expanduser())]
    folders = [path / name for name in PAIR]
    if not all(folder.is_dir() for folder in folders):
        raise UserError(
            "which two images?", given=f"input={where}", allowed="a panchromatic image and ms=, or a folder of pan/* and ms/*",
            do=f"input={where} ms=COARSE",
        )  # fmt: skip
    pan, ms = map(run.data.files().named, folders)
    if not pan or pan.keys() != ms.keys():
        alone = sorted(pan.keys() ^ ms.keys())
        raise UserError(
            f"{path} holds no pairs" if not pan else f"{alone[0]} has no other half", given=f"input={where}",
            allowed="as many images in pan/ as in ms/, of the same names",
        )  # fmt: skip
    return [(pan[name], ms[name]) for name in pan]


def _read(run: Trained, pan: Path, ms: Path) -> tuple[Tensor, Tensor, float, np.dtype]:
    """Both images with a batch axis, where white is 1, white of the coarse one, and the type of its numbers."""
    found, files = [], run.data.files()
    for path, bands in ((pan, 1), (ms, run.describe["channels"])):
        image, white, dtype = files.read(path)
        if len(image) != bands:
            raise UserError(f"{path} has other bands than the model takes", given=f"{len(image)}", allowed=f"{bands}")
        found.append((torch.from_numpy(image)[None], white, dtype))
    (pan_image, *_), (ms_image, white, dtype) = found
    ratio = run.describe["ratio"]
    if tuple(pan_image.shape[2:]) != tuple(ratio * side for side in ms_image.shape[2:]):
        raise UserError(
            f"{pan.name} and {ms.name} do not cover the same place",
            given=f"{tuple(pan_image.shape[2:])} and {tuple(ms_image.shape[2:])} pixels",
            allowed=f"{ratio} times as many rows and columns in the panchromatic image",
        )  # fmt: skip
    return pan_image, ms_image, white, dtype
