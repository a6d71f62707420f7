"""The attention matrices hidden in a selective scan (The Hidden Attention of Mamba Models, arXiv 2403.01590, eq. 11).

Unrolled, the scan is a product of its input with a lower triangular matrix along each path; with S the running sum of Δ,

    alpha[i, j] = sum_n C_i[n] exp(A[n] (S_i - S_j)) Δ_j B_j[n]   for steps j <= i of one sequence, else 0.

The matrices here are in token order, whatever the order of the path. They leave out the convolution, the gate and D.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from ..mixers.mamba import Mamba
from ..ops.paths import along_paths, restart_of_step, token_of_step

NUMBERS = 2**24  # entries of all matrices that are worked on at once


def hidden_attention(
    mixer: nn.Module, x: Tensor, grid=None, seq_idx: Tensor | None = None, merge: str | None = None
) -> Tensor:
    """What each token's output takes from each token's input in every inner channel.

    The output of the scan before gate and D is the matrix times what the scan is given (after convolution and SiLU).

    Args:
        mixer: a Mamba, over any scan.
        x, grid, seq_idx: what the mixer is called with.
        merge: "sum" or "mean" over the paths, or "none"; None: as the mixer does.

    Returns:
        (batch, channels, length, length), entry [.., i, j] from token j to token i; for merge "none"
        (batch, paths, channels, length, length). Zero where a path does not visit, and between sequences.

    Raises:
        UserError: a mixer without hidden attention.
    """
    walk = _Walk(mixer, x, grid, seq_idx, merge)
    return torch.cat([walk.merged(walk.block(begin, end)) for begin, end in walk.blocks()], -3)


def mean_hidden_attention(
    mixer: nn.Module,
    x: Tensor,
    grid=None,
    seq_idx: Tensor | None = None,
    of: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The mean of the hidden attention over channels, (batch, length, length), without holding them all in memory.

    Args:
        mixer, x, grid, seq_idx: as in hidden_attention; the paths are merged as the mixer does.
        of: applied to the matrices before the mean (torch.abs), None: nothing.
    """
    walk, total = _Walk(mixer, x, grid, seq_idx, None if mixer.merge != "none" else "sum"), 0
    for begin, end in walk.blocks():
        block = walk.merged(walk.block(begin, end))
        total = total + (block if of is None else of(block)).sum(1)
    return total / walk.channels


class _Walk:
    """One call's selections, in visiting order, from which the matrices of a block of channels are computed."""

    def __init__(self, mixer: nn.Module, x: Tensor, grid, seq_idx: Tensor | None, merge: str | None):
        if not isinstance(mixer, Mamba):
            raise UserError(
                "this mixer has no hidden attention", given=type(mixer).__name__, allowed="Mamba",
                do="attention layers show their own weights",
            )  # fmt: skip
        self.merge = mixer.merge if merge is None else merge
        if self.merge not in ("sum", "mean", "none"):
            raise UserError(f"unknown merge {merge!r}", given=merge, allowed=("sum", "mean", "none"))
        given = mixer.select(x, grid, None, seq_idx)
        _, delta, A, B, C, _, _ = given.tensors
        bias = given.delta_bias
        A = A if A.dim() == 3 else A[None]
        self.A, self.paths, self.channels = A, mixer.paths, A.shape[-2]
        delta, B, C = (t if t.dim() == 4 else t[:, None] for t in (delta, B, C))
        order = given.order
        order = order[None] if order is not None and order.dim() == 2 else order
        self.batch, self.length = x.shape[:2]
        token, visited = token_of_step(order, self.batch, self.paths, self.length, x.device)
        restart = restart_of_step(seq_idx, token, visited)
        step = F.softplus(delta.to(A.dtype) + (bias if bias.dim() == 1 else bias[None, :, None]).to(A.dtype))
        self.step = along_paths(step, token).masked_fill(~visited[..., None], 0)
        self.B, self.C = (along_paths(t.to(A.dtype), token) for t in (B, C))
        self.seen = self._pairs(visited, restart)
        self.token = torch.where(visited, token, self.length)

    def _pairs(self, visited: Tensor, restart: Tensor | None) -> Tensor:
        """Which step sees which, (batch, paths, steps, steps)."""
        steps = visited.shape[-1]
        seen = torch.ones(steps, steps, dtype=torch.bool, device=visited.device).tril()
        seen = seen & visited[..., None] & visited[..., None, :]
        if restart is not None:
            number = restart.cumsum(-1)
            seen = seen & (number[..., None] == number[..., None, :])
        return seen

    def blocks(self) -> list[tuple[int, int]]:
        """Blocks of channels whose matrices are small enough to work on at once."""
        each = max(1, NUMBERS // max(1, self.batch * self.paths * self.seen.shape[-1] ** 2))
        return [(begin, min(begin + each, self.channels)) for begin in range(0, self.channels, each)] or [(0, 0)]

    def block(self, begin: int, end: int) -> Tensor:
        """(batch, paths, channels of the block, length, length), in token order."""
        step, A = self.step[..., begin:end].transpose(2, 3), self.A[:, begin:end]
        # In float64: the difference of two long running sums keeps few of float32's digits.
        total = step.double().cumsum(-1)
        between = (total[..., :, None] - total[..., None, :]).clamp_min(0).to(step.dtype)
        matrix = torch.zeros_like(between)
        for n in range(A.shape[-1]):
            decay = torch.exp(A[None, :, :, n, None, None] * between)
            matrix = matrix + self.C[:, :, None, :, n, None] * decay * (self.B[:, :, None, :, n] * step)[..., None, :]
        return self._in_token_order(matrix.masked_fill(~self.seen[:, :, None], 0))

    def merged(self, matrix: Tensor) -> Tensor:
        if self.merge == "none":
            return matrix
        return matrix.sum(1) if self.merge == "sum" else matrix.mean(1)

    def _in_token_order(self, matrix: Tensor) -> Tensor:
        for axis in (-1, -2):
            shape = [*matrix.shape]
            index = self.token[:, :, None, None, :] if axis == -1 else self.token[:, :, None, :, None]
            shape[axis] = self.length + 1
            matrix = matrix.new_zeros(shape).scatter(axis, index.expand_as(matrix), matrix)
            matrix = matrix.narrow(axis, 0, self.length)
        return matrix
