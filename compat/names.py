"""Where published code looks for which name: module -> {name: (module of this package, name there)}."""

from __future__ import annotations

SCAN = {name: ("scan", name) for name in (
    "selective_scan_fn", "selective_scan_ref", "mamba_inner_fn", "mamba_inner_fn_no_out_proj", "bimamba_inner_fn",
)}  # fmt: skip
CONVOLUTION = {name: ("convolution", name) for name in ("causal_conv1d_fn", "causal_conv1d_update")}
VARLEN = {"causal_conv1d_varlen_states": ("convolution", "causal_conv1d_varlen_states")}
UPDATE = {"selective_state_update": ("state_update", "selective_state_update")}
DUALITY = {name: ("duality", name) for name in ("mamba_chunk_scan_combined", "mamba_split_conv1d_scan_combined")}
NORM = {name: ("norms", name) for name in ("RMSNorm", "layer_norm_fn", "rms_norm_fn")}
GATED = {
    "RMSNorm": ("norms", "RMSNormGated"),
    "LayerNorm": ("norms", "LayerNormGated"),
    "rmsnorm_fn": ("norms", "rmsnorm_fn"),
    "layernorm_fn": ("norms", "layernorm_fn"),
}
MAMBA, MAMBA2, MAMBA3 = ({name: ("modules", name)} for name in ("Mamba", "Mamba2", "Mamba3"))
BLOCK = {"Block": ("blocks", "Block")}
MODEL = {"MambaLMHeadModel": ("language_model", "MambaLMHeadModel")}
MODELS = MODEL | {name: ("blocks", name) for name in ("MixerModel", "create_block")}
CONFIG = {"MambaConfig": ("language_model", "MambaConfig")}
GENERATION = {name: ("generation", name) for name in ("InferenceParams", "GenerationMixin", "decode")}

PARALLEL = {name: ("parallel", name) for name in (
    "ColumnParallelLinear", "RowParallelLinear", "all_reduce", "all_gather", "reduce_scatter",
)}  # fmt: skip
DETERMINISM = {name: ("parallel", name) for name in ("set_deterministic_mode", "use_deterministic_mode")}

MODULES: dict[str, dict[str, tuple[str, str]]] = {
    "mamba_ssm": SCAN | MAMBA | MAMBA2 | MAMBA3 | MODEL | UPDATE | DUALITY,
    "mamba_ssm.ops": {},
    "mamba_ssm.ops.selective_scan_interface": SCAN,
    "mamba_ssm.ops.triton": {},
    "mamba_ssm.ops.triton.selective_state_update": UPDATE,
    "mamba_ssm.ops.triton.ssd_combined": DUALITY,
    "mamba_ssm.ops.triton.layer_norm": NORM,
    # The name that Vim's fork and older releases have.
    "mamba_ssm.ops.triton.layernorm": NORM,
    "mamba_ssm.ops.triton.layernorm_gated": GATED,
    "mamba_ssm.modules": {},
    "mamba_ssm.modules.mamba_simple": MAMBA | BLOCK,
    "mamba_ssm.modules.block": BLOCK,
    "mamba_ssm.modules.mha": {"MHA": ("blocks", "MHA")},
    "mamba_ssm.modules.mlp": {"GatedMLP": ("blocks", "GatedMLP")},
    "mamba_ssm.modules.mamba2": MAMBA2,
    "mamba_ssm.modules.mamba2_simple": {"Mamba2Simple": ("modules", "Mamba2Simple")},
    "mamba_ssm.modules.mamba3": MAMBA3,
    "mamba_ssm.models": {},
    "mamba_ssm.models.config_mamba": CONFIG,
    "mamba_ssm.models.mixer_seq_simple": MODELS,
    "mamba_ssm.utils": {},
    "mamba_ssm.utils.generation": GENERATION,
    "mamba_ssm.utils.hf": {name: ("language_model", name) for name in ("load_config_hf", "load_state_dict_hf")},
    "mamba_ssm.utils.determinism": DETERMINISM,
    "mamba_ssm.distributed": {},
    "mamba_ssm.distributed.tensor_parallel": PARALLEL,
    "mamba_ssm.distributed.distributed_utils": PARALLEL,
    "causal_conv1d": CONVOLUTION,
    "causal_conv1d.causal_conv1d_interface": CONVOLUTION,
    "causal_conv1d.causal_conv1d_varlen": VARLEN,
}
VERSIONS = {"mamba_ssm": "2.3.2", "causal_conv1d": "1.6.0"}
