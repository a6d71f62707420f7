"""The matrices of a selective scan (Mamba-1; The Hidden Attention of Mamba Models, arXiv 2403.01590, eq. 11).

Unrolled, the scan is a product of its input with a lower triangular matrix along each path, one a channel; with S the
running sum of Δ,

    alpha[i, j] = sum_n C_i[n] exp(A[n] (S_i - S_j)) Δ_j B_j[n]   for steps j <= i of one sequence, else 0.

Where nothing is selected (S4D) it depends on i - j alone.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ..mixers.mamba import Mamba
from ..mixers.s4d import S4D
from ..ops.paths import along_paths
from .unrolled import Unrolled, steps_of


def unroll_mamba(mixer: Mamba, x: Tensor, grid, seq_idx: Tensor | None) -> Unrolled:
    """One matrix an inner channel; it is multiplied with what the scan is given, (batch, [paths,] length, channels)."""
    given = mixer.select(x, grid, None, seq_idx)
    delta, A, B, C, bias = given.delta, given.A, given.B, given.C, given.delta_bias
    A = A if A.dim() == 3 else A[None]
    delta, B, C = (t if t.dim() == 4 else t[:, None] for t in (delta, B, C))
    steps = steps_of(given.order, seq_idx, x.shape[0], mixer.paths, x.shape[1], x.device)
    delta = delta.to(A.dtype)
    if bias is not None:
        delta = delta + (bias if bias.dim() == 1 else bias[None, :, None]).to(A.dtype)
    delta = F.softplus(delta)
    delta, B, C = (along_paths(t.to(A.dtype), steps.token) for t in (delta, B, C))
    delta = delta.masked_fill(~steps.visited[..., None], 0)
    return Unrolled(A.shape[-2], steps, x.shape[1], mixer.merge, partial(entries, A, delta, B, C))


def entries(A: Tensor, delta: Tensor, B: Tensor, C: Tensor, begin: int, end: int) -> Tensor:
    """The matrices of the channels begin to end - 1.

    Args:
        A: (paths or 1, channels, states).
        delta: (batch, paths, steps, channels), after softplus.
        B, C: (batch, paths, steps, states).
    """
    A, delta = A[:, begin:end], delta[..., begin:end].transpose(2, 3)
    # In float64: the difference of two long running sums keeps few of float32's digits.
    total = delta.double().cumsum(-1)
    between = (total[..., :, None] - total[..., None, :]).clamp_min(0).to(delta.dtype)
    matrix = torch.zeros_like(between)
    for n in range(A.shape[-1]):
        decay = torch.exp(A[None, :, :, n, None, None] * between)
        matrix = matrix + C[:, :, None, :, n, None] * decay * (B[:, :, None, :, n] * delta)[..., None, :]
    return matrix


def unroll_s4d(mixer: S4D, x: Tensor, grid, seq_idx: Tensor | None) -> Unrolled:
    """One matrix an inner channel, for what the convolution gives, (batch, [paths,] length, channels)."""
    order = mixer.call(x, grid, None, seq_idx).order
    steps = steps_of(order, seq_idx, x.shape[0], mixer.paths, x.shape[1], x.device)
    step, rate, B, C, _ = mixer.state_space()
    place = torch.arange(steps.token.shape[-1], device=x.device)
    behind = (place[:, None] - place).clamp_min(0)

    def entries_of(begin: int, end: int) -> Tensor:
        kept = torch.exp(rate[begin:end, :, None] * place)
        kernel = torch.einsum("cn,cnl->cl", (step * B * C)[begin:end], kept)
        return kernel[:, behind].expand(*steps.token.shape[:2], -1, -1, -1)

    return Unrolled(mixer.d_inner, steps, x.shape[1], mixer.merge, entries_of)
