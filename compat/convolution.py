"""causal_conv1d's functions: (batch, channels, length), states of the last inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.ops.causal_conv1d import causal_conv1d, causal_conv1d_step


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
        seq_idx: (batch, length), integer, packing; unlike upstream it goes together with states.
        initial_states: (batch, channels, width - 1), the inputs before the first token, oldest first.
        final_states_out: where the final state is also written.
        activation: None, "silu" or "swish".

    Returns:
        (batch, channels, length), with return_final_states also (batch, channels, width - 1).
    """
    out, state = causal_conv1d(
        x.transpose(1, 2), weight, bias, _activation(activation), None, seq_idx, initial_states, return_final_state=True
    )
    out, state = out.transpose(1, 2), state.to(x.dtype)
    if final_states_out is not None:
        with torch.no_grad():
            final_states_out.copy_(state)
    return (out, state) if return_final_states else out


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """Convolve the next token or tokens and move conv_state on, in place.

    Args:
        x: (batch, channels) or (batch, channels, new tokens).
        conv_state: (slots, channels, at least width - 1), the last inputs, oldest first; a ring buffer where cache_seqlens
            is given.
        weight: (channels, width).
        cache_seqlens: (batch,) int32, tokens seen so far.
        conv_state_indices: (batch,) int32, the slot of each sequence; negative: padding, left alone.

    Returns:
        Shaped like x.
    """
    batch, width, kept = x.shape[0], weight.shape[1], conv_state.shape[-1]
    new = x.unsqueeze(-1) if x.dim() == 2 else x
    if kept < width - 1:
        raise UserError(
            "conv_state is too short", given=f"{kept} inputs", allowed=f"at least width - 1 = {width - 1} inputs"
        )
    if conv_state_indices is None and cache_seqlens is None:
        out = causal_conv1d_step(new.transpose(1, 2), weight, bias, _activation(activation), conv_state)
        if out is not None:
            return out.view(x.shape)
    slot = torch.arange(batch, device=x.device) if conv_state_indices is None else conv_state_indices.long()
    used = slot >= 0
    everything = conv_state_indices is None
    state = conv_state if everything else conv_state[slot.clamp_min(0)]
    if cache_seqlens is not None:
        return _ring(x, new, conv_state, state, weight, bias, activation, cache_seqlens, slot, used)
    before = state[..., kept - (width - 1) :]
    out, _ = causal_conv1d(
        new.transpose(1, 2), weight, bias, _activation(activation), initial_state=before, return_final_state=True
    )
    out = out.transpose(1, 2)
    with torch.no_grad():
        after = torch.cat([state, new.to(state.dtype)], -1)[..., -kept:]
        if everything:
            conv_state.copy_(after)
        else:
            conv_state[slot[used]] = after[used]
    return out.squeeze(-1) if x.dim() == 2 else out


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


def _ring(x, new, conv_state, state, weight, bias, activation, cache_seqlens, slot, used) -> Tensor:
    """The update where token t's input lies at place t % kept of the state."""
    kept, width, count = conv_state.shape[-1], weight.shape[1], new.shape[-1]
    seen = cache_seqlens.long()[:, None]
    back = torch.arange(-(width - 1), 0, device=x.device)
    places = ((seen + back) % kept)[:, None].expand(-1, new.shape[1], -1)
    before = state.gather(2, places)
    out, _ = causal_conv1d(
        new.transpose(1, 2), weight, bias, _activation(activation), initial_state=before, return_final_state=True
    )
    with torch.no_grad():
        last = min(count, kept)
        there = ((seen + torch.arange(count - last, count, device=x.device)) % kept)[:, None].expand(
            -1, new.shape[1], -1
        )
        after = state.scatter(2, there, new[..., count - last :].to(state.dtype))
        conv_state[slot[used]] = after[used]
    out = out.transpose(1, 2)
    return out.squeeze(-1) if x.dim() == 2 else out


def _activation(name: str | None) -> str | None:
    if name not in (None, "silu", "swish"):
        raise UserError(f"unknown activation {name!r}", given=name, allowed=("silu", "swish", None))
    return None if name is None else "silu"
