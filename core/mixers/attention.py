"""Softmax attention as a mixer, for hybrids of Mamba and attention (Jamba, arXiv 2403.19887; Mamba-2, arXiv 2405.21060, section 9).

Parameter names are those of mamba_ssm's MHA: in_proj (query, key and value heads, then the MLP's, in one), out_proj, conv1d.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import UserError
from ..linear import applied
from ..ops.transforms import transformed, watched
from ..packing import PADDING, places, runs
from ..ranges import Count, Positive, Share, Size, checked
from .mixer import Call, Mixer
from .path_layers import convolved
from .rotary import rotate


class AttentionState(NamedTuple):
    """What attention carries from one piece of a sequence to the next; it grows with every token.

    key, value: (batch, past, key/value heads, channels of a head), in the dtype that attention computes in; keys are
        already turned to their positions.
    sequence: (batch, past) int64, the number of the sequence that each of them belongs to, -1 at padding; None where
        all belong to one.
    conv: (batch, channels, width - 1) float32, the last inputs of the convolution; None without one.
    """

    key: Tensor
    value: Tensor
    sequence: Tensor | None
    conv: Tensor | None


class Selection(NamedTuple):
    """What a mixer gives to scaled_dot_product_attention, the past of a state included.

    query: (batch, length, heads, head_dim), key, value: (batch, past + length, key/value heads, head_dim), turned.
    mask: who sees whom, broadcast with (batch, heads, length, past + length); None: all that causality allows.
    sequence, conv: as in the state to continue from. beside: (batch, length, mlp_dim), the MLP's two halves.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    sequence: Tensor | None
    conv: Tensor | None
    beside: Tensor


class Attention(Mixer):
    """Multi-head attention with grouped key/value heads.

    Args:
        d_model: channels of the tokens.
        num_heads: query heads.
        num_heads_kv: key/value heads, each shared by num_heads / num_heads_kv query heads; None: as many as query heads.
        head_dim: channels of a head; None: d_model / num_heads.
        causal: tokens see those before them and themselves; else all of their sequence.
        rotary_fraction: share of a head's channels that turn with the position within the sequence; 0: no positions, as in
            hybrids whose Mamba layers know them. rotary_base, rotary_interleaved: see rotary.py.
        qkv_bias, out_bias: biases of the two projections.
        d_conv: width of a causal convolution over queries, keys and values, 0: none. conv_bias: its bias.
        mlp_dim: channels of a gated MLP beside the heads, both halves together, rounded up to a multiple of 256; 0: none.
        softmax_scale: factor of the scores; None: head_dim ** -0.5.
        backend: backend of the convolution; "reference" writes the softmax out too, for derivatives of any kind.
        device, dtype: of the parameters.
    """

    State = AttentionState

    @checked
    def __init__(
        self,
        d_model: Size,
        num_heads: Size,
        num_heads_kv: Size | None = None,
        head_dim: Size | None = None,
        causal: bool = True,
        rotary_fraction: Share = 0.0,
        rotary_base: Positive = 10_000.0,
        rotary_interleaved: bool = False,
        qkv_bias: bool = False,
        out_bias: bool = False,
        d_conv: Count = 0,
        conv_bias: bool = True,
        mlp_dim: Count = 0,
        softmax_scale: Positive | None = None,
        backend: str = "auto",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.d_model, self.num_heads, self.num_heads_kv = (
            d_model,
            num_heads,
            num_heads if num_heads_kv is None else num_heads_kv,
        )
        if num_heads % self.num_heads_kv:
            raise UserError(
                "query heads must share key/value heads evenly", given=f"{num_heads} and {num_heads_kv}",
                allowed=f"a divisor of {num_heads}",
            )  # fmt: skip
        if head_dim is None and d_model % num_heads:
            raise UserError("the heads must divide d_model", given=f"d_model={d_model}, num_heads={num_heads}")
        self.head_dim = d_model // num_heads if head_dim is None else head_dim
        self.causal, self.softmax_scale, self.backend = causal, softmax_scale, backend
        self.rotary_size = 2 * int(self.head_dim * rotary_fraction / 2)
        self.rotary_base, self.rotary_interleaved = rotary_base, rotary_interleaved
        if d_conv and not causal:
            raise UserError("the convolution is causal", given=f"causal=False, d_conv={d_conv}", allowed="d_conv=0")
        factory = {"device": device, "dtype": dtype}
        self.mlp_dim, self.d_conv = -(-mlp_dim // 256) * 256, d_conv
        self._wide = wide = (num_heads + 2 * self.num_heads_kv) * self.head_dim
        self.in_proj = nn.Linear(d_model, wide + self.mlp_dim, bias=qkv_bias, **factory)
        self.conv1d = nn.Conv1d(wide, wide, d_conv, groups=wide, bias=conv_bias, **factory) if d_conv else None
        self.out_proj = nn.Linear(num_heads * self.head_dim + self.mlp_dim // 2, d_model, bias=out_bias, **factory)

    def project(self, call: Call) -> Selection:
        x, state = call.x, call.state
        qkv, beside = applied(self.in_proj, x).split([self._wide, self.mlp_dim], -1)
        qkv, conv = self._convolve(qkv, call)
        sizes = [self.num_heads, self.num_heads_kv, self.num_heads_kv]
        query, key, value = qkv.unflatten(-1, (-1, self.head_dim)).split(sizes, 2)
        past = 0 if state is None else state.key.shape[1]
        before = None if state is None else state.sequence
        sequence, position = sequence_numbers(x.shape[0], x.shape[1], past, before, call.seq_idx, x.device)
        if self.rotary_size:
            turn = (position, self.rotary_size, self.rotary_base, self.rotary_interleaved)
            query, key = rotate(query, *turn), rotate(key, *turn)
        if state is not None:
            key, value = (
                torch.cat([old.to(new.dtype), new], 1) for old, new in ((state.key, key), (state.value, value))
            )
        elif self.causal:  # a state is nobody's view
            key, value = (key if self.rotary_size else key.clone()), value.clone()
        mask = attention_mask(x.shape[1], past, sequence, self.causal, x.device)
        return Selection(query, key, value, mask, sequence, conv, beside)

    def mix_tokens(self, given: Selection, call: Call) -> tuple[Tensor, AttentionState]:
        """Memory grows with the square of the length where seq_idx or a state asks for a mask."""
        if several(given.sequence, call.x.shape[1]):
            y = self._attend_apart(*given[:3], given.sequence)
        else:
            y = self._attend(*given[:3], given.mask)
        return y.flatten(2), AttentionState(given.key, given.value, given.sequence, given.conv)

    def finish(self, y: Tensor, given: Selection) -> Tensor:
        if self.mlp_dim:
            value, gate = given.beside.chunk(2, -1)
            y = torch.cat([y, value * F.silu(gate)], -1)
        return applied(self.out_proj, y)

    def state_shapes(self, batch: int) -> AttentionState:
        """Of any length."""
        heads = (batch, None, self.num_heads_kv, self.head_dim)
        taps = (batch, self._wide, self.d_conv - 1) if self.d_conv else ()
        return AttentionState(heads, heads, (batch, None), taps)

    def flops(self, grid) -> int:
        """Floating point operations of a forward pass over one sequence of a grid's tokens (or of so many)."""
        length = grid if isinstance(grid, int) else getattr(grid, "length", None) or torch.Size(grid).numel()
        outer = self._wide + self.mlp_dim + self.num_heads * self.head_dim + self.mlp_dim // 2
        pairs = length * (length + 1) // 2 if self.causal else length * length
        taps = length * self._wide * self.d_conv
        return 2 * (length * self.d_model * outer + taps + 2 * pairs * self.num_heads * self.head_dim)

    def extra_repr(self) -> str:
        return f"heads={self.num_heads}, kv={self.num_heads_kv}, causal={self.causal}, rotary={self.rotary_size}"

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, length, heads, head_dim) of a Selection's parts."""
        # A branch, not the comparison itself: in a graph for any length that is no plain bool.
        causal = self.causal and mask is None
        if query.shape[1] <= 1:
            causal = False
        with self._written_out():
            y = F.scaled_dot_product_attention(
                *(t.transpose(1, 2) for t in (query, key, value)), mask,
                is_causal=causal, scale=self.softmax_scale,
                enable_gqa=self.num_heads_kv != self.num_heads,
            )  # fmt: skip
        return y.transpose(1, 2)

    def _attend_apart(self, query: Tensor, key: Tensor, value: Tensor, sequence: Tensor) -> Tensor:
        """As _attend, one sequence after the other; zero at padding.

        A mask would multiply what a token does not see by 0, which NaN survives, and cost the square of the whole row.
        """
        length, parts, places = query.shape[1], [], []
        past = sequence.shape[1] - length
        for row, numbers in enumerate(sequence):
            for number in {*numbers[past:].tolist()} - {PADDING}:
                seen = (numbers == number).nonzero().flatten()
                own = seen[seen >= past] - past
                before, mask = len(seen) - len(own), None
                if before and self.causal and len(own) > 1:
                    mask = torch.ones(len(own), len(seen), dtype=torch.bool, device=query.device).tril(before)
                taken = (t[row].index_select(0, seen)[None] for t in (key, value))
                parts.append(self._attend(query[row].index_select(0, own)[None], *taken, mask)[0])
                places.append(own + row * length)
        said = torch.cat(parts)
        y = said.new_zeros(len(sequence) * length, *said.shape[1:]).index_copy(0, torch.cat(places), said)
        return y.unflatten(0, (len(sequence), length))

    def _written_out(self):
        """Keeps PyTorch from its fused attention, which has no forward mode, no vmap and no gradients of gradients."""
        return sdpa_kernel(SDPBackend.MATH) if self.backend == "reference" or transformed() else nullcontext()

    def _convolve(self, qkv: Tensor, call: Call) -> tuple[Tensor, Tensor | None]:
        if self.conv1d is None:
            return qkv, None
        before = None if call.state is None else call.state.conv
        return convolved([self.conv1d], qkv, self.d_conv, None, call.raster, call.seq_idx, before, self.backend)


def several(sequence: Tensor | None, length: int) -> bool:
    """Whether a row holds several sequences, and any of its last `length` tokens is real.

    Where asking would wait for a GPU or break a trace, the answer is no.
    """
    if sequence is None or watched() or sequence.device.type != "cpu":
        return False
    return bool((sequence > 0).any() and (sequence[:, sequence.shape[1] - length :] >= 0).any())


def attention_mask(
    length: int, past: int, sequence: Tensor | None, causal: bool, device: torch.device
) -> Tensor | None:
    """Who sees whom, (length, past + length) or (batch, 1, length, past + length); None: all that causality allows.

    Args:
        length, past: new tokens, and those of a state before them.
        sequence: of each of them, what `sequence_numbers` returns.
        causal: whether tokens see only those before them and themselves.
    """
    if sequence is None and (not causal or past == 0 or length == 1):
        return None
    query, key = torch.arange(past, past + length, device=device), torch.arange(past + length, device=device)
    mask = query[:, None] >= key if causal else None
    if sequence is None:
        return mask
    own = sequence[:, past:]
    together = (own[:, :, None] == sequence[:, None, :]) & (own >= 0)[:, :, None]
    if mask is not None:
        together = together & mask
    # Padding sees itself: a row without anything to see has no softmax.
    return (together | (query[:, None] == key))[:, None]


def sequence_numbers(
    batch: int, length: int, past: int, before: Tensor | None, seq_idx: Tensor | None, device: torch.device
) -> tuple[Tensor | None, Tensor]:
    """Sequence of each token, the past included (None: one for all), and position of each new token within its sequence.

    Args:
        batch, length, past: sizes; tokens of a state are the past ones.
        before: (batch, past), the past ones' sequences, -1 at padding; None: one for all.
        seq_idx: (batch, length), of the new tokens, as mixers take it.
    """
    if seq_idx is None and before is None:
        return None, torch.arange(past, past + length, device=device)
    if before is None:
        before = torch.zeros(batch, past, dtype=torch.int64, device=device)
    number = runs(torch.zeros(batch, length, dtype=torch.int64, device=device) if seq_idx is None else seq_idx)
    last = before.amax(1, keepdim=True).clamp_min(0) if past else torch.zeros_like(before[:, :0].sum(1, keepdim=True))
    seen = (before == last).sum(1, keepdim=True)
    position = places(number) + torch.where(number == 0, seen, 0)
    return torch.cat([before, torch.where(number >= 0, number + last, -1)], 1), position
