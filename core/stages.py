"""Models of stages: the layers of a stage mix the tokens of one grid, the next stage's grid is another, as a rule a coarser one.

Pictures of scans (scans.draw.draw_stages) and hidden attention (explanation.explain_stages) ask a model for its `grids`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import nn

from .errors import UserError
from .scans.grid import Grid, as_grid
from .scans.scan import Scan


class Staged(Protocol):
    """What a model says of its stages."""

    @property
    def grids(self) -> Sequence[Grid]:
        """The tokens of each stage, the first stage's first, for the inputs that the model was made for; one for a plain stack."""


def walks_of(model: Staged | nn.Module, scan: Scan) -> list[tuple[Scan, Grid]]:
    """Which scan walks which grid, stage after stage: what the model says in `walks`, else that scan over each of its grids."""
    found = getattr(model, "walks", None)
    return [(scan, grid) for grid in grids_of(model)] if found is None else list(found)


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
