"""Pictures of segmentations: the slice that says the most along each axis, classes in colour over it; bars of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ...core.pictures import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = np.array([
    (0.90, 0.30, 0.24), (0.20, 0.60, 0.86), (0.95, 0.77, 0.06), (0.18, 0.80, 0.44), (0.61, 0.35, 0.71), (0.90, 0.49, 0.13),
    (0.10, 0.74, 0.61), (0.91, 0.40, 0.66),
])  # fmt: skip
STRENGTH = 0.5  # of the colour over the image
IGNORED = 255


def draw_cases(cases: Sequence[tuple[str, Sequence[np.ndarray]]], names: Sequence[str], heading: str) -> Figure:
    """A row a case: its title and what `pictures_of` makes of it.

    Args:
        names: of the classes, without the background.
    """
    from matplotlib.figure import Figure

    titles, rows = zip(*cases, strict=True)
    columns = max(map(len, rows))
    figure = Figure(figsize=(1.7 * columns + 0.3, 1.8 * len(rows) + 1.0), dpi=110)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, title, row in zip(axes, titles, rows, strict=True):
        for place in line:
            place.axis("off")
        for place, picture in zip(line, row, strict=False):
            place.imshow(picture, interpolation="nearest")
        line[0].set_title(title, fontsize=8, color=INK, loc="left")
    figure.suptitle(heading, fontsize=10, color=INK)
    for number, name in enumerate(names[:12]):
        at = 0.01 + number / max(len(names[:12]), 4)
        figure.text(at, 0.01, f"■ {name}", fontsize=8, color=COLOURS[number % len(COLOURS)])
    figure.subplots_adjust(left=0.01, right=0.99, top=1 - 0.55 / figure.get_figheight(), bottom=0.06, wspace=0.04)
    return figure


def draw_bars(values: Sequence[float], names: Sequence[str]) -> Figure:
    """Dice of each class as a bar."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 0.4 * len(names) + 1), dpi=110)
    place = figure.subplots()
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(names))]
    place.barh(range(len(names)), np.nan_to_num(values), color=colours)
    for number, value in enumerate(values):
        place.text(min(np.nan_to_num(value), 0.9) + 0.01, number, f"{value:.3f}", va="center", fontsize=8, color=INK)
    place.set_yticks(range(len(names)), names, fontsize=8)
    place.set_xlim(0, 1)
    place.set_xlabel("Dice, mean over the test volumes", fontsize=8, color=FAINT)
    place.invert_yaxis()
    figure.tight_layout()
    return figure


def coloured(image: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """A grey slice (height, width) within 0 and 1 as RGB, with its labels (height, width) in colour."""
    picture = np.repeat(image[..., None], 3, -1)
    if labels is None:
        return picture
    inside = (labels > 0) & (labels != IGNORED)
    colours = COLOURS[(labels[inside] - 1) % len(COLOURS)]
    picture[inside] = (1 - STRENGTH) * picture[inside] + STRENGTH * colours
    return picture


def planes(shape: Sequence[int], labels: np.ndarray) -> list[tuple]:
    """Where a volume is cut: along each axis the slice with the most labelled voxels; the whole of an image."""
    if len(shape) == 2:
        return [(slice(None), slice(None))]
    inside, cuts = (labels > 0) & (labels != IGNORED), []
    for axis in range(3):
        others = tuple(each for each in range(3) if each != axis)
        counts = inside.sum(others)
        cut: list[Any] = [slice(None)] * 3
        cut[axis] = int(counts.argmax()) if counts.any() else shape[axis] // 2
        cuts.append(tuple(cut))
    return cuts


def pictures_of(image: Tensor | np.ndarray, *labels: Tensor | np.ndarray) -> list[np.ndarray]:
    """Of each plane (three of a volume, where the first labels have the most) the image alone and under each of the labels, RGB.

    Args:
        image: (channels, *sizes). labels: (*sizes) each.
    """
    image, labels = _array(image), [_array(each) for each in labels]
    pictures = []
    for cut in planes(image.shape[1:], labels[0]):
        grey = grey_of(image[(slice(None), *cut)])
        pictures += [coloured(grey, None), *(coloured(grey, each[cut]) for each in labels)]
    return pictures


def grey_of(image: np.ndarray) -> np.ndarray:
    """A slice (channels, height, width) as grey within 0 and 1, (height, width)."""
    grey = image.astype(np.float32).mean(0)
    low, high = np.percentile(grey, [1, 99])
    return ((grey - low) / max(high - low, 1e-6)).clip(0, 1)


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    return (values.float() if values.is_floating_point() else values).cpu().numpy()
