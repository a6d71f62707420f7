"""State space duality in plain PyTorch: the definition that every other backend is held to.

Along each path, with steps s, per head (Mamba-2, arXiv 2405.21060, section 2; Δ is `dt` after bias, softplus and limits; x_s
has headdim entries, B_s and C_s one a state, the state is a headdim by states matrix):

    h_s = exp(Δ_s A) h_{s-1} + Δ_s x_s B_s^T        y_s = h_s C_s + D x_s
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..paths import along_paths, onto_tokens, restart_of_step, token_of_step


def state_space_duality_reference(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, dt_bias: Tensor | None,
    dt_softplus: bool, dt_limit: tuple[float, float], order: Tensor | None, seq_idx: Tensor | None,
    initial_state: Tensor | None, merge: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One step after the other, on any device and dtype, differentiable by PyTorch itself (twice too).

    Args:
        x: (batch, paths or 1, length, heads, headdim).
        dt: (batch, paths or 1, length, heads).
        A, dt_bias: (paths, heads); dt_bias may be None.
        B, C: (batch, paths or 1, length, groups, states).
        D: (paths, heads, headdim or 1) or None.
        z: (batch, length, heads, headdim) or None.
        order: (batch or 1, paths, steps) or None for the raster order.
        seq_idx: (batch, length) or None.
        initial_state: (batch, paths, heads, headdim, states) or None.
        merge: "sum", "mean" or "none".

    Returns:
        result (batch, length, heads, headdim), or (batch, paths, length, heads, headdim) for merge "none", in x's dtype;
        final state (batch, paths, heads, headdim, states), float32 at least.
    """
    (batch, _, length, heads, width), paths, (groups, states) = x.shape, A.shape[0], B.shape[3:]
    real = torch.promote_types(torch.promote_types(x.dtype, torch.float32), A.dtype)
    token, visited = token_of_step(order, batch, paths, length, x.device)
    restart = restart_of_step(seq_idx, token, visited)

    step = dt.to(real) if dt_bias is None else dt.to(real) + dt_bias.to(real)[None, :, None]
    step = (F.softplus(step) if dt_softplus else step).clamp(*dt_limit)
    u, step, b, c = (along_paths(t.to(real), token, visited) for t in (x, step, B, C))
    b, c = (t.repeat_interleave(heads // groups, dim=3) for t in (b, c))

    state = u.new_zeros(batch, paths, heads, width, states) if initial_state is None else initial_state.to(real)
    outputs = []
    steps = zip(u.unbind(2), step.unbind(2), b.unbind(2), c.unbind(2), visited.unbind(2), strict=True)
    for s, (u_s, dt_s, b_s, c_s, here) in enumerate(steps):
        before = state if restart is None else state.masked_fill(restart[:, :, s, None, None, None], 0)
        decay = torch.exp(dt_s * A.to(real))[..., None, None]
        after = decay * before + (dt_s[..., None] * u_s)[..., None] * b_s[..., None, :]
        state = torch.where(here[..., None, None, None], after, state)
        outputs.append((after * c_s[..., None, :]).sum(-1))
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


def dense_reference(
    x: Tensor, log_decay: Tensor, weight: Tensor, own_weight: Tensor | None, B: Tensor, C: Tensor,
    restart: Tensor | None, initial_state: Tensor | None, rank: int, skip: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What the operator of registration.py computes, one step after the other: outputs and final state.

    Args and returns: as there; every dtype, at least float32.
    """
    (batch, rows, heads, width), (groups, states) = x.shape, B.shape[2:]
    real = torch.promote_types(x.dtype, torch.float32)
    steps = rows // rank
    own_weight = weight if own_weight is None else own_weight
    u, b, c = (t.to(real).unflatten(1, (steps, rank)) for t in (x, B, C))
    b, c = (t.repeat_interleave(heads // groups, dim=3) for t in (b, c))
    state = u.new_zeros(batch, heads, width, states) if initial_state is None else initial_state.to(real)
    outputs = []
    for s in range(steps):
        if restart is not None:
            state = state.masked_fill(restart[:, s, None, None, None], 0)
        before = torch.exp(log_decay[:, s].to(real))[..., None, None] * state
        added = torch.einsum("brhp,brhn->bhpn", u[:, s], b[:, s])
        seen = before + own_weight[:, s].to(real)[..., None, None] * added
        state = before + weight[:, s].to(real)[..., None, None] * added
        outputs.append(torch.einsum("bhpn,brhn->brhp", seen, c[:, s]))
    y = torch.cat(outputs, 1) if outputs else u.flatten(1, 2)
    y = y if skip is None else y + skip.to(real)[:, None, :, None] * u.flatten(1, 2)
    return y.to(x.dtype), state
