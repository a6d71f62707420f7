"""The classes of whole images and volumes: `predict.py ckpt=<run of task=classification> input=FOLDER`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.pictures import save_figure
from ..classification import likeliest, write_table
from ..trained import Answer, Trained
from .classification import draw_slices

TABLE, PICTURE = "predictions.csv", "predictions.png"
TOP = 5  # classes named of each image
SHOWN = 20  # images in the table that is printed


def name_classes(
    runs: Sequence[Trained], names: Sequence[str], input: str, output: str | None, pictures: int
) -> Answer:
    """Writes a table of the likeliest classes of each image and their confidences, and a picture of the first images.

    Args:
        runs: trained classifiers, whose confidences are averaged. names: of their classes. input: a file or a folder.
        output: folder of what is written; None: the first run's.
        pictures: images drawn; 0: none.

    Raises:
        UserError: no image is found, or none of them can be read.
    """
    run = runs[0]
    files, folder = run.data.volumes(), run.folder if output is None else Path(output).expanduser()
    found, drawn, problems = [], [], []
    for path in files.find(input):
        try:
            raw = files.open(path)
            images = [each.data.volumes().prepare(raw) for each in runs]
        except UserError as error:
            problems.append(f"{error.problem} ({error.given or path.name})")
            continue
        found.append((path, likeliest(_confidences(runs, images).log(), names, TOP)[0]))
        if len(drawn) < pictures:
            drawn.append(np.asarray(raw.values))
    if not found:
        raise UserError(f"none of the images can be read: {problems[0]}", given=f"input={input}")
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / TABLE, "file", found)
    written = [folder / TABLE]
    if drawn:
        titles = [f"{path.name[:20]}\n{one.names[0][:14]} {one.confidences[0]:.0%}" for path, one in found]
        save_figure(draw_slices(drawn, titles, "image, likeliest class"), folder / PICTURE)
        written.append(folder / PICTURE)
    lines = [f"  {path.name:<30}  {one.line}" for path, one in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"  … and {len(found) - SHOWN:,} more images in {TABLE}")
    return Answer(lines, written, problems)


@torch.no_grad()
def _confidences(runs: Sequence[Trained], images: Sequence[np.ndarray]) -> Tensor:
    """(1, classes), the mean over the runs, of an image that is prepared for each of them, (channels, *sizes)."""
    pairs = zip(runs, images, strict=True)
    found = [run.model(torch.from_numpy(image)[None].to(run.device)).float().softmax(1).cpu() for run, image in pairs]
    return torch.stack(found).mean(0)
