"""mamba_ssm's selective scan functions (ops/selective_scan_interface.py): channels before length, as published callers pass them.

Every gradient is PyTorch's through the composed operators, so out_proj_bias, D=None and the RMSNorm weights on dt, B and C have
right ones.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.ops.causal_conv1d import causal_conv1d
from ..core.ops.selective_scan import selective_scan
from .convolution import causal_conv1d_fn


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """The selective scan of Mamba-1.

    Args:
        u, delta, z: (batch, channels, length).
        A: (channels, states), real or complex (reference backend).
        B, C: (channels, states), or (batch, [groups,] states, length); for a complex A the last axis is twice as long,
            real and imaginary parts in turn.
        D, delta_bias: (channels,).
        return_last_state: also return the state after the last token, (batch, channels, states) float32, differentiable.

    Returns:
        (batch, channels, length) in u's dtype, contiguous.
    """
    B, C = _by_token(B, C, A, u.shape[0], u.shape[2])
    out, state = selective_scan(
        u.transpose(1, 2), delta.transpose(1, 2), _single(A), B, C, D, None if z is None else z.transpose(1, 2), delta_bias,
        delta_softplus, return_final_state=True, backend=backend,
    )  # fmt: skip
    out = out.transpose(1, 2).contiguous()
    return (out, state) if return_last_state else out


def selective_scan_ref(
    u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False
):
    """selective_scan_fn as a plain loop in PyTorch."""
    return selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state, "reference")


class SelectiveScanFn:
    """selective_scan_fn as upstream's own class is called."""

    apply = staticmethod(selective_scan_fn)


def mamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
    b_rms_weight: Tensor | None = None,
    c_rms_weight: Tensor | None = None,
    dt_rms_weight: Tensor | None = None,
    b_c_dt_rms_eps: float = 1e-6,
) -> Tensor:
    """Mamba-1 from its input projection's output to its output: convolution, projections, scan, gate, output projection.

    Args:
        xz: (batch, 2 * channels, length).
        conv1d_weight: (channels, 1, width).
        x_proj_weight: (rank + states of B and C where those are not given, channels); delta_proj_weight: (channels, rank).
        out_proj_weight: (model channels, channels).
        B, C: as in selective_scan_fn; None: from x_proj.
        b_rms_weight, c_rms_weight, dt_rms_weight: weights of an RMSNorm on B, C and dt.
        checkpoint_lvl: accepted and ignored; the kernels recompute what they need.

    Returns:
        (batch, length, model channels).
    """
    y = _scanned(
        xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, D, delta_bias, B_proj_bias, C_proj_bias,
        delta_softplus, b_rms_weight, c_rms_weight, dt_rms_weight, b_c_dt_rms_eps,
    )  # fmt: skip
    return F.linear(y, out_proj_weight.to(y.dtype), None if out_proj_bias is None else out_proj_bias.to(y.dtype))


class MambaInnerFn:
    """mamba_inner_fn as upstream's own class is called."""

    apply = staticmethod(mamba_inner_fn)


def mamba_inner_ref(
    xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, out_proj_weight, out_proj_bias, A, B=None, C=None, D=None,
    delta_bias=None, B_proj_bias=None, C_proj_bias=None, delta_softplus=True,
) -> Tensor:  # fmt: skip
    """mamba_inner_fn, one public function after the other."""
    x, z = xz.chunk(2, dim=1)
    x = causal_conv1d_fn(x, conv1d_weight.squeeze(1), conv1d_bias, activation="silu")
    rank, parts = delta_proj_weight.shape[1], 2 if A.is_complex() else 1
    projected, states = F.linear(x.transpose(1, 2), x_proj_weight), parts * A.shape[1]
    delta = F.linear(projected[..., :rank], delta_proj_weight).transpose(1, 2)
    if B is None:
        B = _projected(projected[..., rank : rank + states], B_proj_bias, None, 0, parts)
    if C is None:
        C = _projected(projected[..., -states:], C_proj_bias, None, 0, parts)
    y = selective_scan_fn(x, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return F.linear(y.transpose(1, 2), out_proj_weight, out_proj_bias)


def mamba_inner_fn_no_out_proj(
    xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B=None, C=None, D=None, delta_bias=None,
    B_proj_bias=None, C_proj_bias=None, delta_softplus=True, checkpoint_lvl=1,
) -> Tensor:  # fmt: skip
    """mamba_inner_fn before its output projection, as Vim's fork has it: (batch, channels, length)."""
    return _scanned(
        xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, D, delta_bias, B_proj_bias, C_proj_bias,
        delta_softplus,
    ).transpose(1, 2).contiguous()  # fmt: skip


def bimamba_inner_fn(
    xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, out_proj_weight, out_proj_bias, A, A_b, B=None,
    C=None, D=None, delta_bias=None, B_proj_bias=None, C_proj_bias=None, delta_softplus=True, checkpoint_lvl=1,
) -> Tensor:  # fmt: skip
    """Vim's first bidirectional layer: one set of projections, a second scan backwards with the decay A_b; (batch, length, out)."""
    both = torch.stack([torch.as_tensor(A), torch.as_tensor(A_b)])
    steps = torch.arange(xz.shape[-1], device=xz.device)
    y = _scanned(
        xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, both, B, C, D, delta_bias, B_proj_bias, C_proj_bias,
        delta_softplus, order=torch.stack([steps, steps.flip(0)]),
    )  # fmt: skip
    return F.linear(y, out_proj_weight.to(y.dtype), None if out_proj_bias is None else out_proj_bias.to(y.dtype))


def _scanned(
    xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, A, B, C, D, delta_bias, B_proj_bias, C_proj_bias,
    delta_softplus, b_rms_weight=None, c_rms_weight=None, dt_rms_weight=None, eps=1e-6, order=None,
) -> Tensor:  # fmt: skip
    """Everything between the two outer projections: (batch, length, channels)."""
    x, z = xz.transpose(1, 2).chunk(2, dim=-1)
    batch, length, _ = x.shape
    x = causal_conv1d(x, conv1d_weight.squeeze(1), conv1d_bias, "silu")
    rank = delta_proj_weight.shape[1]
    parts = 2 if A.is_complex() else 1
    states = parts * A.shape[-1]
    projected = F.linear(x, x_proj_weight.to(x.dtype))
    widths = [rank, *(states if given is None else 0 for given in (B, C))]
    step, b, c = projected.split(widths, dim=-1)
    step = _normalised(step, dt_rms_weight, eps)
    B = _projected(b, B_proj_bias, b_rms_weight, eps, parts) if B is None else B
    C = _projected(c, C_proj_bias, c_rms_weight, eps, parts) if C is None else C
    B, C = _by_token(B, C, A, batch, length)
    delta = F.linear(step, delta_proj_weight.to(step.dtype))
    return selective_scan(x, delta, _single(A), B, C, D, z, delta_bias, delta_softplus, order)


def _projected(t: Tensor, bias: Tensor | None, weight: Tensor | None, eps: float, parts: int) -> Tensor:
    """B or C of every token, (batch, states, length), of its projection; a complex one's parts in turn along the length."""
    t = _normalised(t if bias is None else t + bias.to(t.dtype), weight, eps)
    return t.unflatten(-1, (-1, parts)).transpose(1, 2).flatten(2)


def _normalised(t: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    # Transformers' FalconMamba hands over weights longer than what they are for.
    return t if weight is None else F.rms_norm(t, t.shape[-1:], weight[: t.shape[-1]].to(t.dtype), eps)


def _by_token(B: Tensor, C: Tensor, A: Tensor, batch: int, length: int) -> list[Tensor]:
    """B and C as selective_scan takes them: (batch, length, groups, states), of as many groups each."""
    found = []
    for t in (B, C):
        if t.dim() == 2:
            # Constant over tokens but with a row for each channel: as many groups as channels.
            t = t[None, None].expand(batch, length, -1, -1)
        else:
            if A.is_complex() and not t.is_complex():
                t = torch.view_as_complex(_single(t).unflatten(-1, (-1, 2)).contiguous())
            t = (t.unsqueeze(1) if t.dim() == 3 else t).movedim(-1, 1)
        found.append(t)
    groups = max(t.shape[2] for t in found)
    return [t if t.shape[2] == groups else t.repeat_interleave(groups // t.shape[2], 2) for t in found]


def _single(t: Tensor) -> Tensor:
    """In float32 at least."""
    return t.to(torch.promote_types(t.dtype, torch.float32))
