"""mamba_ssm's modules over the core's mixers: the same arguments, parameter names and caches.

A cache is what upstream keeps: a tuple of tensors a layer in `inference_params.key_value_memory_dict`, moved on in place. Any
number of tokens may be given at any time: they go on from the cache.
"""

from __future__ import annotations

import itertools
import math
from functools import partial

import torch
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.linear import applied
from ..core.mixers import mamba as core_mamba
from ..core.mixers import mamba2 as core_mamba2
from ..core.mixers import mamba3 as core_mamba3
from ..core.mixers.path_parameters import PathParameters
from ..core.packing import seq_idx_from_cu_seqlens

BIMAMBA = ("none", "v1", "v2", "v3")


class Cached:
    """Forward with, and one step on, a layer's cache; the class names its tensors."""

    layer_idx: int | None

    def step(self, hidden_states: Tensor, *cache: Tensor) -> tuple[Tensor, ...]:
        """The next token or tokens, (batch, d_model) or (batch, tokens, d_model), and the cache, moved on in place."""
        x = hidden_states[:, None] if hidden_states.dim() == 2 else hidden_states
        y, state = self.mix(x, state=self.read(cache))
        self.write(state, cache, x, begun=True)
        return y[:, 0] if hidden_states.dim() == 2 else y, *cache

    def with_cache(self, x: Tensor, inference_params, seq_idx=None, cu_seqlens=None) -> Tensor:
        """The mixer's output; with inference_params it goes on from this layer's cache, or begins one.

        cu_seqlens: ends of sequences packed in one row; each of them begins a row of the cache. Tokens after the last are
            padding, their result is zero.
        """
        if inference_params is None:
            return self.mix(x, **_packed(x, seq_idx, cu_seqlens))[0]
        if self.layer_idx is None:
            raise UserError(
                "a layer with a cache needs its number", do="layer_idx=0 (1, 2, ...) where the layer is made"
            )
        begun, parts = inference_params.seqlen_offset > 0, [(0, x.shape[1])]
        if cu_seqlens is not None and not begun:
            parts = list(itertools.pairwise(cu_seqlens.tolist()))
        rows = x.shape[0] * len(parts)
        caches = inference_params.key_value_memory_dict
        if self.layer_idx not in caches:
            caches[self.layer_idx] = self.allocate_inference_cache(rows, inference_params.max_seqlen)
        found = []
        for (begin, end), row in zip(parts, range(0, rows, x.shape[0]), strict=True):
            piece, numbers = x[:, begin:end], None if seq_idx is None else seq_idx[:, begin:end]
            cache = tuple(t[row : row + x.shape[0]] for t in caches[self.layer_idx])
            if begin == end and not begun:
                for t in cache:
                    t.zero_()
                continue
            y, state = self.mix(piece, state=self.read(cache) if begun else None, **_packed(piece, numbers, None))
            self.write(state, cache, piece, begun)
            found.append(y)
        if parts[-1][1] < x.shape[1]:
            found.append(torch.zeros_like(x[:, parts[-1][1] :]))
        return found[0] if len(found) == 1 else torch.cat(found, 1)

    def read(self, cache: tuple[Tensor, ...]):
        """The core's state in a cache."""
        return self.State(*(t.float() for t in cache))

    def write(self, state, cache: tuple[Tensor, ...], x: Tensor, begun: bool) -> None:
        """Move a cache on; x: the tokens that were mixed; begun: whether the cache held what came before them."""
        with torch.no_grad():
            for t, new in zip(cache, state, strict=True):
                t.copy_(new)

    def allocate_inference_cache(self, batch_size: int, max_seqlen: int | None = None, dtype=None, **_):
        """A layer's empty cache; its size does not depend on max_seqlen. float32, whatever dtype says: states drift in less."""
        device = self.D.device
        return tuple(
            torch.zeros(batch_size, *shape, dtype=torch.float32, device=device) for shape in self.cache_shapes()
        )


class ConvolvedCache(Cached):
    """conv_state (batch, channels, width): the last inputs, as upstream one more than are needed; ssm_state."""

    def read(self, cache):
        conv, ssm = cache
        return self.State(conv[..., 1:].float(), ssm.float())

    def write(self, state, cache, x, begun) -> None:
        conv, ssm = cache
        length, width = x.shape[1], conv.shape[-1]
        with torch.no_grad():
            if length >= width:
                oldest = self.convolved(x[:, -width])[..., None]
            else:
                oldest = conv[..., length : length + 1] if begun else torch.zeros_like(conv[..., :1])
            conv.copy_(torch.cat([oldest.to(state.conv.dtype), state.conv], -1))
            ssm.copy_(state.ssm)

    def cache_shapes(self) -> tuple[tuple[int, ...], ...]:
        return (self.convolved_channels(), self.d_conv), self.state_shape()


class Mamba(ConvolvedCache, core_mamba.Mamba):
    """mamba_ssm.Mamba, and with `bimamba_type` the bidirectional layer of Vim's and SegMamba's forks.

    Args:
        d_model ... bias: as in the core's Mamba.
        use_fast_path: accepted and ignored.
        bimamba_type: "none"; "v1": backwards with a decay of its own (A_b_log); "v2": backwards with all parameters of its
            own; "v3": besides, from slice to slice (parameters with `_s`), over nslices equal slices.
        if_divide_out (Vim also spells it if_devide_out): "v2": halve the sum.
        init_layer_scale: multiply the result by a learned `gamma` that begins at this.
    """

    def __init__(
        self, d_model, d_state=16, d_conv=4, expand=2, dt_rank="auto", dt_min=0.001, dt_max=0.1, dt_init="random",
        dt_scale=1.0, dt_init_floor=1e-4, conv_bias=True, bias=False, use_fast_path=True, layer_idx=None, device=None,
        dtype=None, bimamba_type="none", if_divide_out=False, if_devide_out=False, init_layer_scale=None, nslices=5,
    ):  # fmt: skip
        bimamba_type = bimamba_type or "none"
        if bimamba_type not in BIMAMBA:
            raise UserError(f"unknown bimamba_type {bimamba_type!r}", given=bimamba_type, allowed=BIMAMBA)
        kind = {
            "none": {"scan": "raster"},
            "v1": {"scan": "bidirectional", "parameters": "decay"},
            "v2": {"scan": "bidirectional", "merge": "mean" if if_divide_out or if_devide_out else "sum"},
            "v3": {
                "scan": "bidirectional+column",
                "axes": 2,
                "parameters": partial(PathParameters, suffixes=("", "b", "s")),
            },
        }[bimamba_type]
        super().__init__(
            d_model, d_state, d_conv, expand, dt_rank, dt_min, dt_max, dt_init, dt_scale, dt_init_floor, bias, conv_bias,
            device=device, dtype=dtype, **kind,
        )  # fmt: skip
        self.layer_idx, self.bimamba_type, self.nslices = layer_idx, bimamba_type, nslices
        self.expand, self.use_fast_path, self.activation, self.act = expand, use_fast_path, "silu", nn.SiLU()
        if init_layer_scale is not None:
            self.gamma = nn.Parameter(torch.full((d_model,), float(init_layer_scale), device=device, dtype=dtype))

    def forward(self, hidden_states: Tensor, inference_params=None) -> Tensor:
        """(batch, length, d_model) to the same."""
        if inference_params is not None and self.bimamba_type != "none":
            raise UserError("a layer that reads backwards too has no cache", given=f"bimamba_type={self.bimamba_type}")
        y = self.with_cache(hidden_states, inference_params)
        return y * self.gamma if hasattr(self, "gamma") else y

    def mix(self, x: Tensor, **given):
        grid = None
        if self.bimamba_type == "v3":
            length = x.shape[1]
            if length % self.nslices:
                raise UserError(
                    "the sequence does not divide into slices", given=f"{length} tokens, nslices={self.nslices}",
                    allowed="a length that nslices divides", do="nslices=" + str(math.gcd(length, self.nslices)),
                )  # fmt: skip
            grid = (self.nslices, length // self.nslices)
        return core_mamba.Mamba.forward(self, x, grid, **given)

    def convolved(self, token: Tensor) -> Tensor:
        """What the convolution reads of one token, (batch, channels) of (batch, d_model)."""
        return applied(self.in_proj, token)[..., : self.d_inner]

    def convolved_channels(self) -> int:
        return self.d_inner

    def state_shape(self) -> tuple[int, ...]:
        return self.d_inner, self.d_state


class Mamba2(ConvolvedCache, core_mamba2.Mamba2):
    """mamba_ssm.Mamba2. chunk_size and use_mem_eff_path are accepted and ignored; process_group must be None."""

    def __init__(
        self, d_model, d_state=128, d_conv=4, conv_init=None, expand=2, headdim=64, d_ssm=None, ngroups=1, A_init_range=(1, 16),
        D_has_hdim=False, rmsnorm=True, norm_before_gate=False, dt_min=0.001, dt_max=0.1, dt_init_floor=1e-4,
        dt_limit=(0.0, math.inf), bias=False, conv_bias=True, chunk_size=256, use_mem_eff_path=True, layer_idx=None,
        process_group=None, sequence_parallel=True, device=None, dtype=None,
    ):  # fmt: skip
        _no_process_group(process_group)
        super().__init__(
            d_model, d_state=d_state, d_conv=d_conv, conv_init=conv_init, expand=expand, headdim=headdim, d_ssm=d_ssm,
            ngroups=ngroups, A_init_range=A_init_range, D_has_hdim=D_has_hdim, rmsnorm=rmsnorm, norm_before_gate=norm_before_gate,
            dt_min=dt_min, dt_max=dt_max, dt_init_floor=dt_init_floor, dt_limit=dt_limit, bias=bias, conv_bias=conv_bias,
            device=device, dtype=dtype,
        )  # fmt: skip
        self.layer_idx, self.expand, self.chunk_size, self.use_mem_eff_path = (
            layer_idx,
            expand,
            chunk_size,
            use_mem_eff_path,
        )
        self.conv_init, self.rmsnorm, self.norm_before_gate = conv_init, rmsnorm, norm_before_gate
        self.activation, self.act = "silu", nn.SiLU()

    def forward(self, u: Tensor, seqlen=None, seq_idx=None, cu_seqlens=None, inference_params=None) -> Tensor:
        """(batch, length, d_model), or (batch * seqlen, d_model) where seqlen is given, to the same."""
        x = u if seqlen is None else u.unflatten(0, (-1, seqlen))
        y = self.with_cache(x, inference_params, seq_idx, cu_seqlens)
        return y if seqlen is None else y.flatten(0, 1)

    def mix(self, x: Tensor, **given):
        return core_mamba2.Mamba2.forward(self, x, **given)

    def convolved(self, token: Tensor) -> Tensor:
        return applied(self.in_proj, token)[..., 2 * self.d_mlp + self.d_ssm :][..., : self.d_xbc]

    def convolved_channels(self) -> int:
        return self.d_xbc

    def state_shape(self) -> tuple[int, ...]:
        return self.nheads, self.headdim, self.d_state


class Mamba2Simple(core_mamba2.Mamba2):
    """mamba_ssm.modules.mamba2_simple.Mamba2Simple: without a cache, with initial states that may be learned.

    Args:
        d_model ... dt_limit, bias, conv_bias: as in Mamba2.
        learnable_init_states: every sequence begins with the states `init_states` (heads, headdim, states).
        use_mem_eff_path: as upstream, True normalises each group of channels by itself, False all of them together.
        chunk_size, deterministic, layer_idx: accepted and ignored. activation: must be "swish" or "silu".
    """

    def __init__(
        self, d_model, d_state=64, d_conv=4, conv_init=None, expand=2, headdim=128, ngroups=1, A_init_range=(1, 16), dt_min=0.001,
        dt_max=0.1, dt_init_floor=1e-4, dt_limit=(0.0, math.inf), learnable_init_states=False, activation="swish", bias=False,
        conv_bias=True, chunk_size=256, use_mem_eff_path=True, deterministic=None, layer_idx=None, device=None, dtype=None,
    ):  # fmt: skip
        if activation not in ("swish", "silu"):
            raise UserError("only SiLU is known here", given=f"activation={activation}", allowed="swish, silu")
        super().__init__(
            d_model, d_state=d_state, d_conv=d_conv, conv_init=conv_init, expand=expand, headdim=headdim, ngroups=ngroups,
            A_init_range=A_init_range, dt_min=dt_min, dt_max=dt_max, dt_init_floor=dt_init_floor, dt_limit=dt_limit, bias=bias,
            conv_bias=conv_bias, device=device, dtype=dtype,
        )  # fmt: skip
        self.layer_idx, self.learnable_init_states = layer_idx, learnable_init_states
        if not use_mem_eff_path:
            self.norm.groups = 1
        if learnable_init_states:
            self.init_states = nn.Parameter(torch.zeros(self.nheads, headdim, d_state, device=device, dtype=dtype))
            self.init_states._no_weight_decay = True

    def forward(self, u: Tensor, seq_idx: Tensor | None = None) -> Tensor:
        """(batch, length, d_model) to the same."""
        state = None
        if self.learnable_init_states:
            begin = self.init_states.to(torch.promote_types(self.init_states.dtype, torch.float32))
            before = begin.new_zeros(u.shape[0], self.d_xbc, self.d_conv - 1)
            state = core_mamba2.Mamba2State(before, begin.expand(u.shape[0], -1, -1, -1))
        return super().forward(u, None, state, seq_idx)[0]


class Mamba3(Cached, core_mamba3.Mamba3):
    """mamba_ssm.Mamba3, with seq_idx honoured. chunk_size and fuse_pregate_headwise_norm are accepted and ignored.

    Its cache holds the core's Mamba3State: angle, ssm, k and v.
    """

    def __init__(
        self, d_model, d_state=128, expand=2, headdim=64, ngroups=1, rope_fraction=0.5, dt_min=0.001, dt_max=0.1,
        dt_init_floor=1e-4, A_floor=1e-4, is_outproj_norm=False, is_mimo=False, mimo_rank=4,
        fuse_pregate_headwise_norm=True, chunk_size=64, dropout=0.0, layer_idx=None, n_layer=None, device=None, dtype=None,
        **options,
    ):  # fmt: skip
        super().__init__(
            d_model, d_state=d_state, expand=expand, headdim=headdim, ngroups=ngroups, rope_fraction=rope_fraction, dt_min=dt_min,
            dt_max=dt_max, dt_init_floor=dt_init_floor, A_floor=A_floor, is_outproj_norm=is_outproj_norm, is_mimo=is_mimo,
            mimo_rank=mimo_rank, device=device, dtype=dtype, **options,
        )  # fmt: skip
        self.layer_idx, self.expand, self.chunk_size, self.is_outproj_norm = (
            layer_idx,
            expand,
            chunk_size,
            is_outproj_norm,
        )
        self.mimo_rank, self.num_bc_heads, self.num_rope_angles = self.rank, ngroups, self.angles

    def forward(self, u: Tensor, seq_idx=None, cu_seqlens=None, inference_params=None) -> Tensor:
        """(batch, length, d_model) to the same."""
        return self.with_cache(u, inference_params, seq_idx, cu_seqlens)

    def mix(self, x: Tensor, **given):
        return core_mamba3.Mamba3.forward(self, x, **given)

    def cache_shapes(self) -> tuple[tuple[int, ...], ...]:
        heads, k, v = self.nheads, self.d_state, self.headdim
        return (heads, self.angles), (heads, v, k), (self.rank, heads, k), (heads, v)


def _packed(x: Tensor, seq_idx: Tensor | None, cu_seqlens: Tensor | None) -> dict:
    if seq_idx is None and cu_seqlens is not None:
        seq_idx = seq_idx_from_cu_seqlens(cu_seqlens, x.shape[1])
    return {} if seq_idx is None else {"seq_idx": seq_idx}


def _no_process_group(process_group) -> None:
    if process_group is not None:
        raise UserError("tensor parallel layers are not offered", given="process_group", allowed="process_group=None")
