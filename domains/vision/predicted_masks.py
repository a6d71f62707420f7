"""The class of each pixel of photos of any size, as masks with a palette and as overlays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...core.errors import UserError
from ...core.pictures import save_figure
from ..trained import Answer, Trained
from .image_grid import shorten
from .label_pictures import colours

if TYPE_CHECKING:
    from PIL.Image import Image

SHOWN = 20  # images in the table that is printed
NAMED = 4  # classes of each


def write_masks(run: Trained, where: str, pictures: int, folder: Path) -> Answer:
    """Writes NAME.png, each pixel its class's number, for each image, and NAME_overlay.png for some.

    Args:
        run: of the task Segmentation.
        where: a file, a folder or a pattern.
        pictures: overlays drawn.
        folder: of what is written; made where it is not there.

    Raises:
        UserError: no image is found, none can be read, or a mask would replace an image.
    """
    files, problems, lines, written, drawn = run.data.photos(), [], [], [], []
    folder.mkdir(parents=True, exist_ok=True)
    palette = (255 * colours(256)).round().byte().numpy()
    for path, image in opened(files, where, problems):
        prepared = files.prepare(image)
        with torch.inference_mode():
            classes = run.task.answer(prepared.to(run.device)).argmax(1)[0].cpu()
        target = _target(folder, path, written)
        files.write(target, classes.byte().numpy(), palette)
        written.append(target)
        lines.append(_line(run.task.names, path, classes))
        if len(drawn) < pictures:
            drawn.append(target.with_name(f"{target.stem}_overlay.png"))
            save_figure(run.task.draw([prepared[0]], [[classes]], [path.name], "image, answer"), drawn[-1])
    if not written:
        raise UserError(f"none of the images can be read: {problems[0]}", given=f"input={where}")
    more = [f"  … and {len(lines) - SHOWN:,} more images"] if len(lines) > SHOWN else []
    return Answer([*lines[:SHOWN], *more, f"  {len(written)} masks in {folder}"], [*written[:3], *drawn[:1]], problems)


def opened(files: Any, where: str, problems: list[str]) -> Iterator[tuple[Path, Image]]:
    """The files that `input=` means, as they are read; those that cannot be are said in `problems`."""
    for path in files.find(where):
        try:
            image = files.open(path)
        except UserError as error:
            problems.append(f"{error.problem} ({error.given})")
            continue
        yield path, image


def _target(folder: Path, path: Path, written: list[Path]) -> Path:
    """Where an image's mask goes; of images of one name in several folders the later ones get a number."""
    target, number = folder / f"{path.stem}.png", 2
    while target in written:
        target, number = folder / f"{path.stem}_{number}.png", number + 1
    if target.exists() and target.samefile(path):
        raise UserError("the mask would replace the image", given=str(path), do="output=FOLDER")
    return target


def _line(names: list[str], path: Path, classes: torch.Tensor) -> str:
    shares = torch.bincount(classes.flatten(), minlength=len(names)) / max(1, classes.numel())
    likeliest = [each for each in shares.argsort(descending=True).tolist()[:NAMED] if shares[each] > 0]
    said = "   ".join(f"{names[each]} {float(shares[each]):.1%}" for each in likeliest)
    return f"  {shorten(path.name, 40):<24}  {said}"
