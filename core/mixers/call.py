"""The check that every mixer makes of what it is called with."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import UserError
from ..ops.arguments import check_shape
from ..scans import Grid


def check_tokens(mixer: nn.Module, x: Tensor, grid: Grid | tuple[int, ...] | None, seq_idx: Tensor | None) -> None:
    """Raise a UserError where tokens, grid or sequence numbers do not fit a mixer, which says `d_model`, or one another."""
    check_shape("x", x, (None, None, mixer.d_model), note="")
    check_shape("seq_idx", seq_idx, (x.shape[0], x.shape[1]), integer=True, note="")
    if isinstance(grid, tuple | list) and any(size < 0 for size in grid):
        raise UserError("a grid has no negative sizes", given=grid, allowed="sizes such as (14, 14)")


def check_state(mixer: nn.Module, state: tuple | None, batch: int) -> None:
    """Raise a UserError where a state is not one of a mixer, for so many sequences.

    Args:
        mixer: says `state_shapes(batch)`: its state, with a shape as check_shape takes it in place of each tensor.
    """
    if state is None:
        return
    shapes = mixer.state_shapes(batch)
    if not isinstance(state, type(shapes)):
        raise UserError(
            f"state must be what the call on the piece before returned, a {type(shapes).__name__}",
            given=type(state).__name__,
        )
    for name, shape, part in zip(shapes._fields, shapes, state, strict=True):
        check_shape(f"state.{name}", part, shape, note="")
