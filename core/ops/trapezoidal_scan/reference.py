"""The trapezoidal scan in plain PyTorch: the definition that every other backend is held to.

Along each path, with steps s, per head (Mamba-3, arXiv 2603.15569; a_s = exp(log_decay_s), Δ_s = dt_s, λ_s = trapezoid_s;
sums over the R rows of a step):

    h_s = a_s h_{s-1} + (1 - λ_s) Δ_s a_s sum_r x_{s-1,r} B_{s-1,r}^T + λ_s Δ_s sum_r x_{s,r} B_{s,r}^T
    y_{s,r} = h_s C_{s,r} + D x_{s,r}

λ = 1 is the scan of Mamba-2, λ = 1/2 the trapezoidal rule.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..paths import along_paths, onto_tokens, restart_of_step, token_of_step


def trapezoidal_scan_reference(
    x: Tensor, log_decay: Tensor, dt: Tensor, trapezoid: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    order: Tensor | None, seq_idx: Tensor | None, initial_state: tuple[Tensor, Tensor, Tensor] | None, merge: str,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:  # fmt: skip
    """One step after the other, on any device and dtype, differentiable by PyTorch itself (twice too).

    Args:
        x: (batch, paths, length, rank, heads, headdim).
        log_decay, dt, trapezoid: (batch, paths or 1, length, heads).
        B, C: (batch, paths or 1, length, rank, groups, states).
        D: (paths, heads) or None.
        order: (batch or 1, paths, steps) or None for the raster order.
        seq_idx: (batch, length) or None.
        initial_state: (batch, paths, ...) h, B and x after the step before the first, or None.
        merge: "sum", "mean" or "none".

    Returns:
        result (batch, [paths,] length, rank, heads, headdim) in x's dtype; the state (h, B, x), float32 at least.
    """
    (batch, paths, length, _, heads, _), groups = x.shape, B.shape[4]
    real = torch.promote_types(torch.promote_types(x.dtype, torch.float32), log_decay.dtype)
    token, visited = token_of_step(order, batch, paths, length, x.device)
    restart = restart_of_step(seq_idx, token, visited)
    u, log, step, lam, b, c = (along_paths(t.to(real), token, visited) for t in (x, log_decay, dt, trapezoid, B, C))

    def outer(values: Tensor, keys: Tensor) -> Tensor:
        keys = keys.repeat_interleave(heads // groups, dim=3)
        return torch.einsum("bqrhp,bqrhn->bqhpn", values, keys)

    if initial_state is None:
        h = u.new_zeros(batch, paths, *x.shape[4:], B.shape[5])
        k, v = (t.new_zeros(batch, paths, *t.shape[3:]) for t in (b, u))
    else:
        h, k, v = (t.to(real) for t in initial_state)
    outputs = []
    for s in range(token.shape[2]):
        if restart is not None:
            again = restart[:, :, s, None, None, None]
            h, k, v = (t.masked_fill(again, 0) for t in (h, k, v))
        decay, before, now = (
            t[..., None, None]
            for t in (log[:, :, s].exp(), (1 - lam[:, :, s]) * step[:, :, s], lam[:, :, s] * step[:, :, s])
        )
        after = decay * (h + before * outer(v, k)) + now * outer(u[:, :, s], b[:, :, s])
        outputs.append(torch.einsum("bqhpn,bqrhn->bqrhp", after, c[:, :, s].repeat_interleave(heads // groups, dim=3)))
        here = visited[:, :, s, None, None, None]
        h, k, v = (torch.where(here, t, old) for t, old in ((after, h), (b[:, :, s], k), (u[:, :, s], v)))
    y = torch.stack(outputs, 2) if outputs else u
    if D is not None:
        y = y + D.to(real)[None, :, None, None, :, None] * u
    out = onto_tokens(y, token, visited, length)
    if merge != "none":
        out = out.sum(1) if merge == "sum" else out.mean(1)
    return out.to(x.dtype), (h, k, v)
