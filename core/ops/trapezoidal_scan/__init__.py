"""The trapezoidal scan, the recurrence of Mamba-3, over any number of paths through the tokens.

reference.py defines it. The fast backends are those of state_space_duality: a step tells later ones with its own weight
λ_s Δ_s and with (1 - λ_{s+1}) Δ_{s+1} of the step after it, which together are one weight a step, and itself with the first alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import check_choice
from ..arguments import MERGES, Shapes, check_groups
from ..backends import resolve
from ..paths import Paths, fold, unfold
from ..state_space_duality.registration import state_space_duality_op
from .reference import trapezoidal_scan_reference

__all__ = ["TrapezoidalState", "trapezoidal_scan", "trapezoidal_scan_reference"]

STEPS, READ = "batch paths length heads", "batch paths length rank groups states"
STATES = ("initial_state.h", "initial_state.B", "initial_state.x")
SHAPES = Shapes(
    {
        "x": "batch paths length rank heads headdim",
        "log_decay": STEPS,
        "dt": STEPS,
        "trapezoid": STEPS,
        "B": READ,
        "C": READ,
    }
    | {"D": "paths heads", STATES[0]: "batch paths heads headdim states", STATES[1]: "batch paths rank groups states"}
    | {STATES[2]: "batch paths rank heads headdim"},
    each=STATES,
)


class TrapezoidalState(NamedTuple):
    """What a sequence leaves behind, float32.

    h: (batch, [paths,] heads, headdim, states).
    B: (batch, [paths,] rank, groups, states) and x: (batch, [paths,] rank, heads, headdim) of the last step.
    """

    h: Tensor
    B: Tensor
    x: Tensor


def trapezoidal_scan(
    x: Tensor,
    log_decay: Tensor,
    dt: Tensor,
    trapezoid: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    order: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_state: TrapezoidalState | None = None,
    return_final_state: bool = False,
    merge: str = "sum",
    backend: str = "auto",
) -> Tensor | tuple[Tensor, TrapezoidalState]:
    """State space scan with a generalised trapezoidal rule, along one or many paths (Mamba-3, arXiv 2603.15569).

    Along each path, per head, with a = exp(log_decay), Δ = dt, λ = trapezoid, sums over the R rows of a step:
    h = a h + (1 - λ) Δ a x' B'^T + λ Δ x B^T with x', B' of the step before, and y_r = h C_r + D x_r. All tensors are
    indexed by token; the paths axis may be left out of every argument that is the same for all paths.

    Args:
        x: (batch, [paths,] length, rank, heads, headdim), what sits at each token.
        log_decay, dt, trapezoid: (batch, [paths,] length, heads), at most 0; positive; 0 to 1.
        B, C: (batch, [paths,] length, rank, groups, states); heads are split evenly over groups.
        D: ([paths,] heads).
        order, seq_idx: as in selective_scan; None: the raster order, one sequence.
        initial_state: what came before the first step; None: nothing.
        return_final_state: also return the state after the last step of each path.
        merge: what happens to the paths' outputs: "sum", "mean" or "none".
        backend: "auto", "reference", "cpu" or "gpu".

    Returns:
        (batch, length, rank, heads, headdim) in x's dtype, for merge "none" with a paths axis; zero at tokens that no path
        visits. With `return_final_state` also the state. Both are differentiable.

    Raises:
        UserError: shapes that do not fit, an unknown merge or backend, a backend that cannot run, an order that leaves
            the tokens or visits one twice (checked on the CPU).
    """
    check_choice("merge", merge, MERGES)
    given = {"x": x, "log_decay": log_decay, "dt": dt, "trapezoid": trapezoid, "B": B, "C": C, "D": D}
    given |= dict(zip(STATES, initial_state or (None,) * 3, strict=True))
    paths, has_paths = SHAPES.count_paths(order, given)
    x_, *steps, B_, C_, D_, h, k, v, order_ = SHAPES.written_out(paths, given, order, seq_idx)
    state_ = None if initial_state is None else (h, k, v)
    check_groups(x.shape[-2], B_.shape[4], "heads")

    kind = torch.promote_types(x.dtype, log_decay.dtype)
    name, _ = resolve(x.device, kind, backend, (x, log_decay, dt, trapezoid, B, C, D, *(initial_state or ())))
    if name == "reference":
        x_ = x_.expand(-1, paths, *(-1,) * 4)
        out, state = trapezoidal_scan_reference(x_, *steps, B_, C_, D_, order_, seq_idx, state_, merge)
    else:
        out, state = _scan(paths, x_, *steps, B_, C_, D_, order_, seq_idx, state_, merge, name)
    if not return_final_state:
        return out
    return out, TrapezoidalState(*(state if has_paths else (t.squeeze(1) for t in state)))


def _scan(paths, x, log_decay, dt, trapezoid, B, C, D, order, seq_idx, state, merge, backend):
    batch, rank = x.shape[0], x.shape[3]
    way = Paths(order, seq_idx, batch, paths, x.shape[2], x.device)
    log_decay, dt, trapezoid = (way.visit(t.float()) for t in (log_decay, dt, trapezoid))
    u, b, c = (way.visit(t) for t in (x, B, C))
    own, before = trapezoid * dt, (1 - trapezoid) * dt
    if way.restart is not None:
        before = before.masked_fill(way.restart[..., None], 0)
    weight = own + F.pad(before, (0, 0, 0, 1))[:, 1:]
    h, k, v = (None,) * 3 if state is None else (fold(t).float() for t in state)
    if state is not None and way.steps:
        h = h + before[:, 0, :, None, None] * _outer(v, k)
    skip = None if D is None else (D if paths == 1 else D.repeat_interleave(batch, 0)).float()
    y, h = state_space_duality_op(
        u.flatten(1, 2), log_decay, weight, own, b.flatten(1, 2), c.flatten(1, 2), way.restart, h, rank, skip, backend
    )
    y = y.unflatten(1, (-1, rank))
    state = (h, _last(b, k, way), _last(u, v, way))
    return way.merge(y, merge), tuple(unfold(t, paths) for t in state)


def _outer(x: Tensor, B: Tensor) -> Tensor:
    """sum_r x_r B_r^T of (batch, rank, heads, headdim) and (batch, rank, groups, states)."""
    B = B.repeat_interleave(x.shape[2] // B.shape[2], dim=2)
    return x.permute(0, 2, 3, 1) @ B.transpose(1, 2)


def _last(values: Tensor, before: Tensor | None, way: Paths) -> Tensor:
    """What the last visited step of (paths * batch, steps, ...) holds, else what came before, else zeros; float32, a copy."""
    if before is None:
        before = values.new_zeros(values.shape[0], *values.shape[2:], dtype=torch.float32)
    if not way.steps:
        return before.clone()
    if way.complete:
        return values[:, -1].to(torch.float32, copy=True)
    count = way.visited.sum(1).reshape(-1, *(1,) * (values.dim() - 1))
    index = (count - 1).clamp_min(0).expand(-1, 1, *values.shape[2:])
    return torch.where(count[:, 0] > 0, values.gather(1, index)[:, 0].float(), before)
