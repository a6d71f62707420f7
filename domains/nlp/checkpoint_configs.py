"""What config.json says in mamba_ssm's words and in transformers', as LanguageModel's arguments, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...core.errors import UserError
from ...core.mixers import Attention
from . import checkpoint_jamba
from .models.language_model import LanguageModel

NAMINGS = ("mamba_ssm", "transformers")
KINDS = ("mamba", "mamba2", "falcon_mamba", "jamba")
LAYERS = {"Mamba1": "mamba", "Mamba2": "mamba2", "Mamba3": "mamba3"}
# mamba_ssm's arguments that choose one of its kernels, or that stand for what here follows from other things.
KERNEL_CHOICES = ("layer", "chunk_size", "use_fast_path", "use_mem_eff_path", "fuse_pregate_headwise_norm")
DEFAULTS = {
    "mamba": {"d_state": 16, "d_conv": 4, "expand": 2, "dt_rank": "auto"},
    "mamba2": {"d_state": 128, "d_conv": 4, "expand": 2, "headdim": 64, "ngroups": 1, "norm_eps": 1e-5},
}
# Options of Mamba-2 that transformers' has no words for, and what it always has.
ONLY_MAMBA_SSM = {"d_ssm": None, "D_has_hdim": False, "rmsnorm": True, "norm_before_gate": False}
# mamba_ssm's norms all have this one.
MAMBA_SSM_EPS = 1e-5


def arguments_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """LanguageModel's arguments for a config.json of either naming.

    Raises:
        UserError: a kind of model that is not known here.
    """
    kind = config.get("model_type")
    # Files that transformers converted hold mamba_ssm's words besides its own, which are the ones that count.
    theirs = kind in KINDS and "hidden_size" in config
    if not theirs and "d_model" not in config:
        raise UserError("this kind of model is not known here", given=f"model_type={kind}", allowed=KINDS)
    try:
        if not theirs:
            return _from_mamba_ssm(config)
        return checkpoint_jamba.arguments_of(config) if kind == "jamba" else _from_transformers(config, kind)
    except KeyError as error:
        raise UserError(f"config.json lacks {error.args[0]}", given=", ".join(config)) from error


def config_of(model: LanguageModel, naming: str) -> dict[str, Any]:
    """The config.json of a model.

    Raises:
        UserError: a model that the naming has no words for.
    """
    return _to_transformers(model) if naming == "transformers" else _to_mamba_ssm(model)


def _from_mamba_ssm(config: Mapping[str, Any]) -> dict[str, Any]:
    mixing = dict(config.get("ssm_cfg") or {})
    mixer = LAYERS.get(mixing.get("layer", "Mamba1"))
    if mixer is None:
        raise UserError("this kind of model is not known here", given=config, allowed=LAYERS)
    attention = dict(config.get("attn_cfg") or {})
    if attention:
        attention = {
            "num_heads": attention["num_heads"], "num_heads_kv": attention.get("num_heads_kv"),
            "head_dim": attention.get("head_dim"), "causal": attention.get("causal", True),
            "d_conv": attention.get("d_conv", 0), "qkv_bias": attention.get("qkv_proj_bias", True),
            "out_bias": attention.get("out_proj_bias", True), "rotary_base": attention.get("rotary_emb_base", 10_000.0),
            "rotary_fraction": _turned(attention, config["d_model"]),
            "rotary_interleaved": attention.get("rotary_emb_interleaved", False),
            "softmax_scale": attention.get("softmax_scale"), "mlp_dim": attention.get("mlp_dim", 0),
        }  # fmt: skip
    return {
        "vocab_size": config["vocab_size"], "d_model": config["d_model"], "n_layer": config["n_layer"], "mixer": mixer,
        "mixer_options": {key: value for key, value in mixing.items() if key not in KERNEL_CHOICES},
        "attention_layers": config.get("attn_layer_idx") or [], "attention_options": attention,
        "d_intermediate": config.get("d_intermediate", 0), "tie_embeddings": config.get("tie_embeddings", True),
        "pad_vocab_size_multiple": config.get("pad_vocab_size_multiple", 8),
        "residual_in_fp32": config.get("residual_in_fp32", True),
        "norm": "rms" if config.get("rms_norm", True) else "layer",
    }  # fmt: skip


def _turned(attention: Mapping[str, Any], d_model: int) -> float:
    """Share of a head's channels that turn with the position."""
    return attention.get("rotary_emb_dim", 0) / (attention.get("head_dim") or d_model // attention["num_heads"])


def _from_transformers(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    mixing = {
        "d_state": config["state_size"], "d_conv": config["conv_kernel"], "expand": config["expand"],
        "bias": config["use_bias"], "conv_bias": config["use_conv_bias"],
    }  # fmt: skip
    if kind == "mamba2":
        limits = [_number(each) for each in config.get("time_step_limit", (0.0, math.inf))]
        mixing |= {"headdim": config["head_dim"], "ngroups": config["n_groups"], "dt_limit": limits}
        mixing["norm_eps"] = config.get("layer_norm_epsilon", 1e-5)
    else:
        mixing["dt_rank"] = config["time_step_rank"]
        inner = config.get("intermediate_size")
        if inner:
            mixing["expand"] = inner / config["hidden_size"]
    if kind == "falcon_mamba":
        mixing |= {"norms": "weightless", "norm_eps": config.get("mixer_rms_eps", 1e-6)}
    if config.get("hidden_act", "silu") != "silu":
        raise UserError("only SiLU is known here", given=f"hidden_act={config['hidden_act']}", allowed="silu")
    return {
        "vocab_size": config["vocab_size"], "d_model": config["hidden_size"], "n_layer": config["num_hidden_layers"],
        "mixer": "mamba2" if kind == "mamba2" else "mamba", "mixer_options": mixing,
        "norm_eps": config.get("layer_norm_epsilon", 1e-5), "tie_embeddings": config.get("tie_word_embeddings", True),
        "pad_vocab_size_multiple": 1, "residual_in_fp32": config.get("residual_in_fp32", True),
    }  # fmt: skip


def _number(value: Any) -> float:
    """transformers writes infinity, which JSON does not have, as {"__float__": "Infinity"}."""
    return float(value["__float__"] if isinstance(value, Mapping) else value)


def _to_mamba_ssm(model: LanguageModel) -> dict[str, Any]:
    options = _plain_options(model)
    eps, mlps = options.pop("norm_eps", MAMBA_SSM_EPS), [layer.mlp for layer in model.layers if layer.has_mlp]
    norms = options.pop("norms", "none")
    wide = model.d_intermediate and -(-model.d_intermediate // 128) * 128
    if (
        model.experts or norms != "none" or model.norm_eps != MAMBA_SSM_EPS
        or (model.mixer == "mamba2" and eps != MAMBA_SSM_EPS)
        or any((mlp.d_hidden, mlp.activation, mlp.fc1.bias) != (wide, "silu", None) for mlp in mlps)
    ):  # fmt: skip
        raise UserError(
            "mamba_ssm's config.json has no words for this model", given=_features(model), do="naming=transformers"
        )
    if tuple(options.get("dt_limit", ())) == (0.0, math.inf):
        del options["dt_limit"]
    layer = next(name for name, mixer in LAYERS.items() if mixer == model.mixer)
    attention = _attention_config(model.layers[model.attention_layers[0]].mixer) if model.attention_layers else {}
    return {
        "d_model": model.d_model, "d_intermediate": model.d_intermediate, "n_layer": len(model.layers),
        "vocab_size": model.vocab_size, "ssm_cfg": {"layer": layer, **options},
        "attn_layer_idx": model.attention_layers, "attn_cfg": attention, "rms_norm": model.norm == "rms",
        "residual_in_fp32": model.residual_in_fp32, "fused_add_norm": True,
        "pad_vocab_size_multiple": model.pad_vocab_size_multiple, "tie_embeddings": model.tie_embeddings,
    }  # fmt: skip


def _attention_config(mixer: Attention) -> dict[str, Any]:
    """The arguments of mamba_ssm's MHA."""
    if mixer.conv1d is not None and mixer.conv1d.bias is None:
        raise UserError("mamba_ssm's attention has a convolution with a bias", given="conv_bias=False")
    return {
        "num_heads": mixer.num_heads, "num_heads_kv": mixer.num_heads_kv, "head_dim": mixer.head_dim,
        "causal": mixer.causal, "d_conv": 0 if mixer.conv1d is None else mixer.conv1d.kernel_size[0],
        "mlp_dim": mixer.mlp_dim, "qkv_proj_bias": mixer.in_proj.bias is not None,
        "out_proj_bias": mixer.out_proj.bias is not None, "softmax_scale": mixer.softmax_scale,
        "rotary_emb_dim": mixer.rotary_size, "rotary_emb_base": mixer.rotary_base,
        "rotary_emb_interleaved": mixer.rotary_interleaved,
    }  # fmt: skip


def _to_transformers(model: LanguageModel) -> dict[str, Any]:
    options = _plain_options(model)
    norms = options.get("norms", "none")
    if norms == "learned":
        return checkpoint_jamba.config_of(model)
    mixing = {**DEFAULTS.get(model.mixer, {}), **options}
    if (
        model.attention_layers or model.d_intermediate or model.mixer not in DEFAULTS or model.norm != "rms"
        or any(mixing.get(option, usual) != usual for option, usual in ONLY_MAMBA_SSM.items())
        or (model.mixer == "mamba2" and mixing["norm_eps"] != model.norm_eps)
    ):  # fmt: skip
        raise UserError("transformers has no such model", given=_features(model), do="naming=mamba_ssm")
    kind = "falcon_mamba" if norms == "weightless" else model.mixer
    config = {
        "model_type": kind,
        "architectures": [{"mamba": "Mamba", "mamba2": "Mamba2", "falcon_mamba": "FalconMamba"}[kind] + "ForCausalLM"],
        "vocab_size": model.lm_head.out_features, "hidden_size": model.d_model, "num_hidden_layers": len(model.layers),
        "state_size": mixing["d_state"], "conv_kernel": mixing["d_conv"] or 4, "expand": mixing["expand"],
        "use_bias": mixing.get("bias", False), "use_conv_bias": mixing.get("conv_bias", True), "hidden_act": "silu",
        "layer_norm_epsilon": model.norm_eps, "residual_in_fp32": model.residual_in_fp32,
        "tie_word_embeddings": model.tie_embeddings,
    }  # fmt: skip
    if kind == "mamba2":
        limits = list(mixing.get("dt_limit", (0.0, math.inf)))
        heads = int(mixing["expand"] * model.d_model) // mixing["headdim"]
        return config | {
            "head_dim": mixing["headdim"], "num_heads": heads, "n_groups": mixing["ngroups"], "time_step_limit": limits
        }  # fmt: skip
    rank = math.ceil(model.d_model / 16) if mixing["dt_rank"] == "auto" else mixing["dt_rank"]
    config |= {"time_step_rank": rank, "intermediate_size": int(mixing["expand"] * model.d_model)}
    return config | ({"mixer_rms_eps": mixing.get("norm_eps", 1e-6)} if kind == "falcon_mamba" else {})


def _plain_options(model: LanguageModel) -> dict[str, Any]:
    """The mixers' options without the scan, which is the one that reads forwards."""
    return {key: value for key, value in model.mixer_options.items() if key not in ("scan", "merge")}


def _features(model: LanguageModel) -> str:
    return f"{model.mixer} {_plain_options(model)}, attention in {model.attention_layers}, {model.experts} experts"
