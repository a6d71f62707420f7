"""The matrices of attention: its own weights."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..mixers.attention import Attention
from .unrolled import Steps, Unrolled


def unroll_attention(mixer: Attention, x: Tensor, grid, seq_idx: Tensor | None) -> Unrolled:
    """One matrix a query head, rows summing to 1; it is multiplied with the values of its key/value head.

    They are what the softmax is given, (batch, length, key/value heads, head_dim). Padding sees itself alone, as in the
    mixer.
    """
    given = mixer.select(x, None, None, seq_idx)
    batch, length = x.shape[:2]
    sees = given.mask
    if sees is None:
        sees = torch.ones(length, length, dtype=torch.bool, device=x.device)
        sees = sees.tril() if mixer.causal else sees
    sees = sees.expand(batch, 1, length, length)
    token = torch.arange(length, device=x.device).expand(batch, 1, length)
    steps = Steps(token, torch.ones_like(token, dtype=torch.bool), sees)
    scale = mixer.head_dim**-0.5 if mixer.softmax_scale is None else mixer.softmax_scale
    kind = torch.promote_types(given.query.dtype, torch.float32)
    query, key = given.query.to(kind) * scale, given.key.to(kind)
    return Unrolled(mixer.num_heads, steps, length, "sum", partial(entries, query, key, sees))


def entries(query: Tensor, key: Tensor, sees: Tensor, begin: int, end: int) -> Tensor:
    """The weights of the query heads begin to end - 1, (batch, 1, end - begin, length, length).

    Args:
        query, key: (batch, length, heads, head_dim) and (batch, length, key/value heads, head_dim), the query scaled.
        sees: (batch, 1, length, length) bool.
    """
    shared = query.shape[2] // key.shape[2]
    head = torch.arange(begin, end, device=query.device)
    scores = torch.einsum("bihc,bjhc->bhij", query[:, :, head], key[:, :, head // shared])
    return scores.masked_fill(~sees, -torch.inf).softmax(-1)[:, None]
