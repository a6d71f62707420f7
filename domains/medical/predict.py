"""The classes of every voxel: `predict.py ckpt=<run> input=scan.nii.gz`."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.errors import UserError
from ...core.pictures import save_figure
from ...core.ranges import Count, Rate, Size, checked
from ..trained import Answer, Trained
from .inference import segment
from .overlays import draw_cases
from .predict_classes import name_classes

TABLE = "volumes.csv"


@checked
def predict(
    run: Trained,
    input: str | None = None,
    mirror: bool = False,
    overlap: Rate = 0.5,
    windows: Size = 4,
    largest: bool = False,
    pictures: Count = 16,
    progress: bool = False,
    output: str | None = None,
) -> Answer:
    """Writes a label file for each image, an overlay, and a table of the volume of each class.

    Args:
        run: a trained segmentation model.
        input: a NIfTI, PNG or TIFF file, or a folder of them.
        mirror: average over mirror images: slower by a factor of 4 (images) or 8 (volumes).
        overlap: share of a window that the next one covers too. windows: at a time.
        largest: of each class keep the largest connected part alone.
        pictures: overlays drawn. progress: show a bar of windows.
        output: folder of what is written; None: `segmented` in the run's.

    Raises:
        UserError: no image is found, or none of them can be read.
    """
    if input is None:
        raise UserError("which image?", allowed="a NIfTI, PNG or TIFF file, or a folder", do="input=scan.nii.gz")
    if run.describe.get("task") == "classification":
        return name_classes(run, input, output, pictures)
    files, folder = run.data.volumes(), run.folder / "segmented" if output is None else Path(output).expanduser()
    rows, drawn, written, problems = [], [], [], []
    for path in files.find(input):
        try:
            raw, image = files.open(path)
        except UserError as error:
            problems.append(f"{error.problem} ({error.given or path.name})")
            continue
        classes = classes_of(run, image, raw.sizes, mirror, overlap, windows, progress)
        if largest:
            classes = largest_parts(classes, len(run.describe["classes"]))
        target = files.target(raw, folder)
        if target.exists() and target.samefile(path):
            raise UserError("the labels would replace the image", given=f"output={output}", do="name another folder")
        written.append(files.write(raw, classes, target))
        rows += _rows(path.name, classes, run.describe["classes"], raw.voxel)
        if len(drawn) < pictures:
            name = f"{path.name.removesuffix('.gz').removesuffix('.nii')}_overlay.png"
            case = {"image": np.asarray(raw.values), "said": classes, "title": path.name}
            save_figure(draw_cases([case], run.describe["classes"][1:], "image, answer"), folder / name)
            drawn.append(folder / name)
    if not written:
        raise UserError(f"none of the images can be read: {problems[0]}", given=f"input={input}")
    _write_table(folder / TABLE, rows)
    lines = [f"  {name:<30}  {what:<20}  {voxels:>10,} voxels  {ml:10.3f} ml" for name, what, voxels, ml in rows[:20]]
    files_said = [*written[:5], *drawn[:1], folder / TABLE]
    return Answer(lines, files_said, problems)


def classes_of(
    run: Trained, image: np.ndarray, sizes: Sequence[int], mirror: bool = False, overlap: float = 0.5, windows: int = 4,
    progress: bool = False,
) -> np.ndarray:  # fmt: skip
    """The likeliest class of each voxel, uint8 (*sizes), from an image that is prepared, (channels, *other sizes)."""
    given = torch.from_numpy(image)[None].to(run.device)
    logits = segment(run.model, given, run.describe["patch_size"], overlap, windows, mirror, progress)[0]
    return likeliest(logits.float().cpu(), sizes).numpy()


def likeliest(logits: Tensor, sizes: Sequence[int]) -> Tensor:
    """The likeliest class of each voxel of another grid, uint8 (*sizes), from logits (classes, *own sizes).

    A class is resampled at a time, so that memory holds two volumes of the answer's sizes and not one a class.
    """
    if tuple(logits.shape[1:]) == tuple(sizes):
        return logits.argmax(0).to(torch.uint8)
    mode = {2: "bilinear", 3: "trilinear"}[len(sizes)]
    best, found = torch.full(tuple(sizes), -torch.inf), torch.zeros(tuple(sizes), dtype=torch.uint8)
    for number, one in enumerate(logits):
        here = F.interpolate(one[None, None], size=tuple(sizes), mode=mode)[0, 0]
        found[here > best] = number
        torch.maximum(best, here, out=best)
    return found


def largest_parts(classes: np.ndarray, count: int) -> np.ndarray:
    """The same, with all but the largest connected part of each class made background."""
    from scipy.ndimage import label

    kept = np.zeros_like(classes)
    for number in range(1, count):
        parts, found = label(classes == number)
        if found:
            kept[parts == np.bincount(parts.ravel())[1:].argmax() + 1] = number
    return kept


def _rows(name: str, classes: np.ndarray, names: Sequence[Any], voxel: float) -> list[tuple[str, str, int, float]]:
    counts = np.bincount(classes.ravel(), minlength=len(names))
    return [(name, str(what), int(count), count * voxel) for what, count in zip(names[1:], counts[1:], strict=True)]


def _write_table(path: Path, rows: Sequence[tuple]) -> None:
    part = path.with_name(f".{path.name}.tmp")
    with open(part, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "class", "voxels", "ml"])
        table.writerows((name, what, voxels, f"{ml:.6f}") for name, what, voxels, ml in rows)
    os.replace(part, path)
