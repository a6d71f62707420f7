"""mamba_ssm's functions of state space duality (ops/triton/ssd_combined.py)."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import UserError
from ..core.ops.causal_conv1d import causal_conv1d
from ..core.ops.selective_scan import selective_scan
from ..core.ops.state_space_duality import state_space_duality
from ..core.packing import seq_idx_from_cu_seqlens
from .convolution import without_padding
from .duality_stages import mamba_chunk_scan
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


def ssd_selective_scan(
    x, dt, A, B, C, D=None, z=None, dt_bias=None, dt_softplus=False, dt_limit=(0.0, math.inf)
) -> Tensor:
    """The scan of Mamba-2 as one of Mamba-1, whose channels are the heads' (arguments as mamba_chunk_scan_combined's).

    dt may be (batch, length, heads, headdim), A (heads * headdim, states), dt_bias and D (heads, headdim).
    """
    heads, headdim = x.shape[2:]

    def by_channel(t: Tensor | None, axis: int) -> Tensor | None:
        """A number a head, at `axis`, as one of each of its channels."""
        return t if t is None else t.repeat_interleave(headdim, axis)

    A = by_channel(A, 0)[:, None].expand(-1, B.shape[-1]) if A.dim() == 1 else A
    D, dt_bias = (t if t is None else by_channel(t, 0) if t.dim() == 1 else t.flatten() for t in (D, dt_bias))
    step = by_channel(dt, 2) if dt.dim() == 3 else dt.flatten(2)
    if tuple(dt_limit) != (0.0, math.inf):
        step = step if dt_bias is None else step + dt_bias
        step = (F.softplus(step) if dt_softplus else step).clamp(*dt_limit).to(x.dtype)
        dt_bias, dt_softplus = None, False
    gate = None if z is None else z.flatten(2)
    y = selective_scan(x.flatten(2), step, A.float(), B, C, D, gate, dt_bias, dt_softplus)
    return y.unflatten(-1, (heads, headdim))


def ssd_chunk_scan_combined_ref(x, dt, A, B, C, chunk_size, D=None, z=None, dt_bias=None, dt_softplus=False) -> Tensor:
    """mamba_chunk_scan_combined, stage by stage in plain PyTorch."""
    return mamba_chunk_scan(x, dt, A, B, C, chunk_size, D, z, dt_bias, dt_softplus)


def mamba_conv1d_scan_ref(
    xBC, conv1d_weight, conv1d_bias, dt, A, chunk_size, D=None, z=None, dt_bias=None, dt_softplus=False, dt_limit=(0.0, math.inf),
    activation="silu", headdim=None, ngroups=1,
) -> Tensor:  # fmt: skip
    """Convolution and scan, (batch, length, channels).

    Args:
        xBC: (batch, length, channels + 2 * groups * states). z: (batch, length, channels).
        headdim: needed where z is None and D has one number a head.
    """
    heads = dt.shape[2]
    if z is None and headdim is None and (D is None or D.dim() == 1):
        raise UserError("headdim is needed where neither z nor D says it", do="headdim=channels // heads")
    channels = z.shape[-1] if z is not None else heads * (D.shape[1] if D is not None and D.dim() == 2 else headdim)
    xBC = causal_conv1d(xBC, conv1d_weight, conv1d_bias, "silu" if activation == "swish" else activation)
    x, B, C = xBC.tensor_split((channels, (channels + xBC.shape[-1]) // 2), dim=-1)
    B, C = (t.unflatten(-1, (ngroups, -1)) for t in (B, C))
    x, gate = x.unflatten(-1, (heads, -1)), None if z is None else z.unflatten(-1, (heads, -1))
    return ssd_selective_scan(x, dt.to(x.dtype), A, B, C, D, gate, dt_bias, dt_softplus, dt_limit).flatten(2)


def mamba_split_conv1d_scan_ref(
    zxbcdt, conv1d_weight, conv1d_bias, dt_bias, A, D, chunk_size, dt_limit=(0.0, math.inf), activation="silu",
    rmsnorm_weight=None, rmsnorm_eps=1e-6, outproj_weight=None, outproj_bias=None, headdim=None, ngroups=1, norm_before_gate=True,
) -> Tensor:  # fmt: skip
    """mamba_split_conv1d_scan_combined, one public function after the other; the norm is over all channels."""
    heads, convolved = A.shape[0], conv1d_weight.shape[0]
    channels = heads * (headdim if D.dim() == 1 else D.shape[1])
    z, xBC, dt = zxbcdt.split([channels, convolved, heads], dim=-1)
    y = mamba_conv1d_scan_ref(
        xBC, conv1d_weight, conv1d_bias, dt, A, chunk_size, D, z if rmsnorm_weight is None else None, dt_bias, True, dt_limit,
        activation, channels // heads, ngroups,
    )  # fmt: skip
    if rmsnorm_weight is not None:
        y = rmsnorm_fn(y, rmsnorm_weight, None, z, rmsnorm_eps, None, norm_before_gate)
    return y if outproj_weight is None else F.linear(y, outproj_weight, outproj_bias)
