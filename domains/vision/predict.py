"""The classes of images, and what they rest on: `predict.py ckpt=<run> input=photo.jpg`, or `classify` in memory.

for each in classify(run, ["cat.jpg", image]): print(each.names[0], each.confidences[0])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...core.errors import UserError, check_choice
from ...core.explanation import METHODS
from ...core.pictures import INK, RIGHT, WRONG, save_figure
from ...core.ranges import Count, Size, checked
from ..classification import Classified, likeliest, write_table
from ..trained import Answer, Trained
from .explanation import beside_heat, can_explain, explain_images, receptive_field, share_within
from .film import strip
from .frame_prediction import FramePrediction
from .image_grid import denormalise, draw_grid, even_columns, shorten
from .predicted_bands import write_sharpened
from .predicted_frames import write_frames
from .predicted_masks import opened, write_masks
from .segmentation import Segmentation
from .sharpening import Sharpening

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

FIELD = "receptive_field"
EXPLAINED = 16  # images in the picture of what answers rest on
SHOWN = 20  # images in the table that is printed
TABLE = "predictions.csv"
# The folder of what is written for runs of tasks that answer with images, and who writes it.
WRITERS = {
    Segmentation: ("masks", write_masks),
    FramePrediction: ("frames", write_frames),
    Sharpening: ("sharpened", write_sharpened),
}


@checked
def predict(
    run: Trained,
    input: str | None = None,
    explain: str | None = None,
    top: Size = 5,
    pictures: Count = 16,
    batch_size: Size = 32,
    output: str | None = None,
    classes: str | None = None,
    layout: str | None = None,
    ms: str | None = None,
) -> Answer:
    """Names the classes of images: a table, predictions.csv, and for each image a picture of what its class rests on.

    Of a run that gives each pixel a class it writes masks, in the folder `masks`, and overlays; of one that predicts frames those,
    in the folder `frames`; of one that sharpens bands arrays, in the folder `sharpened`, and pictures.

    Args:
        run: a trained image classifier.
        input: a file, a folder or a pattern; None: test images, with `explain`.
        explain: one of core.explanation.METHODS: draws what the answers rest on, in one picture; "receptive_field": draws which
            pixels the middle of the last map sees; None: names classes.
        top: classes named of each image.
        pictures: images drawn.
        batch_size: images at a time.
        output: folder of what is written; None: the run's.
        classes, layout: of published weights alone, which are loaded with them.
        ms: of a run that sharpens: the coarse image of several bands; `input` is then the panchromatic one.

    Raises:
        UserError: no image is found or none of them can be read, or the model has no hidden attention to explain with.
    """
    for key, value in (("classes", classes), ("layout", layout)):
        if value is not None and run.task is not None:
            raise UserError("the run knows its classes and its model", given=f"{key}={value}", do=f"leave {key}= out")
    if explain is not None:
        check_choice("explain", explain, (*METHODS, FIELD), "method")
        if isinstance(run.task, (FramePrediction, Sharpening)):
            raise UserError(
                "only answers that are classes are explained", given=f"explain={explain}", do="leave explain= out"
            )
    folder = run.folder if output is None else Path(output).expanduser()
    if input is None and explain is None:
        raise UserError(
            "which image?", allowed="a file, a folder or a pattern", do="input=photo.jpg, or explain=attribution"
        )
    if ms is not None and not isinstance(run.task, Sharpening):
        raise UserError("only a run that sharpens takes two images", given=f"ms={ms}", do="leave ms= out")
    folder.mkdir(parents=True, exist_ok=True)
    if explain is not None:
        return _explain(
            run, input, explain, folder / (f"{FIELD}.png" if explain == FIELD else f"explained_{explain}.png")
        )
    for kind, (name, write) in WRITERS.items():
        if isinstance(run.task, kind):
            return write(run, input, pictures, folder / name, **({} if ms is None else {"coarse": ms}))
    return _name(run, input, top, pictures, batch_size, folder)


def classify(
    run: Trained | nn.Module, images: Tensor | Sequence[str | Path | Image], top: int = 5, batch_size: int = 32
) -> list[Classified]:
    """The likeliest classes of images.

    Args:
        run: a trained model; or a module, for images that are prepared.
        images: files or PIL images, of any size; or what the model takes, (batch, channels, height, width).
        top: classes named of each.
        batch_size: images at a time.

    Raises:
        UserError: an image cannot be read.
    """
    found = []
    for part in _parts(images, batch_size):
        if not isinstance(part, Tensor):
            if not isinstance(run, Trained):
                raise UserError("only a trained run knows how images are prepared", given=type(run).__name__)
            photos = _photos(run)
            part = photos.prepare([photos.open(each) if isinstance(each, str | Path) else each for each in part])
        found += _classified(run, part, top)
    return found


def _name(run: Trained, where: str, top: int, pictures: int, batch_size: int, folder: Path) -> Answer:
    """See `predict`."""
    found, problems, files = [], [], []
    images = opened(_photos(run), where, problems)
    while part := list(islice(images, batch_size)):
        prepared = _photos(run).prepare([image for _, image in part])
        answers = _classified(run, prepared, top)
        for (path, _), image, answer in zip(part, prepared, answers, strict=True):
            if len(files) < pictures:
                files.append(_draw(run, path, image, answer, folder / "predictions", len(found)))
            found.append((path, answer))
    if not found:
        raise UserError(f"none of the images can be read: {problems[0]}", given=f"input={where}")
    write_table(folder / TABLE, "file", found)
    width = min(40, max(len(path.name) for path, _ in found[:SHOWN]))
    lines = [f"  {shorten(path.name, 40):<{width}}  {answer.line}" for path, answer in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"  … and {len(found) - SHOWN:,} more images in {TABLE}")
    drawn = [] if not files else [f"  {len(files)} pictures in {files[0].parent}"] if len(files) > 1 else []
    return Answer([*lines, *drawn], [folder / TABLE, *files[: 1 if len(files) == 1 else 0]], problems)


def explain_classes(
    run: Trained, images: Tensor, names: Sequence[str], labels: Sequence[int] | None = None, method: str = "attribution"
) -> tuple[Figure, list[int]]:
    """Draws images and, beside each, what its likeliest class rests on.

    Args:
        run: a trained model that says which tokens it answers from.
        images: (batch, channels, height, width), prepared.
        names: a title for each.
        labels: their classes, where they are known: the answers are coloured by them.
        method: one of core.explanation.METHODS.

    Returns:
        the picture, and the likeliest classes.

    Raises:
        UserError: the model has no hidden attention, or an unknown method.
    """
    if not can_explain(run.model):
        raise UserError(
            "this model has no hidden attention to look into", given=f"model {type(run.model).__name__}",
            allowed="models of Mamba layers, like model=vim and model=vmamba",
            do=f"explain={FIELD} works with any model that gives maps" if _gives_maps(run.model) else None,
        )  # fmt: skip
    found = explain_images(run.model, images.to(run.device), method)
    confidences, said = (each.tolist() for each in found.logits.float().softmax(1).max(1))
    titles, colours = [], []
    for number, (name, guess, confidence) in enumerate(zip(names, said, confidences, strict=True)):
        titles += [name, f"said {shorten(_label(run, guess), 13)} ({confidence:.0%})"]
        colours += [INK, INK if labels is None else RIGHT if guess == labels[number] else WRONG]
    pairs = beside_heat(_visible(run, images), found.weights, found.grid)
    columns = 2 * even_columns(len(images), 4)
    return draw_grid(pairs, titles, f"{method}: what the answers rest on", colours, columns=columns), said


def _explain(run: Trained, where: str | None, method: str, path: Path) -> Answer:
    problems: list[str] = []
    if where is None:
        if not hasattr(run.data, "test_dataloader"):
            raise UserError("published weights come without test images", do="input=photo.jpg")
        images, labels = next(iter(run.data.test_dataloader()))
        images, labels = images[:EXPLAINED], labels[:EXPLAINED].tolist()
        names = [f"is {shorten(_label(run, label), 13)}" for label in labels]
    else:
        given = list(islice(opened(_photos(run), where, problems), EXPLAINED))
        if not given:
            raise UserError(f"none of the images can be read: {problems[0]}", given=f"input={where}")
        images, labels = _photos(run).prepare([image for _, image in given]), None
        names = [shorten(each.name) for each, _ in given]
    if method == FIELD:
        return _field(run, images, path)
    figure, said = explain_classes(run, images, names, labels, method)
    save_figure(figure, path)
    line = f"of {len(names)} images"
    if labels is not None:
        line = f"{sum(map(int.__eq__, said, labels))} of {len(labels)} test images right"
    return Answer([f"  answer   {line}"], [path], problems)


def _field(run: Trained, images: Tensor, path: Path) -> Answer:
    """Which pixels move the middle of the last map: a picture, and the parts of the image that hold most of it."""
    from matplotlib.figure import Figure

    if not _gives_maps(run.model):
        raise UserError("this model gives no maps of an image", given=f"model {type(run.model).__name__}")
    field = receptive_field(run.model, images.to(run.device)).cpu()
    figure = Figure(figsize=(4.2, 3.8), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    # The power lets what is a thousandth of the most be seen; Luo et al.'s pictures do alike.
    shown = axes.imshow((field.float() ** 0.25).numpy(), cmap="viridis", vmin=0, vmax=1)
    axes.set_title(f"effective receptive field, mean of {len(images)} images", fontsize=9)
    axes.set_axis_off()
    figure.colorbar(shown, ax=axes, label="gradient, its fourth root")
    save_figure(figure, path)
    held = ", ".join(f"{share:.0%} within {share_within(field, share):.1%}" for share in (0.5, 0.9, 0.99))
    return Answer([f"  receptive field of the middle of the last map: {held} of the image"], [path])


def _gives_maps(model: nn.Module) -> bool:
    return hasattr(model, "forward_intermediates")


def _draw(run: Trained, path: Path, image: Tensor, answer: Classified, folder: Path, number: int) -> Path:
    """The image (channels, height, width) as the model sees it and, where it has hidden attention, what its class rests on;
    what is no image as its task draws it."""
    folder.mkdir(exist_ok=True)
    target = folder / f"{number:04}_{path.stem}.png"
    if hasattr(run.task, "draw_answer"):
        save_figure(run.task.draw_answer(image, path.name, answer), target)
        return target
    titles = [
        shorten(path.name, 24),
        "\n".join(f"{shorten(name, 18)} {confidence:.0%}" for name, confidence in zip(*answer, strict=True)),
    ]
    pictures = _visible(run, image[None])
    if can_explain(run.model):
        found = explain_images(run.model, image[None].to(run.device))
        pictures = beside_heat(pictures, found.weights, found.grid)
    else:
        titles = ["\n".join(titles)]
    figure = draw_grid(
        pictures, titles, f"{shorten(answer.names[0], 30)} ({answer.confidences[0]:.0%})", columns=len(titles)
    )
    save_figure(figure, target)
    return target


def _classified(run: Trained | nn.Module, images: Tensor, top: int) -> list[Classified]:
    model = run.model if isinstance(run, Trained) else run
    weight = next(model.parameters())
    training = model.training
    model.eval()
    with torch.inference_mode():
        logits = model(images.to(weight.device))
    model.train(training)
    return likeliest(logits, run.describe.get("classes") if isinstance(run, Trained) else None, top)


def _parts(images: Any, size: int) -> Iterator[Any]:
    for start in count(0, size):
        if start >= len(images):
            return
        yield images[start : start + size]


def _photos(run: Trained) -> Any:
    if not hasattr(run.data, "photos"):
        what = type(run.data).__name__
        raise UserError(
            "nothing is read from files for this kind of data",
            given=f"data {what}",
            do=f"eval.py ckpt={run.folder} tests it",
        )
    return run.data.photos()


def _visible(run: Trained, images: Tensor) -> Tensor:
    images = strip(images) if images.dim() == 5 else images
    return denormalise(images, run.describe.get("mean"), run.describe.get("std"))


def _label(run: Trained, label: int) -> str:
    names = run.describe.get("classes")
    return str(names[label]) if names else str(label)
