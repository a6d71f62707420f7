"""mamba_ssm's residual blocks and what stands in them beside its mixers (modules/block.py, mha.py, mlp.py), and its backbone.

A layer's cache lies in `inference_params.key_value_memory_dict` under its number, as upstream.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core import mlp as core_mlp
from ..core.errors import UserError
from ..core.initialisation import scale_output_projections
from ..core.mixers.attention import Attention, AttentionState
from ..core.stack import normalised
from . import modules
from .norms import RMSNorm

LAYERS = {"Mamba1": modules.Mamba, "Mamba2": modules.Mamba2, "Mamba3": modules.Mamba3}


class MHA(Attention):
    """mamba_ssm's attention. Its cache: keys and values (batch, max_seqlen, 2, key/value heads, head_dim), and what the
    convolution last read (batch, channels, d_conv), or None."""

    def __init__(
        self, embed_dim, num_heads, num_heads_kv=None, head_dim=None, mlp_dim=0, qkv_proj_bias=True, out_proj_bias=True,
        softmax_scale=None, causal=False, layer_idx=None, d_conv=0, rotary_emb_dim=0, rotary_emb_base=10000.0,
        rotary_emb_interleaved=False, device=None, dtype=None,
    ):  # fmt: skip
        size = head_dim or embed_dim // num_heads
        super().__init__(
            embed_dim, num_heads, num_heads_kv, head_dim, causal, rotary_emb_dim / size, rotary_emb_base, rotary_emb_interleaved,
            qkv_proj_bias, out_proj_bias, d_conv, mlp_dim=mlp_dim, softmax_scale=softmax_scale, device=device, dtype=dtype,
        )  # fmt: skip
        self.layer_idx = layer_idx

    def forward(self, x: Tensor, inference_params=None) -> Tensor:
        """(batch, length, embed_dim) to the same; with inference_params it goes on from the cache, or begins one."""
        if inference_params is None:
            return super().forward(x)[0]
        if self.layer_idx is None:
            raise UserError("a layer with a cache needs its number", do="layer_idx=0 (1, 2, ...)")
        caches, offset = inference_params.key_value_memory_dict, inference_params.seqlen_offset
        if self.layer_idx not in caches:
            caches[self.layer_idx] = self.allocate_inference_cache(x.shape[0], inference_params.max_seqlen, x.dtype)
        pairs, conv = (None if t is None else t[: x.shape[0]] for t in caches[self.layer_idx])
        state = None
        if offset:
            key, value = pairs[:, :offset].unbind(2)
            state = AttentionState(key, value, None, None if conv is None else conv[..., 1:].float())
        y, after = super().forward(x, None, state)
        with torch.no_grad():
            for place, new in enumerate((after.key, after.value)):
                pairs[:, offset : offset + x.shape[1], place] = new[:, offset:]
            if conv is not None:
                conv.copy_(F.pad(after.conv, (1, 0)))
        return y

    def allocate_inference_cache(self, batch_size: int, max_seqlen: int, dtype=None):
        """An empty cache for so many tokens."""
        like = next(self.parameters(), torch.empty(0))
        kind = {"device": like.device, "dtype": dtype or like.dtype}
        conv = None if self.conv1d is None else torch.zeros(batch_size, self._wide, self.d_conv, **kind)
        return torch.zeros(batch_size, max_seqlen, 2, self.num_heads_kv, self.head_dim, **kind), conv


class GatedMLP(core_mlp.GatedMLP):
    """mamba_ssm's gated MLP; activation must be SiLU, out_features in_features."""

    def __init__(
        self, in_features, hidden_features=None, out_features=None, activation=F.silu, bias=False, multiple_of=128, device=None,
        dtype=None,
    ):  # fmt: skip
        if activation is not F.silu or out_features not in (None, in_features):
            raise UserError(
                "only SiLU and as many channels out as in are offered",
                given=f"{activation}, out_features={out_features}",
            )
        super().__init__(in_features, hidden_features, multiple_of, "silu", bias, device, dtype)


def swiglu(xy: Tensor, out: Tensor | None = None) -> Tensor:
    """silu(x) y of the two halves of the last axis, in the input's dtype; written to `out` where given."""
    x, y = xy.chunk(2, dim=-1)
    found = (F.silu(x.float()) * y.float()).to(xy.dtype)
    return found if out is None else out.copy_(found)


class SwiGLU:
    """swiglu as upstream's own class is called."""

    apply = staticmethod(swiglu)


class Block(nn.Module):
    """Add, norm, mixer, and where there is an MLP add, norm, MLP: upstream's block.

    Args:
        dim: channels.
        mixer_cls, mlp_cls, norm_cls: make a module from `dim`; mlp_cls nn.Identity or None: no MLP.
        fused_add_norm: accepted and ignored, the result is the same.
        residual_in_fp32: keep the residual in float32.
    """

    def __init__(
        self, dim, mixer_cls, mlp_cls=None, norm_cls=nn.LayerNorm, fused_add_norm=False, residual_in_fp32=False
    ):
        super().__init__()
        self.residual_in_fp32, self.fused_add_norm = residual_in_fp32, fused_add_norm
        self.norm, self.mixer, self.mlp = norm_cls(dim), mixer_cls(dim), None
        if mlp_cls not in (None, nn.Identity):
            self.norm2, self.mlp = norm_cls(dim), mlp_cls(dim)

    def forward(
        self, hidden_states: Tensor, residual: Tensor | None = None, inference_params=None, **mixer_kwargs
    ) -> tuple[Tensor, Tensor]:
        """What the layer says and the residual before it, both (batch, length, dim)."""
        residual = self._add(hidden_states, residual)
        x = normalised(self.norm, residual)
        hidden_states = self.mixer(x, inference_params=inference_params, **mixer_kwargs)
        if self.mlp is not None:
            residual = self._add(hidden_states, residual)
            hidden_states = self.mlp(normalised(self.norm2, residual))
        return hidden_states, residual

    def allocate_inference_cache(self, batch_size: int, max_seqlen: int, dtype=None, **kwargs):
        """The mixer's empty cache."""
        return self.mixer.allocate_inference_cache(batch_size, max_seqlen, dtype=dtype, **kwargs)

    def _add(self, hidden: Tensor, residual: Tensor | None) -> Tensor:
        residual = hidden if residual is None else hidden + residual
        return residual.float() if self.residual_in_fp32 else residual


def create_block(
    d_model, d_intermediate=0, ssm_cfg=None, attn_layer_idx=None, attn_cfg=None, norm_epsilon=1e-5, rms_norm=False,
    residual_in_fp32=False, fused_add_norm=False, layer_idx=None, device=None, dtype=None,
) -> Block:  # fmt: skip
    """The block of one layer of a language model, as MambaConfig describes it."""
    factory, options = {"device": device, "dtype": dtype}, dict(ssm_cfg or {})
    name = options.pop("layer", "Mamba1")
    if name not in LAYERS:
        raise UserError("unknown layer", given=f"ssm_cfg layer={name}", allowed=LAYERS)
    if layer_idx in (attn_layer_idx or ()):
        mixer = partial(MHA, layer_idx=layer_idx, **(attn_cfg or {}), **factory)
    else:
        mixer = partial(LAYERS[name], layer_idx=layer_idx, **options, **factory)
    norm = partial(RMSNorm if rms_norm else nn.LayerNorm, eps=norm_epsilon, **factory)
    mlp = partial(GatedMLP, hidden_features=d_intermediate, **factory) if d_intermediate else None
    block = Block(d_model, mixer, mlp, norm, fused_add_norm, residual_in_fp32)
    block.layer_idx = layer_idx
    return block


def init_weights(
    module: nn.Module, n_layer: int, initializer_range=0.02, rescale_prenorm_residual=True, n_residuals_per_layer=1
) -> None:
    """What `model.apply` calls to begin a language model: no bias in linear layers, normal embeddings, and output projections
    drawn anew over sqrt(residual additions)."""
    if isinstance(module, nn.Linear) and module.bias is not None and not getattr(module.bias, "_no_reinit", False):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=initializer_range)
    for name, parameter in module.named_parameters():
        if rescale_prenorm_residual and name in ("out_proj.weight", "fc2.weight"):
            nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
            with torch.no_grad():
                parameter.div_(math.sqrt(n_residuals_per_layer * n_layer))


class MixerModel(nn.Module):
    """Embedding, blocks and final norm: (batch, length) token numbers to (batch, length, d_model)."""

    def __init__(
        self, d_model, n_layer, d_intermediate, vocab_size, ssm_cfg=None, attn_layer_idx=None, attn_cfg=None, norm_epsilon=1e-5,
        rms_norm=False, initializer_cfg=None, fused_add_norm=False, residual_in_fp32=False, device=None, dtype=None,
    ):  # fmt: skip
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.embedding = nn.Embedding(vocab_size, d_model, **factory)
        self.layers = nn.ModuleList(
            create_block(
                d_model, d_intermediate, ssm_cfg, attn_layer_idx, attn_cfg, norm_epsilon, rms_norm, residual_in_fp32,
                fused_add_norm, layer_idx, **factory,
            )
            for layer_idx in range(n_layer)
        )  # fmt: skip
        self.norm_f = (RMSNorm if rms_norm else nn.LayerNorm)(d_model, eps=norm_epsilon, **factory)
        chosen = {"initializer_range": 0.02, "rescale_prenorm_residual": True, **(initializer_cfg or {})}
        per_layer = chosen.get("n_residuals_per_layer", 2 if d_intermediate else 1)
        nn.init.normal_(self.embedding.weight, std=chosen["initializer_range"])
        for module in self.modules():
            bias = getattr(module, "bias", None)
            if isinstance(module, nn.Linear) and bias is not None and not getattr(bias, "_no_reinit", False):
                nn.init.zeros_(bias)
        if chosen["rescale_prenorm_residual"]:
            scale_output_projections(self, n_layer, per_layer)

    def forward(self, input_ids: Tensor, inference_params=None, **mixer_kwargs) -> Tensor:
        """The normalised end of the residual stream."""
        hidden, residual = self.embedding(input_ids), None
        for layer in self.layers:
            hidden, residual = layer(hidden, residual, inference_params=inference_params, **mixer_kwargs)
        return normalised(self.norm_f, hidden if residual is None else hidden + residual)

    def allocate_inference_cache(self, batch_size: int, max_seqlen: int, dtype=None, **kwargs) -> dict:
        """Every layer's empty cache, by its number."""
        return {
            number: layer.allocate_inference_cache(batch_size, max_seqlen, dtype=dtype, **kwargs)
            for number, layer in enumerate(self.layers)
        }
