"""State space duality (SSD), the recurrence of Mamba-2, over any number of paths through the tokens.

reference.py defines it, cpu.py (matrix products) and gpu.py (Triton) compute it fast, registration.py makes it a PyTorch
operator over dense sequences; the paths, the step sizes, D and the gate around it are plain PyTorch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import UserError, check_choice
from ..arguments import MERGES, check_shape, count_paths, per_path, with_paths
from ..backends import resolve
from ..paths import Paths, fold, unfold
from .reference import state_space_duality_reference
from .registration import state_space_duality_op

__all__ = ["state_space_duality", "state_space_duality_reference"]


def state_space_duality(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    order: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    merge: str = "sum",
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """State space scan with one decay a head, along one or many paths (Mamba-2, arXiv 2405.21060).

    Along each path, per head: h = exp(Δ A) h + Δ x B^T and y = h C + D x, with Δ = dt + dt_bias, through softplus where
    asked for, clamped to dt_limit. All tensors are indexed by token; `order` alone says how a path walks. The paths axis
    may be left out of every argument that is the same for all paths, and of all where there is one path.

    Args:
        x: (batch, length, heads, headdim) or (batch, paths, length, heads, headdim), what sits at each token.
        dt: (batch, [paths,] length, heads), step size before bias, softplus and limits.
        A: ([paths,] heads), negative; float32 or float64.
        B, C: (batch, [paths,] length, groups, states); heads are split evenly over groups.
        D: ([paths,] heads) or ([paths,] heads, headdim); two axes are read as paths and heads where both match.
        z: (batch, length, heads, headdim), a gate: the merged output is multiplied by silu(z).
        dt_bias: ([paths,] heads).
        dt_limit: smallest and largest Δ.
        order, seq_idx: as in selective_scan; None: the raster order, one sequence.
        initial_state: (batch, [paths,] heads, headdim, states), float32.
        return_final_state: also return the state after the last step of each path.
        merge: what happens to the paths' outputs: "sum", "mean" or "none".
        backend: "auto", "reference", "cpu" or "gpu".

    Returns:
        (batch, length, heads, headdim) in x's dtype, for merge "none" (batch, paths, length, heads, headdim); zero at
        tokens that no path visits. With `return_final_state` also the state, shaped like `initial_state`. Both are
        differentiable.

    Raises:
        UserError: shapes that do not fit, an unknown merge or backend, a backend that cannot run, an order that leaves
            the tokens or visits one twice (checked on the CPU; on a GPU such steps are ignored).
    """
    check_choice("merge", merge, MERGES)
    given = {"x": (x, 4), "dt": (dt, 3), "A": (A, 1), "B": (B, 4), "C": (C, 4), "dt_bias": (dt_bias, 1)}
    paths, has_paths = count_paths(order, given | {"initial_state": (initial_state, 4)})
    x_, B_, C_ = (with_paths(t, 5) for t in (x, B, C))
    dt_, A_, bias_ = with_paths(dt, 4), per_path(A, paths, 2), per_path(dt_bias, paths, 2)
    state_ = None if initial_state is None else with_paths(initial_state, 5).expand(-1, paths, -1, -1, -1)
    order_ = order[None] if order is not None and order.dim() == 2 else order
    D_ = _skip(D, paths, x_)
    _check_shapes(x_, dt_, A_, B_, C_, D_, z, bias_, order_, seq_idx, state_)

    kind = torch.promote_types(torch.promote_types(x.dtype, A.dtype), dt.dtype)
    name, _ = resolve(x.device, kind, backend, (x, dt, A, B, C, D, z, dt_bias, initial_state))
    rest = (D_, z, bias_, dt_softplus, dt_limit, order_, seq_idx, state_, merge)
    if name == "reference":
        out, final_state = state_space_duality_reference(x_, dt_, A_, B_, C_, *rest)
    else:
        out, final_state = _scan(x_, dt_, A_, B_, C_, *rest, name)
    if not return_final_state:
        return out
    return out, final_state if has_paths else final_state.squeeze(1)


def _scan(
    x, dt, A, B, C, D, z, dt_bias, dt_softplus, dt_limit, order, seq_idx, initial_state, merge, backend
) -> tuple[Tensor, Tensor]:
    batch, paths = x.shape[0], A.shape[0]
    way = Paths(order, seq_idx, batch, paths, x.shape[2], x.device)
    step = dt.float() if dt_bias is None else dt.float() + dt_bias.float()[None, :, None]
    step = F.softplus(step) if dt_softplus else step
    if not dt_softplus or tuple(dt_limit) != (0.0, math.inf):
        step = step.clamp(*dt_limit)
    step = way.visit(step)
    log_decay = step * A.float().repeat_interleave(batch, 0)[:, None]
    state = None if initial_state is None else fold(initial_state)
    u = way.visit(x)
    y, final_state = state_space_duality_op(
        u, log_decay, step, None, way.visit(B), way.visit(C), way.restart, state, 1, backend
    )
    if D is not None:
        skip = D[0] if paths == 1 else D.repeat_interleave(batch, 0)[:, None]
        y = torch.addcmul(y, u, skip.to(y.dtype))
    out = way.merge(y, merge)
    if z is not None:
        gate = F.silu(z)
        out = (out * (gate[:, None] if merge == "none" else gate)).to(x.dtype)
    return out, unfold(final_state, paths)


def _skip(D: Tensor | None, paths: int, x: Tensor) -> Tensor | None:
    """D with all axes written out: (paths, heads, headdim or 1)."""
    if D is None:
        return None
    heads = x.shape[3]
    if D.dim() == 1 or (D.dim() == 2 and tuple(D.shape) in ((paths, heads), (1, heads))):
        D = D.unsqueeze(-1)
    return per_path(D, paths, 3)


def _check_shapes(x, dt, A, B, C, D, z, dt_bias, order, seq_idx, initial_state) -> None:
    check_shape("x", x, (None,) * 5)
    check_shape("B", B, (None,) * 5)
    (batch, _, length, heads, width), paths, (groups, states) = x.shape, A.shape[0], B.shape[3:]
    check_shape("x", x, (batch, (1, paths), length, heads, width))
    check_shape("dt", dt, (batch, (1, paths), length, heads))
    check_shape("A", A, (paths, heads))
    check_shape("B", B, (batch, (1, paths), length, groups, states))
    check_shape("C", C, (batch, (1, paths), length, groups, states))
    check_shape("D", D, (paths, heads, (1, width)))
    check_shape("z", z, (batch, length, heads, width))
    check_shape("dt_bias", dt_bias, (paths, heads))
    check_shape("order", order, ((1, batch), paths, None), integer=True)
    check_shape("seq_idx", seq_idx, (batch, length), integer=True)
    check_shape("initial_state", initial_state, (batch, paths, heads, width, states))
    if groups < 1 or heads % groups:
        raise UserError("heads must divide evenly into groups", given=f"{heads} heads, {groups} groups")
