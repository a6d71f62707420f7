"""The attention hidden in state space models (The Hidden Attention of Mamba Models, arXiv 2403.01590), and attention's own.

Every mixer multiplies what it is given by matrices over the tokens: selective.py (Mamba, S4D), duality.py (Mamba-2, Mamba-3) and
softmax.py (attention) say which. They leave out what comes before (convolution, projections) and after (gate, D). They are in
token order, whatever the order of the paths.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import UserError, check_choice
from ..mixers.attention import Attention
from ..mixers.mamba import Mamba
from ..mixers.mamba2 import Mamba2
from ..mixers.mamba3 import Mamba3
from ..mixers.s4d import S4D
from ..ops.arguments import MERGES
from .duality import unroll_mamba2, unroll_mamba3
from .selective import unroll_mamba, unroll_s4d
from .softmax import unroll_attention
from .unrolled import Unrolled

UNROLL = {
    Mamba: unroll_mamba, Mamba2: unroll_mamba2, Mamba3: unroll_mamba3, S4D: unroll_s4d, Attention: unroll_attention
}  # fmt: skip
NUMBERS = 2**20  # entries of all matrices that are worked on at once: few enough to stay in a cache


def hidden_attention(
    mixer: nn.Module, x: Tensor, grid=None, seq_idx: Tensor | None = None, merge: str | None = None
) -> Tensor:
    """What each token's output takes from each token's input, in every inner channel or head.

    The output of the scan before gate and D is the matrix times what the scan is given (after convolution and SiLU); the
    output of attention before its projection is the matrix times the values.

    Args:
        mixer: a Mamba, Mamba2, Mamba3, S4D or Attention, over any scan.
        x, grid, seq_idx: what the mixer is called with.
        merge: "sum" or "mean" over the paths, or "none"; None: as the mixer does.

    Returns:
        (batch, maps, length, length), entry [.., i, j] from token j to token i; for merge "none" (batch, paths, maps,
        length, length). Zero where a path does not visit, and between sequences. Maps are the inner channels of a Mamba or S4D, the
        heads of a Mamba2, of a Mamba3 with one input a step and of an Attention (query heads). A Mamba3 with several has
        heads * rank * rank: `.unflatten(-3, (heads, rank, rank))` is [head, output row, input row].

    Raises:
        UserError: a mixer without hidden attention.
    """
    unrolled = unroll(mixer, x, grid, seq_idx)
    merge = unrolled.merge if merge is None else merge
    check_choice("merge", merge, MERGES)
    return torch.cat([_merged(unrolled.block(begin, end), merge) for begin, end in _blocks(unrolled)], -3)


def mean_hidden_attention(
    mixer: nn.Module,
    x: Tensor,
    grid=None,
    seq_idx: Tensor | None = None,
    of: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The mean of the hidden attention over channels or heads, (batch, length, length), without holding them all in memory.

    Args:
        mixer, x, grid, seq_idx: as in hidden_attention; the paths are merged as the mixer does.
        of: applied to the matrices before the mean (torch.abs), None: nothing.
    """
    return mean_of(unroll(mixer, x, grid, seq_idx), of)


def mean_of(unrolled: Unrolled, of: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """mean_hidden_attention of a call that has been unrolled."""
    merge, total = "sum" if unrolled.merge == "none" else unrolled.merge, 0
    for begin, end in _blocks(unrolled):
        block = _merged(unrolled.block(begin, end), merge)
        total = total + (block if of is None else of(block)).sum(1)
    return total / unrolled.maps


def can_unroll(mixer: nn.Module) -> bool:
    """Whether a module has hidden attention."""
    return isinstance(mixer, tuple(UNROLL)) and mixer.unrolls


def unroll(mixer: nn.Module, x: Tensor, grid=None, seq_idx: Tensor | None = None) -> Unrolled:
    """A mixer's call as matrices; arguments and errors as of hidden_attention."""
    if can_unroll(mixer):
        kind = next(kind for kind in UNROLL if isinstance(mixer, kind))
        return UNROLL[kind](mixer, x, grid, seq_idx)
    raise UserError(
        "this mixer has no hidden attention", given=type(mixer).__name__, allowed=[kind.__name__ for kind in UNROLL]
    )


def _blocks(unrolled: Unrolled) -> list[tuple[int, int]]:
    """Blocks of matrices that are small enough to work on at once."""
    each = max(1, NUMBERS // max(1, unrolled.steps.sees.numel()))
    return [(begin, min(begin + each, unrolled.maps)) for begin in range(0, unrolled.maps, each)] or [(0, 0)]


def _merged(matrix: Tensor, merge: str) -> Tensor:
    if merge == "none":
        return matrix
    return matrix.sum(1) if merge == "sum" else matrix.mean(1)
