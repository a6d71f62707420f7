"""State space duality (SSD), the recurrence of Mamba-2, over any number of paths through the tokens.

reference.py defines it, cpu.py (matrix products) and gpu.py (Triton) compute it fast, registration.py makes it a PyTorch
operator over dense sequences; the paths, the step sizes, D and the gate around it are plain PyTorch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import check_choice
from ..arguments import MERGES, Shapes, check_groups, check_shape
from ..backends import resolve
from ..paths import Paths, fold, unfold
from .reference import state_space_duality_reference
from .registration import state_space_duality_op

__all__ = ["state_space_duality", "state_space_duality_reference"]

ROWS, READ = "batch paths length heads headdim", "batch paths length groups states"
SHAPES = Shapes(
    {"x": ROWS, "dt": "batch paths length heads", "A": "paths heads", "B": READ, "C": READ, "D": "paths heads skips"}
    | {
        "z": "batch length heads headdim",
        "dt_bias": "paths heads",
        "initial_state": "batch paths heads headdim states",
    },
    each=["initial_state"],
)


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
    given = {"x": x, "dt": dt, "A": A, "B": B, "C": C, "D": None, "z": z, "dt_bias": dt_bias}
    given |= {"initial_state": initial_state}
    paths, has_paths = SHAPES.count_paths(order, given)
    given["D"] = _skip(D, paths, x.shape[-2])
    x_, dt_, A_, B_, C_, D_, z, bias_, state_, order_ = SHAPES.written_out(paths, given, order, seq_idx)
    check_shape("D", D_, (None, None, (1, x.shape[-1])))
    check_groups(x.shape[-2], B_.shape[3], "heads")

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
    D = D if D is None or paths == 1 else D.repeat_interleave(batch, 0)
    skip = None if D is None or D.shape[2] > 1 else D[:, :, 0].float()
    y, final_state = state_space_duality_op(
        u, log_decay, step, None, way.visit(B), way.visit(C), way.restart, state, 1, skip, backend
    )
    if D is not None and skip is None:
        y = torch.addcmul(y, u, D[:, None].to(y.dtype))
    out = way.merge(y, merge)
    if z is not None:
        gate = F.silu(z)
        out = (out * (gate[:, None] if merge == "none" else gate)).to(x.dtype)
    return out, unfold(final_state, paths)


def _skip(D: Tensor | None, paths: int, heads: int) -> Tensor | None:
    """D with the axis of the headdim: ([paths,] heads, headdim or 1)."""
    if D is not None and (D.dim() == 1 or (D.dim() == 2 and tuple(D.shape) in ((paths, heads), (1, heads)))):
        return D.unsqueeze(-1)
    return D
