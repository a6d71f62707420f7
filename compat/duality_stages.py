"""The stages of mamba_ssm's chunked scan (ops/triton/ssd_chunk_state.py, ssd_state_passing.py, ssd_chunk_scan.py, ssd_bmm.py) from
their formulas, in plain PyTorch and float32, for code that composes them itself. `mamba_chunk_scan_combined` is the fast way.

Shapes: x (batch, length, heads, headdim); B, C (batch, length, groups, states); dt and the sums of dt A within each chunk
(batch, heads, chunks, chunk size), zero after the end; states (batch, chunks, heads, headdim, states).
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional as F


def chunk_cumsum(
    dt: Tensor, A: Tensor, chunk_size: int, dt_bias=None, dt_softplus=False, dt_limit=(0.0, math.inf)
) -> tuple[Tensor, Tensor]:
    """The sums of dt A within each chunk, and dt as it counts, of dt (batch, length, heads) and A (heads,)."""
    step = dt.float() if dt_bias is None else dt.float() + dt_bias.float()
    step = (F.softplus(step) if dt_softplus else step).clamp(*dt_limit)
    step = _chunks(step, chunk_size).permute(0, 3, 1, 2)
    return (step * A.float()[:, None, None]).cumsum(-1), step


def chunk_state(
    B: Tensor, x: Tensor, dt: Tensor, dA_cumsum: Tensor, states_in_fp32: bool = True, seq_idx: Tensor | None = None
) -> Tensor:
    """What each chunk by itself leaves behind: states at its end.

    Args:
        seq_idx: (batch, length): only the sequence at the chunk's end counts, and none where that is negative.
    """
    size = dt.shape[-1]
    weight = torch.exp((dA_cumsum[..., -1:] - dA_cumsum).clamp_max(0)) * dt
    if seq_idx is not None:
        last = _at_ends(seq_idx, size)[..., None]
        here = _chunks(seq_idx[..., None], size, -1).squeeze(-1)
        weight = weight * ((here == last) & (last >= 0))[:, None]
    per_head = _per_head(B.float(), x.shape[2])
    states = torch.einsum("bhcl,bclhn,bclhp->bchpn", weight, _chunks(per_head, size), _chunks(x.float(), size))
    return states if states_in_fp32 else states.to(B.dtype)


def chunk_state_forward(B, x, dt, dA_cumsum, seq_idx=None, states=None, states_in_fp32=True) -> Tensor:
    """chunk_state in the order of arguments of upstream's `_chunk_state_fwd`; written to `states` where given."""
    found = chunk_state(B, x, dt, dA_cumsum, states_in_fp32, seq_idx)
    return found if states is None else states.copy_(found)


def chunk_state_ref(B, x, dt, dA_cumsum) -> Tensor:
    """chunk_state in x's dtype."""
    return chunk_state(B, x, dt, dA_cumsum).to(x.dtype)


def chunk_state_varlen(
    B: Tensor, x: Tensor, dt: Tensor, dA_cumsum: Tensor, cu_seqlens: Tensor, chunk_states: Tensor
) -> Tensor:
    """The final state of each sequence packed in one row: (sequences, heads, headdim, states).

    Args:
        B, x, dt, dA_cumsum: as elsewhere, without batch. cu_seqlens: (sequences + 1,), where they begin and the last ends.
        chunk_states: (chunks, heads, headdim, states), states before each chunk, of state_passing.
    """
    size, per_head = dt.shape[-1], _per_head(B.float(), x.shape[1])
    flat_dt, flat_sum = dt.flatten(1), dA_cumsum.flatten(1)
    found = []
    for begin, end in itertools.pairwise(cu_seqlens.tolist()):
        chunk = max(end - 1, 0) // size
        part = slice(max(begin, chunk * size), end)
        until_end = flat_sum[:, end - 1 : end]
        weight = torch.exp(until_end - flat_sum[:, part]) * flat_dt[:, part]
        state = torch.einsum("hl,lhn,lhp->hpn", weight, per_head[part], x[part].float())
        if begin < chunk * size:
            state = state + torch.exp(until_end)[..., None] * chunk_states[chunk].float()
        found.append(state)
    return torch.stack(found).to(chunk_states.dtype)


def state_passing(
    states: Tensor, dA_chunk_cumsum: Tensor, initial_states: Tensor | None = None, seq_idx: Tensor | None = None,
    chunk_size: int | None = None, out_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """States before each chunk, and after the last, float32.

    Args:
        states: (batch, chunks, heads, channels), what each chunk leaves behind.
        dA_chunk_cumsum: (batch, heads, chunks), sums of dt A over each chunk. initial_states: (batch, heads, channels).
        seq_idx: (batch, length), with chunk_size: nothing passes from one sequence to another; the first is number 0.
    """
    decay = torch.exp(dA_chunk_cumsum.float()).movedim(-1, 1)
    if seq_idx is not None:
        last = _at_ends(seq_idx, chunk_size)
        decay = decay * (last == F.pad(last, (1, 0))[:, :-1])[..., None]
    state = torch.zeros_like(states[:, 0]) if initial_states is None else initial_states
    state, before = state.float(), []
    for own, kept in zip(states.float().unbind(1), decay.unbind(1), strict=True):
        before.append(state)
        state = kept[..., None] * state + own
    return torch.stack(before, 1).to(out_dtype or states.dtype), state


def state_passing_ref(states, dA_chunk_cumsum, initial_states=None) -> tuple[Tensor, Tensor]:
    """state_passing, both results in the dtype of `states`."""
    before, final = state_passing(states, dA_chunk_cumsum, initial_states)
    return before, final.to(states.dtype)


def bmm_chunk(
    a: Tensor, b: Tensor, chunk_size: int, seq_idx: Tensor | None = None, causal: bool = False, output_dtype=None
) -> Tensor:
    """Products a_i b_j within each chunk: (batch, chunks, [groups,] chunk size, chunk size); zero from sequence to sequence.

    Args:
        a, b: (batch, length, [groups,] states). causal: accepted and ignored, all are computed.
    """
    given = a.dim()
    a_, b_ = (_chunks(t.float() if given == 4 else t.float().unsqueeze(2), chunk_size) for t in (a, b))
    found = torch.einsum("bcigk,bcjgk->bcgij", a_, b_)
    if seq_idx is not None:
        number = _chunks(seq_idx[..., None], chunk_size, -1).squeeze(-1)
        found = found * (number[..., :, None] == number[..., None, :])[:, :, None]
    found = found.to(output_dtype or a.dtype)
    return found if given == 4 else found.squeeze(2)


def chunk_scan(B, C, x, dt, dA_cumsum, prev_states, D=None, z=None) -> Tensor:
    """The scan's result in x's dtype, from the states before each chunk.

    Args:
        D: (heads,) or (heads, headdim). z: shaped like x.
    """
    length, heads, size = x.shape[1], x.shape[2], dt.shape[-1]
    B_, C_ = (_chunks(_per_head(t.float(), heads), size) for t in (B, C))
    after = torch.ones(size, size, dtype=torch.bool, device=x.device).triu(1)
    decay = (dA_cumsum[..., :, None] - dA_cumsum[..., None, :]).masked_fill(after, -math.inf).exp()
    scores = torch.einsum("bcihn,bcjhn,bhcij,bhcj->bchij", C_, B_, decay, dt)
    out = torch.einsum("bchij,bcjhp->bcihp", scores, _chunks(x.float(), size))
    out = out + torch.einsum("bcihn,bchpn,bhci->bcihp", C_, prev_states.float(), dA_cumsum.exp())
    out = out.flatten(1, 2)[:, :length]
    if D is not None:
        out = out + x.float() * (D[:, None] if D.dim() == 1 else D).float()
    return (out if z is None else out * F.silu(z.float())).to(x.dtype)


def mamba_chunk_scan(x, dt, A, B, C, chunk_size, D=None, z=None, dt_bias=None, dt_softplus=False) -> Tensor:
    """The scan of Mamba-2, stage by stage; arguments as mamba_chunk_scan_combined's."""
    sums, step = chunk_cumsum(dt, A, chunk_size, dt_bias, dt_softplus)
    states = chunk_state(B, x, step, sums)
    before = state_passing(states.flatten(3), sums[..., -1])[0].view_as(states)
    return chunk_scan(B, C, x, step, sums, before, D, z)


class ChunkStateFn:
    """chunk_state as upstream's own class is called."""

    apply = staticmethod(chunk_state)


class StatePassingFn:
    """state_passing as upstream's own class is called."""

    apply = staticmethod(state_passing)


class ChunkScanFn:
    """chunk_scan as upstream's own class is called."""

    apply = staticmethod(chunk_scan)


def segsum(x: Tensor) -> Tensor:
    """Sums of x over j < k <= i, (..., length) to (..., length i, length j); minus infinity where i < j."""
    length = x.shape[-1]
    below = torch.ones(length, length, dtype=torch.bool, device=x.device).tril(-1)
    sums = x[..., None].expand(*x.shape, length).masked_fill(~below, 0).cumsum(-2)
    return sums.masked_fill(below.mT, -math.inf)


def segsum_unstable(x: Tensor) -> Tensor:
    """segsum as differences of running sums, which cancel."""
    sums = x.cumsum(-1)
    above = torch.ones(x.shape[-1], x.shape[-1], dtype=torch.bool, device=x.device).triu(1)
    return (sums[..., :, None] - sums[..., None, :]).masked_fill(above, -math.inf)


def ssd_minimal_discrete(X, A, B, C, block_len, initial_states=None) -> tuple[Tensor, Tensor]:
    """The scan of Mamba-2 for inputs that dt has been multiplied into (arXiv 2405.21060, listing 1), in the inputs' dtype.

    Args:
        X: (batch, length, heads, headdim). A: (batch, length, heads). B, C: (batch, length, heads or 1, states).
        block_len: tokens a block, which must divide the length.
        initial_states: (batch, 1, heads, headdim, states).

    Returns:
        (batch, length, heads, headdim), and the final states (batch, heads, headdim, states).
    """
    x, a, b, c = (t.unflatten(1, (-1, block_len)) for t in (X, A, B, C))
    b, c = (t.expand(*t.shape[:3], X.shape[2], -1) for t in (b, c))
    a = a.permute(0, 3, 1, 2)
    sums = a.cumsum(-1)
    within = torch.einsum("bcihn,bcjhn,bhcij,bcjhp->bcihp", c, b, segsum(a).exp(), x)
    own = torch.einsum("bcjhn,bhcj,bcjhp->bchpn", b, (sums[..., -1:] - sums).exp(), x)
    begin = torch.zeros_like(own[:, :1]) if initial_states is None else initial_states
    passed = segsum(F.pad(sums[..., -1], (1, 0))).exp()
    states = torch.einsum("bhij,bjhpn->bihpn", passed, torch.cat([begin, own], 1))
    before = torch.einsum("bcihn,bchpn,bhci->bcihp", c, states[:, :-1], sums.exp())
    return (within + before).flatten(1, 2), states[:, -1]


def _chunks(t: Tensor, size: int, fill: float = 0) -> Tensor:
    """(batch, length, ...) to (batch, chunks, size, ...), filled up at the end."""
    missing = -t.shape[1] % size
    padded = F.pad(t, (*[0, 0] * (t.dim() - 2), 0, missing), value=fill) if missing else t
    return padded.unflatten(1, (-1, size))


def _at_ends(seq_idx: Tensor, size: int) -> Tensor:
    """The sequence number at the last token of each chunk, (batch, chunks)."""
    length = seq_idx.shape[1]
    ends = torch.arange(size - 1, length + size - 1, size, device=seq_idx.device).clamp_max(length - 1)
    return seq_idx[:, ends]


def _per_head(t: Tensor, heads: int) -> Tensor:
    """B or C, (..., groups, states), with each group's row at each of its heads."""
    return t.repeat_interleave(heads // t.shape[-2], -2)
