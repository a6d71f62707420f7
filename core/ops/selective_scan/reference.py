"""The selective scan in plain PyTorch: the definition that every other backend is held to.

Along each path, with steps s, per channel c and state n (Mamba, arXiv 2312.00752, eq. 2 and section 3.2; Δ is `delta` after
bias and softplus):

    h_s = exp(Δ_s A) h_{s-1} + Δ_s B_s x_s        y_s = sum_n C_s h_s + D x_s

A complex A stands for conjugate pairs, of which one is kept: y_s = 2 Re(sum_n C_s h_s) + D x_s.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..paths import along_paths, onto_tokens, restart_of_step, token_of_step


def selective_scan_reference(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool, order: Tensor | None, seq_idx: Tensor | None,
    initial_state: Tensor | None, merge: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One step after the other, on any device and dtype, differentiable by PyTorch itself (twice too).

    Args:
        x, delta: (batch, paths or 1, length, channels).
        A: (paths, channels, states), real or complex.
        B, C: (batch, paths or 1, length, groups, states).
        D, delta_bias: (paths, channels) or None.
        z: (batch, length, channels) or None.
        order: (batch or 1, paths, steps) or None for the raster order.
        seq_idx: (batch, length) or None.
        initial_state: (batch, paths, channels, states) or None.
        merge: "sum", "mean" or "none".

    Returns:
        result (batch, length, channels), or (batch, paths, length, channels) for merge "none", in x's dtype; final state
        (batch, paths, channels, states), float32 at least.
    """
    (batch, _, length, channels), paths, groups = x.shape, A.shape[0], B.shape[3]
    real = torch.promote_types(torch.promote_types(x.dtype, torch.float32), A.real.dtype)
    number = torch.promote_types(real, A.dtype)
    token, visited = token_of_step(order, batch, paths, length, x.device)

    u = along_paths(x.to(real), token, visited)
    step = delta.to(real) if delta_bias is None else delta.to(real) + delta_bias.to(real)[None, :, None]
    step = along_paths(F.softplus(step) if delta_softplus else step, token, visited)
    b, c = (along_paths(t.to(number), token, visited) for t in (B, C))
    if groups > 1:
        b, c = (t.repeat_interleave(channels // groups, dim=3) for t in (b, c))
    restart = restart_of_step(seq_idx, token, visited)

    state = b.new_zeros(batch, paths, channels, A.shape[-1]) if initial_state is None else initial_state.to(number)
    outputs = []
    # Unbound, not indexed: the gradient of an index is as long as the sequence, at every step.
    steps = zip(u.unbind(2), step.unbind(2), b.unbind(2), c.unbind(2), visited.unbind(2), strict=True)
    for s, (u_s, dt, b_s, c_s, here) in enumerate(steps):
        before = state if restart is None else state.masked_fill(restart[:, :, s, None, None], 0)
        after = torch.exp(dt[..., None] * A.to(number)) * before + dt[..., None] * b_s * u_s[..., None]
        state = torch.where(here[..., None, None], after, state)
        y = (c_s * after).sum(-1)
        outputs.append(2 * y.real if number.is_complex else y)
    y = torch.stack(outputs, 2) if outputs else u
    if D is not None:
        y = y + D.to(real)[None, :, None] * u
    out = onto_tokens(y, token, visited, length)
    if merge != "none":
        out = out.sum(1) if merge == "sum" else out.mean(1)
    if z is not None:
        gate = F.silu(z.to(real))
        out = out * (gate[:, None] if merge == "none" else gate)
    return out.to(x.dtype), state
