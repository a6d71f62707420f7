"""Pictures of text: lines in a fixed-width font, each stretch in its own colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...core.lettering import columns as columns_of
from ...core.lettering import cut, drawable
from ...core.pictures import INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE, WIDTH = 0.19, 0.0815
Stretch = tuple[str, str]


def visible(text: str) -> str:
    """Text with control characters shown as one sign each (a line's end as ↵), so that every line stays a line."""
    shown = {"\n": "↵", "\t": "→", " ": " "}
    return "".join(shown.get(sign, sign if sign.isprintable() else "·") for sign in text)


def draw_lines(lines: Sequence[Sequence[Stretch]], heading: str, columns: int = 110) -> Figure:
    """Draws lines of text.

    Args:
        lines: each a list of (text, colour); longer ones are cut.
        heading: one line above all.
        columns: signs in a line.
    """
    from matplotlib.figure import Figure

    width, height = columns * WIDTH + 0.4, LINE * len(lines) + 0.7
    figure = Figure(figsize=(width, height), dpi=110, facecolor="white")
    heading, fonts = drawable(heading)
    figure.text(0.2 / width, 1 - 0.15 / height, heading, va="top", fontsize=10, color=INK, weight="bold", family=fonts)
    for number, line in enumerate(lines):
        at, y = 0, 1 - (0.5 + LINE * number) / height
        for text, colour in line:
            shown, fonts = drawable(visible(text), "DejaVu Sans Mono")
            shown = cut(shown, columns - at)
            x = (0.2 + at * WIDTH) / width
            figure.text(x, y, shown, va="top", fontsize=9.5, family=fonts, color=colour, parse_math=False)
            at += columns_of(shown)
    return figure
