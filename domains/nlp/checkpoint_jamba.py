"""Jamba's config.json and key names (arXiv 2403.19887; transformers' JambaForCausalLM), and LanguageModel's.

Its layers are Mamba with learned norms or attention without positions, each followed by a gated MLP or a mixture of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.mixers import Attention
from ...core.moe import MixtureOfExperts
from .models.language_model import LanguageModel

# Their key, or what it ends with behind "model.layers.<n>.", and ours; the parts of a matrix lie one below the other in ours.
WHOLE = {
    "model.embed_tokens.weight": "backbone.embedding.weight",
    "model.final_layernorm.weight": "backbone.norm_f.weight",
    "lm_head.weight": "lm_head.weight",
}
IN_LAYER = {
    "input_layernorm.weight": "norm.weight",
    "pre_ff_layernorm.weight": "norm2.weight",
    "self_attn.o_proj.weight": "mixer.out_proj.weight",
    "feed_forward.down_proj.weight": "mlp.fc2.weight",
    "feed_forward.router.weight": "mlp.router.weight",
    "feed_forward.experts.down_proj": "mlp.fc2",
}
PARTS = {
    "mixer.in_proj.weight": [f"self_attn.{name}_proj.weight" for name in "qkv"],
    "mlp.fc1.weight": [f"feed_forward.{name}_proj.weight" for name in ("up", "gate")],
}
EXPERTS = {"mlp.fc1": ("up", "gate"), "mlp.fc2": ("down",)}
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


def arguments_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """LanguageModel's arguments for Jamba's config.json."""
    if config.get("hidden_act", "silu") != "silu":
        raise UserError("only SiLU is known here", given=f"hidden_act={config['hidden_act']}", allowed="silu")
    layers, experts, eps = config["num_hidden_layers"], config["num_experts"], config.get("rms_norm_eps", 1e-6)

    def every(kind: str) -> list[int]:
        period, offset = config[f"{kind}_layer_period"], config[f"{kind}_layer_offset"]
        return [layer for layer in range(layers) if layer % period == offset]

    heads = config["num_attention_heads"]
    return {
        "vocab_size": config["vocab_size"], "d_model": config["hidden_size"], "n_layer": layers, "mixer": "mamba",
        "mixer_options": {
            "d_state": config["mamba_d_state"], "d_conv": config["mamba_d_conv"], "expand": config["mamba_expand"],
            "dt_rank": config["mamba_dt_rank"], "conv_bias": config["mamba_conv_bias"],
            "bias": config["mamba_proj_bias"], "norms": "learned", "norm_eps": eps,
        },
        "attention_layers": every("attn"),
        "attention_options": {"num_heads": heads, "num_heads_kv": config.get("num_key_value_heads") or heads},
        "d_intermediate": config["intermediate_size"], "mlp_options": {"multiple_of": 1},
        "experts": experts if experts > 1 else 0, "expert_layers": every("expert") if experts > 1 else None,
        "experts_options": {
            "top_k": config["num_experts_per_tok"], "capacity_factor": None, "activation": "silu", "gated": True,
        } if experts > 1 else {},
        "norm_eps": eps, "tie_embeddings": config.get("tie_word_embeddings", False), "pad_vocab_size_multiple": 1,
        "residual_in_fp32": False,
    }  # fmt: skip


def config_of(model: LanguageModel) -> dict[str, Any]:
    """Jamba's config.json of a model.

    Raises:
        UserError: a model that Jamba's words do not describe.
    """
    _check(model)
    mixing = {"d_state": 16, "d_conv": 4, "expand": 2, "dt_rank": "auto", "bias": False, "conv_bias": True}
    mixing |= model.mixer_options
    rank = math.ceil(model.d_model / 16) if mixing["dt_rank"] == "auto" else mixing["dt_rank"]
    attention, layers = model.attention_options, len(model.layers)
    heads = attention.get("num_heads", 1)
    expert_layers = [number for number, layer in enumerate(model.layers) if isinstance(layer.mlp, MixtureOfExperts)]
    periods = {}
    for kind, places in (("attn", model.attention_layers), ("expert", expert_layers)):
        periods[f"{kind}_layer_period"], periods[f"{kind}_layer_offset"] = _period(kind, places, layers)
    return {
        "model_type": "jamba", "architectures": ["JambaForCausalLM"], "vocab_size": model.lm_head.out_features,
        "hidden_size": model.d_model, "intermediate_size": model.d_intermediate, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": attention.get("num_heads_kv") or heads,
        "hidden_act": "silu", "rms_norm_eps": model.norm_eps, "tie_word_embeddings": model.tie_embeddings,
        "num_experts": model.experts or 1, "num_experts_per_tok": model.experts_options.get("top_k", 1), **periods,
        "mamba_d_state": mixing["d_state"], "mamba_d_conv": mixing["d_conv"] or 4, "mamba_expand": mixing["expand"],
        "mamba_dt_rank": rank, "mamba_conv_bias": mixing["conv_bias"], "mamba_proj_bias": mixing["bias"],
    }  # fmt: skip


def to_ours(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LanguageModel's names for Jamba's weights; experts one by one, as published, or already joined.

    A key that is not known keeps its name, a matrix of which a part is missing is left out: the check of names says so.
    """
    found, layers = {}, {}
    for key, tensor in weights.items():
        match = LAYER.fullmatch(key)
        if match is None:
            found[WHOLE.get(key, key)] = tensor
        else:
            layers.setdefault(match[1], {})[match[2]] = tensor
    for number, layer in layers.items():
        found |= {f"backbone.layers.{number}.{name}": tensor for name, tensor in _layer_to_ours(layer).items()}
    return found


def to_theirs(weights: Mapping[str, Tensor], model: LanguageModel) -> dict[str, Tensor]:
    """Jamba's names, as published, for a LanguageModel's weights."""
    back = {ours: theirs for theirs, ours in WHOLE.items()}
    found = {back[key]: tensor for key, tensor in weights.items() if key in back}
    for number, layer in enumerate(model.layers):
        ours, theirs = f"backbone.layers.{number}.", f"model.layers.{number}."
        given = {key.removeprefix(ours): tensor for key, tensor in weights.items() if key.startswith(ours)}
        attends = isinstance(layer.mixer, Attention)
        sizes = [layer.mixer.num_heads, *[layer.mixer.num_heads_kv] * 2] if attends else None
        found |= {theirs + name: tensor for name, tensor in _layer_to_theirs(given, sizes).items()}
    return {name: tensor.contiguous() for name, tensor in found.items()}


def _layer_to_ours(layer: dict[str, Tensor]) -> dict[str, Tensor]:
    layer, found = dict(layer), {}
    for ours, parts in PARTS.items():
        if all(part in layer for part in parts):
            found[ours] = torch.cat([layer.pop(part) for part in parts])
    for ours, parts in EXPERTS.items():
        experts = []
        while all(_expert(len(experts), part) in layer for part in parts):
            experts.append(torch.cat([layer.pop(_expert(len(experts), part)) for part in parts]))
        if experts:
            found[ours] = torch.stack(experts)
    joined = layer.pop("feed_forward.experts.gate_up_proj", None)
    if joined is not None:
        found["mlp.fc1"] = torch.cat(joined.chunk(2, 1)[::-1], 1)
    for key, tensor in layer.items():
        found[IN_LAYER.get(key, re.sub(r"^mamba\.", "mixer.", key))] = tensor
    return found


def _layer_to_theirs(layer: dict[str, Tensor], heads: Sequence[int] | None) -> dict[str, Tensor]:
    """heads: query, key and value heads of an attention layer."""
    back, found = {ours: theirs for theirs, ours in IN_LAYER.items()}, {}
    sizes = {"mlp.fc1.weight": (1, 1)} | ({} if heads is None else {"mixer.in_proj.weight": heads})
    for name, tensor in layer.items():
        if name in EXPERTS:
            for number, expert in enumerate(tensor):
                for part, rows in zip(EXPERTS[name], expert.chunk(len(EXPERTS[name])), strict=True):
                    found[_expert(number, part)] = rows
        elif name in sizes:
            each = len(tensor) // sum(sizes[name])
            found |= dict(zip(PARTS[name], tensor.split([each * size for size in sizes[name]]), strict=True))
        elif name.startswith("mixer.") and heads is None:
            found[name.replace("mixer.", "mamba.", 1)] = tensor
        else:
            found[back[name]] = tensor
    return found


def _expert(number: int, part: str) -> str:
    return f"feed_forward.experts.{number}.{part}_proj.weight"


def _period(kind: str, places: Sequence[int], layers: int) -> tuple[int, int]:
    """The period and offset at which layers have something."""
    if not places:
        return layers + 1, layers
    period = places[1] - places[0] if len(places) > 1 else max(layers, 1)
    if list(places) != [layer for layer in range(layers) if layer % period == places[0]]:
        raise UserError(f"Jamba's {kind} layers come at equal distances", given=list(places))
    return period, places[0]


def _check(model: LanguageModel) -> None:
    """Raises UserError where a model has what Jamba's config.json has no words for."""
    attention, mixing, experts = model.attention_options, model.mixer_options, model.experts_options
    extra = {key for key, value in attention.items() if value and key not in ("num_heads", "num_heads_kv", "causal")}
    wrong = {
        "layers without an MLP": not model.d_intermediate or not all(layer.has_mlp for layer in model.layers),
        "mixers without learned norms": model.mixer != "mamba" or mixing.get("norms") != "learned",
        "norms of unequal eps": mixing.get("norm_eps", 1e-6) != model.norm_eps,
        "layers that read another way": {"gate", "conv", "parameters"} & set(mixing),
        f"attention with {', '.join(sorted(extra))}": extra,
        "MLPs of another size than d_intermediate": any(
            getattr(layer.mlp, "d_hidden", model.d_intermediate) != model.d_intermediate
            for layer in model.layers if layer.has_mlp
        ),
        "experts of another kind": model.experts and not (
            experts.get("gated") and experts.get("activation") == "silu" and not experts.get("normalise")
            and experts.get("scores", "softmax") == "softmax" and experts.get("eval_capacity_factor") is None
        ),
    }  # fmt: skip
    found = [words for words, given in wrong.items() if given]
    if found:
        raise UserError("transformers has no such model", given="; ".join(found), allowed="Jamba as published")
