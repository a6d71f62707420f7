"""The classes of every voxel: `predict.py ckpt=<run> input=scan.nii.gz`; several runs answer by their mean: `ckpt=<run>,<run>`."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import UserError
from ...core.pictures import save_figure
from ...core.ranges import Count, Rate, Size, checked
from ..trained import Answer, Trained
from .bundle import write_bundle
from .explaining import draw_attention
from .inference import count_windows, likeliest, logits_along, on_grid
from .overlays import draw_cases, pictures_of
from .parts import largest_parts
from .predict_classes import name_classes

TABLE = "volumes.csv"


@checked
def predict(
    run: Trained,
    input: str | None = None,
    mirror: bool = False,
    overlap: Rate = 0.5,
    windows: Size = 4,
    largest: bool | None = None,
    explain: bool = False,
    pictures: Count = 16,
    progress: bool | None = None,
    output: str | None = None,
    bundle: str | None = None,
) -> Answer:
    """Writes a label file for each image, an overlay, and a table of the volume of each class; or a MONAI bundle of the run.

    A classifier writes a table of the images' classes.

    Args:
        run: a trained segmentation model; of several with the same classes the mean of their probabilities answers.
        input: a NIfTI, PNG or TIFF file, a DICOM series (a folder of slices), or a folder of them.
        mirror: average over mirror images: slower by a factor of 4 (images) or 8 (volumes).
        overlap: share of a window that the next one covers too. windows: at a time.
        largest: of each class keep the largest connected part alone; None: of those for which it helped in validation.
        explain: draw for each class where the Mamba layers took it from.
        pictures: overlays drawn. progress: show a bar of windows; None: on a terminal.
        output: folder of what is written; None: `segmented` in the run's.
        bundle: folder of a MONAI bundle, which predicts without this package; nothing else is done.

    Raises:
        UserError: no image is found, or none of them can be read; runs that do not know the same classes.
    """
    runs, names = [run, *run.others], _classes_of([run, *run.others])
    classifies = run.describe.get("task") == "classification"
    if bundle is not None and (classifies or run.others or input is not None):
        given = f"{len(runs)} runs, input={input}, task {run.describe.get('task')}"
        raise UserError("a bundle is made of one segmentation run, without input=", given=given)
    if bundle is None and input is None:
        raise UserError(
            "which image?", allowed="a NIfTI, PNG or TIFF file, a DICOM series, or a folder", do="input=scan.nii.gz"
        )
    if classifies:
        return name_classes(runs, names, input, output, pictures)
    kept = kept_parts(runs, names, largest)
    if bundle is not None:
        return write_bundle(run, Path(bundle).expanduser(), overlap, kept)
    files, folder = run.data.volumes(), run.folder / "segmented" if output is None else Path(output).expanduser()
    rows, drawn, written, problems = [], [], [], []
    for path in files.find(input):
        try:
            raw = files.open(path)
            images = [each.data.volumes().prepare(raw) for each in runs]
        except UserError as error:
            problems.append(f"{error.problem} ({error.given or path.name})")
            continue
        with _bar(path.name, progress) as bar:
            classes = classes_of(runs, images, raw.sizes, mirror, overlap, windows, bar)
        classes = largest_parts(classes, [names.index(name) for name in kept])
        target = files.target(raw, folder)
        if target.exists() and target.samefile(path):
            raise UserError("the labels would replace the image", given=f"output={output}", do="name another folder")
        written.append(files.write(raw, classes, target))
        rows += _rows(path.name, classes, names, raw.voxel)
        if len(drawn) < pictures:
            beginning = folder / path.name.removesuffix(".gz").removesuffix(".nii")
            drawn.append(Path(f"{beginning}_overlay.png"))
            save_figure(
                draw_cases([(path.name, pictures_of(raw.values, classes))], names[1:], "image, answer"), drawn[-1]
            )
            if explain:
                drawn.append(Path(f"{beginning}_attention.png"))
                save_figure(draw_attention(run, images[0], classes), drawn[-1])
    if not written:
        raise UserError(f"none of the images can be read: {problems[0]}", given=f"input={input}")
    _write_table(folder / TABLE, rows)
    lines = [f"  {name:<30}  {what:<20}  {voxels:>10,} voxels  {ml:10.3f} ml" for name, what, voxels, ml in rows[:20]]
    return Answer([*lines, *_said(runs, kept, largest)], [*written[:5], *drawn[:2], folder / TABLE], problems)


def classes_of(
    runs: Sequence[Trained], images: Sequence[Any], sizes: Sequence[int], mirror: bool = False, overlap: float = 0.5,
    windows: int = 4, bar: Callable[[int, int], None] = lambda done, whole: None,
) -> np.ndarray:  # fmt: skip
    """The class with the highest mean probability of each voxel, uint8 (*sizes).

    Args:
        images: for each run the image as it takes it (inference.Planes). sizes: of the answer.
        bar: is told of how many windows are done, and of how many there are.
    """
    patches = [tuple(run.describe["patch_size"]) for run in runs]
    whole = sum(count_windows(image.sizes, patch, overlap) for image, patch in zip(images, patches, strict=True))
    members = []
    for run, image, patch in zip(runs, images, patches, strict=True):
        blocks = logits_along(
            run.model, image, patch, overlap, windows, mirror, run.device, lambda count: bar(count, whole)
        )
        members.append(on_grid(_probabilities(blocks), image.sizes[0], sizes))
    return likeliest(members, sizes)


def _probabilities(blocks: Iterator[Any]) -> Iterator[Any]:
    """The planes of blocks of logits (classes, planes, ...), one after the other."""
    for block in blocks:
        yield from block.float().softmax(0).unbind(1)


def kept_parts(runs: Sequence[Trained], names: Sequence[str], largest: bool | None) -> list[str]:
    """The classes of which the largest part alone is kept: all, none, or (None) those that most of the runs have decided on."""
    if largest is not None:
        return list(names[1:]) if largest else []
    decided = [run.data.volumes().largest or () for run in runs]
    return [name for name in names[1:] if 2 * sum(name in each for each in decided) > len(runs)]


def _said(runs: Sequence[Trained], kept: Sequence[str], largest: bool | None) -> list[str]:
    lines = [f"  mean of {len(runs)} runs"] if len(runs) > 1 else []
    if largest is None and all(run.data.volumes().largest is None for run in runs):
        return [*lines, "  largest parts: not looked at in validation (the run has not come to its end)"]
    why = "as asked" if largest is not None else "where validation was the better for it"
    return [*lines, f"  largest part alone: {', '.join(kept) or 'of no class'}, {why}"]


def _classes_of(runs: Sequence[Trained]) -> list[str]:
    known = [([str(name) for name in run.describe["classes"]], run.data.volumes().plan.values) for run in runs]
    for run, (names, values) in zip(runs, known, strict=True):
        if (names, values) != known[0]:
            raise UserError(
                f"{run.folder} does not know the same classes as {runs[0].folder}", given=f"{names}, labels {list(values)}",
                allowed=f"{known[0][0]}, labels {list(known[0][1])}",
            )  # fmt: skip
    return known[0][0]


@contextmanager
def _bar(name: str, asked: bool | None) -> Iterator[Callable[[int, int], None]]:
    """A bar of windows, on standard error."""
    from rich.console import Console
    from rich.progress import Progress

    shown = sys.stderr.isatty() if asked is None else asked
    with Progress(console=Console(stderr=True), disable=not shown) as progress:
        task = progress.add_task(name)
        yield lambda done, whole: progress.update(task, advance=done, total=whole)


def _rows(name: str, classes: np.ndarray, names: Sequence[Any], voxel: float) -> list[tuple[str, str, int, float]]:
    # plane by plane: counting makes 64-bit numbers of all of them
    counts = sum(np.bincount(plane.ravel(), minlength=len(names)) for plane in classes)
    return [(name, str(what), int(count), count * voxel) for what, count in zip(names[1:], counts[1:], strict=True)]


def _write_table(path: Path, rows: Sequence[tuple]) -> None:
    part = path.with_name(f".{path.name}.tmp")
    with open(part, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "class", "voxels", "ml"])
        table.writerows((name, what, voxels, f"{ml:.6f}") for name, what, voxels, ml in rows)
    os.replace(part, path)
