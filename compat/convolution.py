"""causal_conv1d's functions: (batch, channels, length), states of the last inputs.

Results are laid out in memory as x is, channels or tokens innermost. Where a sequence number or a slot is negative there is
padding: its result is zero, and nothing is learned from it.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.ops.causal_conv1d import causal_conv1d, causal_conv1d_decode


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Depthwise causal convolution.

    Args:
        x: (batch, channels, length).
        weight: (channels, width), any width.
        seq_idx: (batch, length), integer, packing; unlike upstream it goes together with states. Negative: padding.
        initial_states: (batch, channels, width - 1), the inputs before the first token, oldest first.
        final_states_out: where the final state is also written.
        activation: None, "silu" or "swish".

    Returns:
        (batch, channels, length), with return_final_states also (batch, channels, width - 1).
    """
    return _convolved(
        x, weight, bias, seq_idx, initial_states, return_final_states, final_states_out, activation, "auto"
    )


def causal_conv1d_ref(
    x, weight, bias=None, initial_states=None, return_final_states=False, final_states_out=None, activation=None, seq_idx=None
):  # fmt: skip
    """causal_conv1d_fn in plain PyTorch."""
    return _convolved(
        x, weight, bias, seq_idx, initial_states, return_final_states, final_states_out, activation, "reference"
    )


class CausalConv1dFn:
    """causal_conv1d_fn as upstream's own class is called."""

    apply = staticmethod(causal_conv1d_fn)


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
    pad_slot_id: int = -1,
) -> Tensor:
    """Convolve the next token or tokens and move conv_state on, in place.

    Args:
        x: (batch, channels) or (batch, channels, new tokens).
        conv_state: (slots, channels, at least width - 1), the last inputs, oldest first; a ring buffer where cache_seqlens
            is given.
        weight: (channels, width).
        cache_seqlens: (batch,) int32, tokens seen so far.
        conv_state_indices: (batch,) int32, the slot of each sequence; negative or pad_slot_id: padding, no slot is touched.

    Returns:
        Shaped like x, zero for padding.
    """
    batch, width, kept = x.shape[0], weight.shape[1], conv_state.shape[-1]
    new = x.unsqueeze(-1) if x.dim() == 2 else x
    if kept < width - 1:
        raise UserError(
            "conv_state is too short", given=f"{kept} inputs", allowed=f"at least width - 1 = {width - 1} inputs"
        )
    if conv_state_indices is None and cache_seqlens is None:
        out = causal_conv1d_decode(new.transpose(1, 2), weight, bias, _activation(activation), conv_state)
        if out is not None:
            return out.view(x.shape)
    slot = torch.arange(batch, device=x.device) if conv_state_indices is None else conv_state_indices.long()
    used = (slot >= 0) & (slot != pad_slot_id)
    state = conv_state if conv_state_indices is None else conv_state[slot.where(used, 0)]
    if cache_seqlens is None:
        before = state[..., kept - (width - 1) :]
        after = torch.cat([state, new.detach().to(state.dtype)], -1)[..., -kept:]
    else:
        before, after = _ring(new.detach(), state, width, cache_seqlens)
    out = causal_conv1d(new.transpose(1, 2), weight, bias, _activation(activation), initial_state=before)
    with torch.no_grad():
        if conv_state_indices is None:
            conv_state.copy_(after)
        else:
            conv_state[slot[used]] = after[used]
            out = out.masked_fill(~used[:, None, None], 0)
    return _as(out, new).view(x.shape)


def causal_conv1d_update_ref(x, conv_state, weight, bias=None, activation=None, cache_seqlens=None):
    """causal_conv1d_update, where every sequence has its own state."""
    # With a list of slots no quick way is taken.
    slots = torch.arange(x.shape[0], device=x.device)
    return causal_conv1d_update(x, conv_state, weight, bias, activation, cache_seqlens, slots)


def causal_conv1d_varlen_states(x: Tensor, cu_seqlens: Tensor, state_len: int) -> Tensor:
    """The last inputs of packed sequences, zeros before those that are shorter.

    Args:
        x: (tokens, channels). cu_seqlens: (sequences + 1,), where they begin and the last ends. state_len: inputs kept.

    Returns:
        (sequences, channels, state_len) in x's dtype.
    """
    start, stop = cu_seqlens[:-1, None].long(), cu_seqlens[1:, None].long()
    place = stop + torch.arange(-state_len, 0, device=x.device)
    kept = x[place.clamp_min(0)] if len(x) else x.new_zeros(*place.shape, x.shape[1])
    return kept.masked_fill((place < start)[..., None], 0).transpose(1, 2)


def causal_conv1d_varlen_states_ref(x, cu_seqlens, state_len):
    """causal_conv1d_varlen_states, one sequence after the other."""
    kept = x.new_zeros(len(cu_seqlens) - 1, state_len, x.shape[1])
    for row, (begin, end) in zip(kept, itertools.pairwise(cu_seqlens.tolist()), strict=True):
        count = min(state_len, end - begin)
        row[state_len - count :] = x[end - count : end]
    return kept.transpose(1, 2)


def causal_conv1d_fwd_function(x, weight, bias, seq_idx, initial_states, final_states_out, silu_activation) -> Tensor:
    """causal_conv1d_fn with the arguments of upstream's operator."""
    activation = "silu" if silu_activation else None
    return causal_conv1d_fn(x, weight, bias, seq_idx, initial_states, False, final_states_out, activation)


def causal_conv1d_bwd_function(
    x, weight, bias, dout, seq_idx, initial_states, dfinal_states, dx, return_dinitial_states, silu_activation
) -> tuple[Tensor | None, ...]:
    """The gradients of x (also written to dx where given), weight, bias and, if asked for, the initial states."""
    wanted = [x, weight, bias, initial_states if return_dinitial_states else None]
    with torch.enable_grad():
        given = [None if t is None else t.detach().requires_grad_() for t in wanted]
        before = given[3] if return_dinitial_states else initial_states
        out, state = causal_conv1d_fn(*given[:3], seq_idx, before, True, None, "silu" if silu_activation else None)
        results, gradients = ([out], [dout]) if dfinal_states is None else ([out, state], [dout, dfinal_states])
        known = [t for t in given if t is not None]
        found = iter(torch.autograd.grad(results, known, gradients))
    grad_x, *others = (None if t is None else next(found) for t in given)
    return (grad_x if dx is None else dx.copy_(grad_x), *others)


def causal_conv1d_update_function(
    x, conv_state, weight, bias, silu_activation, cache_seqlens=None, conv_state_indices=None
) -> Tensor:
    """causal_conv1d_update with the arguments of upstream's operator."""
    activation = "silu" if silu_activation else None
    return causal_conv1d_update(x, conv_state, weight, bias, activation, cache_seqlens, conv_state_indices)


def _convolved(
    x, weight, bias, seq_idx, initial_states, return_final_states, final_states_out, activation, backend
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    tokens = without_padding(x.transpose(1, 2), seq_idx)
    out, state = causal_conv1d(
        tokens, weight, bias, _activation(activation), None, seq_idx, initial_states, return_final_state=True,
        backend=backend,
    )  # fmt: skip
    out, state = _as(without_padding(out, seq_idx), x), state.to(x.dtype)
    if final_states_out is not None:
        with torch.no_grad():
            final_states_out.copy_(state)
    return (out, state) if return_final_states else out


def without_padding(tokens: Tensor, seq_idx: Tensor | None) -> Tensor:
    """(batch, length, channels), zero where the sequence number is negative."""
    return tokens if seq_idx is None else tokens.masked_fill((seq_idx < 0)[..., None], 0)


def _as(out: Tensor, x: Tensor) -> Tensor:
    """(batch, length, channels) as (batch, channels, length) with tokens innermost in memory where x has them so."""
    out = out.transpose(1, 2)
    return out.contiguous() if x.stride(2) == 1 and x.shape[2] > 1 else out


def _ring(new: Tensor, state: Tensor, width: int, cache_seqlens: Tensor) -> tuple[Tensor, Tensor]:
    """The last width - 1 inputs, and the state after the new ones, where token t's input lies at place t % kept of it."""
    (_, channels, count), kept = new.shape, state.shape[-1]
    seen, last = cache_seqlens.long()[:, None], min(count, kept)

    def places(start: int, stop: int) -> Tensor:
        return ((seen + torch.arange(start, stop, device=new.device)) % kept)[:, None].expand(-1, channels, -1)

    before = state.gather(2, places(1 - width, 0))
    return before, state.scatter(2, places(count - last, count), new[..., count - last :].to(state.dtype))


def _activation(name: str | None) -> str | None:
    if name not in (None, "silu", "swish"):
        raise UserError(f"unknown activation {name!r}", given=name, allowed=("silu", "swish", None))
    return None if name is None else "silu"
