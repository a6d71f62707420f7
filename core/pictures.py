"""What all pictures share: the colours of their words, and a file that is at no moment half written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT = "#222222", "#7a7a7a"
RIGHT, WRONG = "#1b7f4b", "#b3261e"


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG beside its final place and renames it."""
    temporary = path.with_name(path.name + ".tmp")
    figure.savefig(temporary, format="png")
    os.replace(temporary, path)
