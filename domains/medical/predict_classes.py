"""The classes of whole images and volumes: `predict.py ckpt=<run of task=classification> input=FOLDER`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ...core.errors import UserError
from ...core.pictures import save_figure
from ..classification import likeliest, write_table
from ..trained import Answer, Trained
from .classification import draw_slices

TABLE, PICTURE = "predictions.csv", "predictions.png"
TOP = 5  # classes named of each image
SHOWN = 20  # images in the table that is printed


def name_classes(run: Trained, input: str, output: str | None, pictures: int) -> Answer:
    """Writes a table of the likeliest classes of each image and their confidences, and a picture of the first images.

    Args:
        run: a trained classifier. input: a file or a folder. output: folder of what is written; None: the run's.
        pictures: images drawn; 0: none.

    Raises:
        UserError: no image is found, or none of them can be read.
    """
    files, folder = run.data.volumes(), run.folder if output is None else Path(output).expanduser()
    found, drawn, problems = [], [], []
    for path in files.find(input):
        try:
            raw, image = files.open(path)
        except UserError as error:
            problems.append(f"{error.problem} ({error.given or path.name})")
            continue
        with torch.no_grad():
            logits = run.model(torch.from_numpy(image)[None].to(run.device))
        found.append((path, likeliest(logits.cpu(), run.describe["classes"], TOP)[0]))
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
