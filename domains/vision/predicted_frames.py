"""The frames that a model says come next in videos: as images, and beside those that came."""

from __future__ import annotations

from pathlib import Path

import torch

from ...core.errors import UserError
from ...core.pictures import save_figure
from ..trained import Answer, Trained
from .frame_prediction import guesses, scores
from .image_grid import shorten
from .predicted_masks import opened

SHOWN = 20  # videos in the table that is printed


def write_frames(run: Trained, where: str, pictures: int, folder: Path) -> Answer:
    """Of each video takes as many frames as in training, evenly spaced, gives the model the first of them and compares the others.

    Writes NUMBER_NAME/00.png, 01.png, ..., the frames that the model predicts, and for some videos NUMBER_NAME.png, beside the
    truth.

    Args:
        run: of the task FramePrediction.
        where: a file, a folder of frames, or a folder of such.
        pictures: videos drawn.
        folder: of what is written; made where it is not there.

    Raises:
        UserError: no video is found, or none can be read.
    """
    from PIL import Image

    files, problems, lines, drawn = run.data.photos(), [], [], []
    for path, clip in opened(files, where, problems):
        batch = (files.prepare([clip]).to(run.device),)
        with torch.inference_mode():
            said, truth = (each[:, :, run.task.past - 1 :].cpu() for each in run.task.answer(batch))
        seen = run.task.inputs(batch)[0].cpu()
        errors = [float(scores(each, truth)["mse"].mean()) for each in (said, guesses(seen, truth.shape[2])["repeat_"])]
        here = folder / f"{len(lines):04}_{path.stem}"
        here.mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate((255 * said[0]).round().byte().movedim(0, -1)):
            Image.fromarray(frame.squeeze(-1).numpy()).save(here / f"{number:02}.png")
        title = f"MSE {errors[0]:.4f}, of repeating the last frame {errors[1]:.4f}"
        lines.append(f"  {shorten(path.name, 40):<24}  {title}")
        if len(drawn) < pictures:
            drawn.append(here.with_name(f"{here.name}.png"))
            save_figure(run.task.draw([(seen[0], truth[0], said[0])], [title], path.name), drawn[-1])
    if not lines:
        raise UserError(f"none of the videos can be read: {problems[0]}", given=f"input={where}")
    more = [f"  … and {len(lines) - SHOWN:,} more videos"] if len(lines) > SHOWN else []
    return Answer([*lines[:SHOWN], *more, f"  frames of {len(lines)} videos in {folder}"], drawn[:1], problems)
