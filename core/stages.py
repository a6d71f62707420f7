"""Models of stages: the layers of a stage mix the tokens of one grid, the next stage's grid is another, as a rule a coarser one.

Pictures of scans (scans.draw.draw_stages) and hidden attention (explanation.explain_stages) ask a model for its `grids`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import nn

from .errors import UserError
from .scans.grid import Grid, as_grid
from .scans.scan import Scan


class Staged(Protocol):
    """What a model says of its stages."""

    @property
    def grids(self) -> Sequence[Grid]:
        """The tokens of each stage, the first stage's first, for the inputs that the model was made for; one for a plain stack."""


class Walk(NamedTuple):
    """A scan over a grid; name: what the walk is called where a model has several along single axes, such as "time"."""

    scan: Scan
    grid: Grid
    name: str = ""


def walks_of(model: Staged | nn.Module, scan: Scan) -> list[Walk]:
    """Which scan walks which grid, stage after stage: what the model says in `walks` (a scan, a grid or its sizes, perhaps a name),
    else that scan over each of its grids."""
    found = getattr(model, "walks", None)
    if found is None:
        return [Walk(scan, grid) for grid in grids_of(model)]
    return [Walk(each, as_grid(grid), *name) for each, grid, *name in found]


def has_walks(model: nn.Module) -> bool:
    """Whether a model says what is walked: in `walks`, or the grids of its stages."""
    return hasattr(model, "walks") or hasattr(model, "grids")


def grids_of(model: Staged | nn.Module) -> tuple[Grid, ...]:
    """The grids of a model's stages.

    Raises:
        UserError: the model does not say them.
    """
    grids = getattr(model, "grids", None)
    if grids is None:
        raise UserError(
            "this model does not say the grids of its stages", given=type(model).__name__,
            do="give it a property `grids`: a Grid, or its sizes, for each stage (core/stages.py)",
        )  # fmt: skip
    return tuple(map(as_grid, grids))
