"""Selective scan (S6), the recurrence of Mamba-1, over any number of paths through the tokens.

reference.py defines it, cpu.py (Numba) and gpu.py (Triton) compute it fast, registration.py makes it a PyTorch operator.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

import torch
from torch import Tensor

from ...errors import check_choice
from ..arguments import MERGES, Shapes, check_groups
from ..backends import KERNEL_DTYPES, resolve
from ..decoding import direct
from .reference import selective_scan_reference
from .registration import selective_scan_op

__all__ = ["selective_scan", "selective_scan_reference"]

ROWS, READ = "batch paths length channels", "batch paths length groups states"
SHAPES = Shapes(
    {"x": ROWS, "delta": ROWS, "A": "paths channels states", "B": READ, "C": READ, "D": "paths channels"}
    | {"z": "batch length channels", "delta_bias": "paths channels", "initial_state": "batch paths channels states"},
    each=["initial_state"],
)


def selective_scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    order: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    merge: str = "sum",
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Selective state space scan along one or many paths (Mamba, arXiv 2312.00752, algorithm 2).

    Along each path: h = exp(Δ A) h + Δ B x and y = C h + D x, with Δ = softplus(delta + delta_bias) where asked for. All
    tensors are indexed by token; `order` alone says how a path walks. The paths axis may be left out of every argument
    that is the same for all paths, and of all where there is one path.

    Args:
        x: (batch, length, channels) or (batch, paths, length, channels), what sits at each token.
        delta: (batch, [paths,] length, channels), step size before bias and softplus.
        A: ([paths,] channels, states), negative; float32 or float64. Complex: reference backend only.
        B, C: (batch, [paths,] length, [groups,] states); channels are split evenly over groups. Four axes are read as
            paths and length where both match, else as length and groups.
        D, delta_bias: ([paths,] channels).
        z: (batch, length, channels), a gate: the merged output is multiplied by silu(z).
        order: (paths, steps) or (batch, paths, steps), integer: the token visited at each step, each at most once a
            path; None: the raster order. A path may visit some of the tokens; -1 ends a short path.
        seq_idx: (batch, length), integer: the state restarts from zero where it changes along a path (packing).
        initial_state: (batch, [paths,] channels, states), float32.
        return_final_state: also return the state after the last step of each path.
        merge: what happens to the paths' outputs: "sum", "mean" or "none".
        backend: "auto", "reference", "cpu" or "gpu".

    Returns:
        (batch, length, channels) in x's dtype, for merge "none" (batch, paths, length, channels); zero at tokens that no
        path visits. With `return_final_state` also the state, shaped like `initial_state`. Both are differentiable.

    Raises:
        UserError: shapes that do not fit, an unknown merge or backend, a backend that cannot run, an order that leaves
            the tokens or visits one twice (checked on the CPU; on a GPU such steps are ignored).
    """
    check_choice("merge", merge, MERGES)
    if order is None and direct(x, backend) and x.dim() == 3 and x.shape[1] == 1 and x.numel():
        found = _decode(x, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, merge)
        if found is not None:
            return found if return_final_state else found[0]
    given = {"x": x, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z}
    given |= {"delta_bias": delta_bias, "initial_state": initial_state}
    paths, has_paths = SHAPES.count_paths(order, given)
    given |= {name: _with_groups(given[name], paths, x.shape[-2]) for name in "BC"}
    *tensors, state, order = SHAPES.written_out(paths, given, order, seq_idx)
    check_groups(x.shape[-1], tensors[3].shape[3], "channels")

    kind = torch.promote_types(torch.promote_types(x.dtype, A.dtype), delta.dtype)
    name, _ = resolve(x.device, kind, backend, (x, delta, A, B, C, D, z, delta_bias, initial_state))
    arguments = (*tensors, delta_softplus, order, seq_idx, state, merge)
    if name == "reference":
        out, final_state = selective_scan_reference(*arguments)
    else:
        out, final_state = selective_scan_op(*arguments, name)
    if not return_final_state:
        return out
    return out, final_state if has_paths else final_state.squeeze(1)


def _decode(x, delta, A, B, C, D, z, delta_bias, delta_softplus, state, merge) -> tuple[Tensor, Tensor] | None:
    """One token the quick way; None where that does not know the case, or the shapes do not fit."""
    batch, _, channels = x.shape
    rows, shared = (batch, 1, channels), (batch, 1, A.shape[-1])
    given = ((delta, rows), (B, shared), (C, shared), (A, (channels, A.shape[-1])), (D, (channels,)), (z, rows))
    given += ((delta_bias, (channels,)), (state, (batch, *A.shape)))
    if (
        merge == "none"
        or any(t is not None and (t.shape != shape or not _plain(t)) for t, shape in given)
        or not _plain(x)
    ):
        return None
    return _decoding()(x, delta, A, B, C, D, z, delta_bias, delta_softplus, state)


def _plain(tensor: Tensor) -> bool:
    return tensor.dtype in KERNEL_DTYPES and tensor.device.type == "cpu"


@cache
def _decoding():
    return import_module(".decode", __package__).decode


def _with_groups(tensor: Tensor, paths: int, length: int) -> Tensor:
    if tensor.dim() == 3:
        return tensor[:, None, :, None]
    if tensor.dim() == 4:
        is_paths = tensor.shape[1] in (1, paths) and tensor.shape[2] == length
        return tensor.unsqueeze(3) if is_paths else tensor.unsqueeze(1)
    return tensor
