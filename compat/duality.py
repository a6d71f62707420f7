"""mamba_ssm's functions of state space duality (ops/triton/ssd_combined.py)."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import UserError
from ..core.ops.causal_conv1d import causal_conv1d
from ..core.ops.state_space_duality import state_space_duality
from ..core.packing import seq_idx_from_cu_seqlens
from .convolution import without_padding
from .norms import rmsnorm_fn


def mamba_chunk_scan_combined(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int | None = None,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    return_final_states: bool = False,
    return_varlen_states: bool = False,
    state_dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, ...]:
    """The scan of Mamba-2.

    Args:
        x, z: (batch, length, heads, headdim). dt: (batch, length, heads). A: (heads,).
        B, C: (batch, length, groups, states). D: (heads,) or (heads, headdim).
        chunk_size: accepted and ignored; it never changes the result.
        initial_states: (batch, heads, headdim, states), differentiable.
        seq_idx: (batch, length), packing.
        cu_seqlens: (sequences + 1,), ends of the sequences packed in one row: with return_varlen_states their final
            states are returned, (sequences, heads, headdim, states); differentiable.
        state_dtype: of the returned states; None: float32.

    Returns:
        (batch, length, heads, headdim) in x's dtype, then the final states, then those of the packed sequences, as asked.
    """
    if return_varlen_states and (cu_seqlens is None or x.shape[0] != 1):
        raise UserError(
            "return_varlen_states needs sequences packed in one row", given=f"batch {x.shape[0]}, cu_seqlens {cu_seqlens}",
            allowed="batch 1 with cu_seqlens",
        )  # fmt: skip

    A = A.to(torch.promote_types(A.dtype, torch.float32))

    def scan(part: slice, seq_idx: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
        return state_space_duality(
            x[:, part], dt[:, part], A, B[:, part], C[:, part], D, None if z is None else z[:, part], dt_bias, dt_softplus,
            dt_limit, seq_idx=seq_idx, initial_state=state, return_final_state=True, backend=backend,
        )  # fmt: skip

    varlen = None
    if return_varlen_states:
        ends = cu_seqlens.tolist()
        pieces = [
            scan(slice(begin, end), None, initial_states if begin == 0 else None)
            for begin, end in itertools.pairwise(ends)
        ]
        out, varlen = torch.cat([y for y, _ in pieces], 1), torch.cat([state for _, state in pieces])
        final = varlen[-1:].clone()
    else:
        seq_idx = (
            seq_idx_from_cu_seqlens(cu_seqlens, x.shape[1]) if seq_idx is None and cu_seqlens is not None else seq_idx
        )
        out, final = scan(slice(None), seq_idx, initial_states)
    found = [out]
    for state, wanted in ((final, return_final_states), (varlen, return_varlen_states)):
        if wanted:
            found.append(state if state_dtype is None else state.to(state_dtype))
    return found[0] if len(found) == 1 else tuple(found)


def mamba_split_conv1d_scan_combined(
    zxbcdt: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    chunk_size: int | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    return_final_states: bool = False,
    activation: str = "silu",
    rmsnorm_weight: Tensor | None = None,
    rmsnorm_eps: float = 1e-6,
    outproj_weight: Tensor | None = None,
    outproj_bias: Tensor | None = None,
    headdim: int | None = None,
    ngroups: int = 1,
    norm_before_gate: bool = True,
    state_dtype: torch.dtype | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Mamba-2 from its input projection's output on: convolution, scan, gated norm, output projection.

    Args:
        zxbcdt: (batch, length, [2 * MLP channels +] 2 * channels + 2 * groups * states + heads).
        conv1d_weight: (channels + 2 * groups * states, width).
        D: (heads,), then headdim is needed, or (heads, headdim).
        rmsnorm_weight: (channels,); None: the gate alone. outproj_weight: (out, channels); None: no projection.

    Returns:
        (batch, length, out), with return_final_states also (batch, heads, headdim, states) float32.
    """
    heads = A.shape[0]
    if D.dim() == 1 and headdim is None:
        raise UserError("headdim is needed where D has one number a head", do="headdim=channels // heads")
    channels = heads * (headdim if D.dim() == 1 else D.shape[1])
    convolved = conv1d_weight.shape[0]
    extra = zxbcdt.shape[-1] - channels - convolved - heads
    mlp, z, xBC, dt = zxbcdt.split([extra, channels, convolved, heads], dim=-1)
    xBC = causal_conv1d(
        without_padding(xBC, seq_idx),
        conv1d_weight,
        conv1d_bias,
        "silu" if activation == "swish" else activation,
        None,
        seq_idx,
    )
    xBC = without_padding(xBC, seq_idx)
    x, B, C = xBC.split([channels, (convolved - channels) // 2, (convolved - channels) // 2], dim=-1)
    y, state = mamba_chunk_scan_combined(
        x.unflatten(-1, (heads, -1)), dt, A, B.unflatten(-1, (ngroups, -1)), C.unflatten(-1, (ngroups, -1)), chunk_size, D,
        z.unflatten(-1, (heads, -1)) if rmsnorm_weight is None else None, dt_bias, initial_states, seq_idx, None, True, dt_limit,
        True, state_dtype=state_dtype,
    )  # fmt: skip
    y = y.flatten(-2)
    if rmsnorm_weight is not None:
        y = rmsnorm_fn(y, rmsnorm_weight, None, z, rmsnorm_eps, channels // ngroups, norm_before_gate)
    if extra:
        gate, value = mlp.chunk(2, dim=-1)
        y = torch.cat([F.silu(gate) * value, y], dim=-1)
    if outproj_weight is not None:
        y = F.linear(y, outproj_weight.to(y.dtype), None if outproj_bias is None else outproj_bias.to(y.dtype))
    return (y, state) if return_final_states else y


class MambaChunkScanCombinedFn:
    """mamba_chunk_scan_combined as upstream's own class is called."""

    apply = staticmethod(mamba_chunk_scan_combined)


class MambaSplitConv1dScanCombinedFn:
    """mamba_split_conv1d_scan_combined as upstream's own class is called."""

    apply = staticmethod(mamba_split_conv1d_scan_combined)
