"""The matrices of state space duality (Mamba-2, arXiv 2405.21060, section 3) and of the trapezoidal scan (Mamba-3, arXiv
2603.15569): the recurrence of one decay a head, unrolled.

With L the running sum of the logarithms of the decays, for steps j < i of one sequence

    alpha[i, j] = (C_i . B_j) exp(L_i - L_j) w_j        alpha[i, i] = (C_i . B_i) v_i

Mamba-2 has v = w = Δ. In Mamba-3 B and C have been turned by the running angles, and the trapezoidal rule tells later steps
about a step twice, with the step's own weight and with the next one's: v_j = λ_j Δ_j, w_j = v_j + (1 - λ_{j+1}) Δ_{j+1}.

With several inputs a step (MIMO, rank R) every pair of rows has its matrix: C_{i,r} . B_{j,s} takes input row s of token j
to output row r of token i, and row r of the output is the sum over s. Inputs are the rows that the scan is given
(after mimo_x), outputs the rows before gate and D (and so before mimo_o mixes them): both products go channel by channel, so
only between them there is one matrix for all channels of a head.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ..mixers.mamba2 import Mamba2
from ..mixers.mamba3 import Mamba3
from ..ops.paths import along_paths
from .unrolled import Unrolled, steps_of


def unroll_mamba2(mixer: Mamba2, x: Tensor, grid, seq_idx: Tensor | None) -> Unrolled:
    """One matrix a head; it is multiplied with what the scan is given, (batch, [paths,] length, heads, headdim)."""
    given = mixer.select(x, grid, None, seq_idx)
    steps = steps_of(given.order, seq_idx, x.shape[0], mixer.paths, x.shape[1], x.device)
    kind = given.A.dtype
    dt, B, C = (_along(t, axes, kind, steps.token) for t, axes in ((given.dt, 3), (given.B, 4), (given.C, 4)))
    dt = F.softplus(dt + mixer.dt_bias.to(kind)).clamp(*mixer.dt_limit)
    B, C = B.unsqueeze(3), C.unsqueeze(3)
    of = partial(entries, dt * given.A, dt, dt, B, C)
    return Unrolled(mixer.nheads, steps, x.shape[1], mixer.merge, of)


def unroll_mamba3(mixer: Mamba3, x: Tensor, grid, seq_idx: Tensor | None) -> Unrolled:
    """A matrix a head, output row and input row, for what the scan is given, (batch, length, rank, heads, headdim)."""
    given = mixer.select(x, grid, None, seq_idx)
    steps = steps_of(given.order, seq_idx, x.shape[0], mixer.paths, x.shape[1], x.device)
    kind = given.log_decay.dtype
    log, dt, share = (_along(t, 3, kind, steps.token) for t in (given.log_decay, given.dt, given.trapezoid))
    B, C = (_along(t, 5, kind, steps.token) for t in (given.B, given.C))
    own, before = share * dt, (1 - share) * dt
    # The step after a sequence's last, or a path's, adds to a weight that no step of that sequence reads.
    weight = own + torch.cat([before[:, :, 1:], torch.zeros_like(before[:, :, :1])], 2)
    of = partial(entries, log, own, weight, B, C)
    return Unrolled(mixer.nheads * mixer.rank**2, steps, x.shape[1], mixer.merge, of)


def entries(log: Tensor, own: Tensor, weight: Tensor, B: Tensor, C: Tensor, begin: int, end: int) -> Tensor:
    """The matrices begin to end - 1 of heads * rank * rank: head by head, output row by output row.

    Args:
        log: (batch, paths, steps, heads), of the decays.
        own, weight: (batch, paths, steps, heads), v and w of the formula.
        B, C: (batch, paths, steps, rank, groups, states).
    """
    rank, groups, heads = *B.shape[3:5], log.shape[-1]
    number = torch.arange(begin, end, device=log.device)
    head = number // rank**2
    products = _products(B, C, number % rank**2 * groups + head // (heads // groups))
    log, own, weight = (t[..., head].transpose(2, 3) for t in (log, own, weight))
    # In float64: the difference of two long running sums keeps few of float32's digits.
    total = log.double().cumsum(-1)
    decay = (total[..., :, None] - total[..., None, :]).clamp_max(0).to(log.dtype).exp()
    matrix = products * decay * weight[..., None, :]
    matrix.diagonal(dim1=-2, dim2=-1).copy_(products.diagonal(dim1=-2, dim2=-1) * own)
    return matrix


def _products(B: Tensor, C: Tensor, which: Tensor) -> Tensor:
    """C_{i,r} . B_{j,s} for (r * rank + s) * groups + group in `which`: (batch, paths, which, steps, steps)."""
    rank, groups = B.shape[3:5]
    # Heads of one group share their products.
    different, place = which.unique(return_inverse=True)
    rows, group = different // groups, different % groups
    products = torch.einsum("bqimn,bqjmn->bqmij", C[:, :, :, rows // rank, group], B[:, :, :, rows % rank, group])
    return products[:, :, place]


def _along(t: Tensor, axes: int, kind: torch.dtype, token: Tensor) -> Tensor:
    """(batch, [paths,] length, ...) in visiting order, (batch, paths, steps, ...); `axes` without that of the paths."""
    return along_paths((t[:, None] if t.dim() == axes else t).to(kind), token)
