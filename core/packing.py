"""Sequence numbers of tokens: several sequences in one row (packing), and rows filled up with tokens that do not count (padding).

`seq_idx` is (batch, length) and integer. Where it changes from one real token to the next, a new sequence begins. A negative
number marks padding. No path visits padding: a sequence goes on behind it as if it were not there, nothing comes out of it,
and the state after a row is the one after the row's last real token, on whichever side the padding lies.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import UserError, check_choice
from .ops.transforms import watched

PADDING = -1
SIDES = ("left", "right")


def seq_idx_from_mask(mask: Tensor) -> Tensor:
    """One sequence a row from a mask (batch, length), true (or not 0) at real tokens: int32, 0 there and -1 at padding."""
    if mask.dim() != 2:
        raise UserError("a mask has a row per sequence", given=tuple(mask.shape), allowed="(batch, length)")
    return torch.where(mask.bool(), 0, PADDING).int()


def seq_idx_from_lengths(lengths: Tensor, length: int | None = None, side: str = "right") -> Tensor:
    """One sequence a row from their lengths.

    Args:
        lengths: (batch,), integer: real tokens in each row.
        length: of the rows; None: the longest of `lengths`.
        side: where the padding lies, "left" or "right".

    Returns:
        (batch, length) int32, 0 at real tokens and -1 at padding.
    """
    check_choice("side", side, SIDES)
    lengths = lengths.long()
    longest = int(lengths.max()) if lengths.numel() else 0
    length = longest if length is None else length
    if longest > length or (lengths < 0).any():
        raise UserError("the lengths do not fit the rows", given=lengths.tolist(), allowed=f"0 to {length}")
    place = torch.arange(length, device=lengths.device)
    if side == "left":
        place = place.flip(0)
    return seq_idx_from_mask(place < lengths[:, None])


def seq_idx_from_cu_seqlens(cu_seqlens: Tensor, length: int | None = None) -> Tensor:
    """One row of packed sequences from where they begin.

    Args:
        cu_seqlens: (sequences + 1,), integer: 0, then the running total of the lengths.
        length: of the row; tokens behind the last sequence are padding. None: the sum of the lengths.

    Returns:
        (1, length) int32: 0, 1, 2, ... for the sequences, -1 at padding.
    """
    cu_seqlens = cu_seqlens.long()
    if cu_seqlens.dim() != 1 or cu_seqlens.numel() < 1 or cu_seqlens[0] != 0 or (cu_seqlens.diff() < 0).any():
        raise UserError(
            "cu_seqlens must start at 0 and never fall", given=cu_seqlens.tolist(), allowed="0, 5, 9: lengths 5 and 4"
        )
    total = int(cu_seqlens[-1])
    length = total if length is None else length
    if total > length:
        raise UserError("the sequences are longer than the row", given=f"{total} tokens", allowed=f"{length}")
    place = torch.arange(length, device=cu_seqlens.device)
    number = torch.searchsorted(cu_seqlens[1:].contiguous(), place, right=True)
    return torch.where(place < total, number, PADDING).int()[None]


def has_padding(seq_idx: Tensor) -> bool:
    """Whether any token is padding; where asking would wait for a GPU or break a trace, the answer is yes."""
    if watched() or seq_idx.device.type != "cpu":
        return True
    return bool((seq_idx.long() < 0).any())


def without_padding(x: Tensor, seq_idx: Tensor | None) -> Tensor:
    """(batch, length, channels) with zeros at padding: whatever stood there, NaN too, is in no sum and no gradient."""
    if seq_idx is None or not has_padding(seq_idx):
        return x
    return x.masked_fill((seq_idx.long() < 0)[..., None], 0)


def skip_padding(order: Tensor | None, seq_idx: Tensor) -> Tensor:
    """The same paths, without the steps that land on padding.

    Args:
        order: (paths, steps) or (batch, paths, steps), integer, -1 at the end of short paths; None: the raster order.
        seq_idx: (batch, length), integer, negative at padding.

    Returns:
        (batch, paths, steps) int32; every row's path is as long as it has real tokens, then -1.
    """
    seq_idx = seq_idx.long()
    batch, length = seq_idx.shape
    if order is None:
        order = torch.arange(length, device=seq_idx.device)[None]
    token = order.long().expand(batch, *order.shape[-2:])
    paths, steps = token.shape[1:]
    real = (seq_idx >= 0)[:, None].expand(-1, paths, -1)
    kept = (token >= 0) & real.gather(2, token.clamp_min(0))
    place = torch.where(kept, kept.cumsum(-1) - 1, steps)
    moved = token.new_full((batch, paths, steps + 1), -1).scatter(2, place, token)
    return moved[..., :steps].int()


def runs(seq_idx: Tensor) -> Tensor:
    """Number of the sequence that each token belongs to, counted from 0 in each row: (batch, length) int64, -1 at padding.

    Unlike `seq_idx` it never names two sequences alike.
    """
    seq_idx = seq_idx.long()
    real = seq_idx >= 0
    place = torch.arange(seq_idx.shape[1], device=seq_idx.device).expand_as(seq_idx)
    last = torch.where(real, place, -1).cummax(1).values
    before = F.pad(last, (1, 0), value=-1)[:, :-1]
    changed = real & (before >= 0) & (seq_idx.gather(1, before.clamp_min(0)) != seq_idx)
    return torch.where(real, changed.cumsum(1), PADDING)


def places(number: Tensor) -> Tensor:
    """Place of each token in its sequence, counted from 0: (batch, length) int64; padding does not count, and has any.

    Args:
        number: (batch, length), what `runs` returns.
    """
    real = number >= 0
    count = real.cumsum(1) - 1
    last = torch.where(real, number, -1).cummax(1).values
    before = F.pad(last, (1, 0), value=-1)[:, :-1]
    start = torch.where(real & (last > before), count, 0).cummax(1).values
    return (count - start).clamp_min(0)
