"""Where published code looks for which name: module -> {name: (module of this package, name there)}; and what is not offered."""

from __future__ import annotations


def _of(module: str, *names: str) -> dict[str, tuple[str, str]]:
    return {name: (module, name) for name in names}


INNER = ("mamba_inner_fn", "mamba_inner_fn_no_out_proj", "bimamba_inner_fn")
SCAN = _of(
    "scan", "selective_scan_fn", "selective_scan_ref", *INNER, "mamba_inner_ref", "SelectiveScanFn", "MambaInnerFn"
)
CONVOLUTION = _of(
    "convolution",
    "causal_conv1d_fn",
    "causal_conv1d_ref",
    "causal_conv1d_update",
    "causal_conv1d_update_ref",
    "CausalConv1dFn",
)
VARLEN = _of("convolution", "causal_conv1d_varlen_states", "causal_conv1d_varlen_states_ref")
OPERATORS = _of(
    "convolution", "causal_conv1d_fwd_function", "causal_conv1d_bwd_function", "causal_conv1d_update_function"
)
UPDATE = _of("state_update", "selective_state_update", "selective_state_update_ref")
DUALITY = _of("duality", "mamba_chunk_scan_combined", "mamba_split_conv1d_scan_combined")
COMBINED = DUALITY | _of(
    "duality", "MambaChunkScanCombinedFn", "MambaSplitConv1dScanCombinedFn", "ssd_selective_scan", "ssd_chunk_scan_combined_ref",
    "mamba_conv1d_scan_ref", "mamba_split_conv1d_scan_ref", "mamba_chunk_scan",
)  # fmt: skip
CHUNK_STATE = _of("duality_stages", "chunk_state", "chunk_state_ref", "chunk_state_varlen", "ChunkStateFn")
CHUNK_STATE |= {
    "_chunk_cumsum_fwd": ("duality_stages", "chunk_cumsum"),
    "_chunk_state_fwd": ("duality_stages", "chunk_state_forward"),
}
PASSING = _of("duality_stages", "state_passing", "state_passing_ref", "StatePassingFn")
PASSING |= {"_state_passing_fwd": ("duality_stages", "state_passing")}
CHUNK_SCAN = _of("duality_stages", "chunk_scan", "ChunkScanFn") | {"chunk_scan_ref": ("duality_stages", "chunk_scan")}
NORM_FUNCTIONS = _of("norms", "layer_norm_fn", "rms_norm_fn")
NORM = NORM_FUNCTIONS | _of(
    "norms", "RMSNorm", "layer_norm_ref", "rms_norm_ref", "layer_norm_linear_fn", "LayerNormFn", "LayerNormLinearFn"
)
GATED = _of("norms", "rmsnorm_fn", "layernorm_fn") | {
    "RMSNorm": ("norms", "RMSNormGated"),
    "LayerNorm": ("norms", "LayerNormGated"),
    "LayerNormFn": ("norms", "LayerNormGatedFn"),
    "rms_norm_ref": ("norms", "rms_norm_gated_ref"),
}
SWIGLU = _of("blocks", "swiglu", "SwiGLU") | {"_swiglu_fwd": ("blocks", "swiglu")}
MAMBA, MAMBA2, MAMBA3 = (_of("modules", name) for name in ("Mamba", "Mamba2", "Mamba3"))
BLOCK, MHA, MLP = (_of("blocks", name) for name in ("Block", "MHA", "GatedMLP"))
MODEL = _of("language_model", "MambaLMHeadModel")
CONFIG = _of("language_model", "MambaConfig")
HUB = _of("language_model", "load_config_hf", "load_state_dict_hf")
MODELS = MODEL | _of("blocks", "MixerModel", "create_block") | {"_init_weights": ("blocks", "init_weights")}
INFERENCE = _of("generation", "InferenceParams", "GenerationMixin", "decode")
GENERATION = INFERENCE | _of(
    "token_choice", "sample", "modify_logits_for_min_p_filtering", "modify_logits_for_top_k_filtering",
    "modify_logits_for_top_p_filtering", "modify_logit_for_repetition_penalty",
)  # fmt: skip
PARALLEL = _of("parallel", "ColumnParallelLinear", "RowParallelLinear", "all_reduce", "all_gather", "reduce_scatter")
DETERMINISM = _of("parallel", "set_deterministic_mode", "use_deterministic_mode")

MODULES: dict[str, dict[str, tuple[str, str]]] = {
    "mamba_ssm": SCAN | MAMBA | MAMBA2 | MAMBA3 | MODEL | UPDATE | DUALITY,
    "mamba_ssm.ops": {},
    "mamba_ssm.ops.selective_scan_interface": SCAN | _of("convolution", "causal_conv1d_fn") | OPERATORS,
    "mamba_ssm.ops.triton": {},
    "mamba_ssm.ops.triton.selective_state_update": UPDATE,
    "mamba_ssm.ops.triton.ssd_combined": COMBINED,
    "mamba_ssm.ops.triton.ssd_chunk_state": CHUNK_STATE,
    "mamba_ssm.ops.triton.ssd_chunk_scan": CHUNK_SCAN,
    "mamba_ssm.ops.triton.ssd_state_passing": PASSING,
    "mamba_ssm.ops.triton.ssd_bmm": {"_bmm_chunk_fwd": ("duality_stages", "bmm_chunk")},
    "mamba_ssm.ops.triton.k_activations": SWIGLU,
    "mamba_ssm.ops.triton.layer_norm": NORM,
    # The name that Vim's fork and older releases have.
    "mamba_ssm.ops.triton.layernorm": NORM,
    "mamba_ssm.ops.triton.layernorm_gated": GATED,
    "mamba_ssm.modules": {},
    # These modules of upstream also hand on what they import.
    "mamba_ssm.modules.mamba_simple": MAMBA | BLOCK | SCAN | CONVOLUTION | UPDATE | NORM,
    "mamba_ssm.modules.block": BLOCK | NORM,
    "mamba_ssm.modules.mha": MHA | CONVOLUTION,
    "mamba_ssm.modules.mlp": MLP,
    "mamba_ssm.modules.mamba2": MAMBA2 | CONVOLUTION | UPDATE | DUALITY | {"RMSNormGated": GATED["RMSNorm"]},
    "mamba_ssm.modules.mamba2_simple": _of("modules", "Mamba2Simple") | CONVOLUTION | DUALITY,
    "mamba_ssm.modules.mamba3": MAMBA3 | {"RMSNormGated": GATED["RMSNorm"]},
    "mamba_ssm.modules.ssd_minimal": _of("duality_stages", "ssd_minimal_discrete", "segsum", "segsum_unstable")
    | DUALITY,
    "mamba_ssm.models": {},
    "mamba_ssm.models.config_mamba": CONFIG,
    "mamba_ssm.models.mixer_seq_simple": (
        MODELS | CONFIG | MAMBA | MAMBA2 | BLOCK | MHA | MLP | HUB | NORM | _of("generation", "GenerationMixin")
    ),
    "mamba_ssm.utils": {},
    "mamba_ssm.utils.generation": GENERATION,
    "mamba_ssm.utils.hf": HUB,
    "mamba_ssm.utils.torch": _of("parallel", "custom_fwd", "custom_bwd"),
    "mamba_ssm.utils.determinism": DETERMINISM,
    "mamba_ssm.distributed": {},
    "mamba_ssm.distributed.tensor_parallel": PARALLEL,
    "mamba_ssm.distributed.distributed_utils": PARALLEL,
    "causal_conv1d": CONVOLUTION,
    "causal_conv1d.causal_conv1d_interface": CONVOLUTION | OPERATORS,
    "causal_conv1d.causal_conv1d_varlen": VARLEN,
    "causal_conv1d.cpp_functions": OPERATORS,
}
VERSIONS = {"mamba_ssm": "2.3.2", "causal_conv1d": "1.7.0"}

KERNELS = "a part of upstream's GPU kernels, which this core replaces as a whole"
GRAPHS = "a part of upstream's CUDA graphs, which decoding does without here"
PARALLELISM = "a part of tensor parallelism, which is not offered"
TRAPEZOIDAL = "a part of upstream's kernels of Mamba-3; mamba_ssm.Mamba3 runs, and polymamba.core.ops.trapezoidal_scan is its scan"

# Modules of upstream that are absent as a whole -> why; those below them are absent too.
ABSENT_MODULES = {
    "mamba_ssm.ops.cute": TRAPEZOIDAL,
    "mamba_ssm.ops.tilelang": TRAPEZOIDAL,
    "mamba_ssm.ops.triton.mamba3": TRAPEZOIDAL,
    "mamba_ssm.ops.triton.softplus": KERNELS,
}
# Names of upstream that are absent from modules that are there -> why.
ABSENT: dict[str, dict[str, str]] = {
    module: dict.fromkeys(names.split(), why)
    for module, why, names in (
        ("mamba_ssm.ops.selective_scan_interface", KERNELS, "rms_norm_forward"),
        (
            "mamba_ssm.ops.triton.ssd_combined", KERNELS,
            "init_to_zero ensure_stride selective_scan_bwd _chunk_scan_chunk_state_bwd_dx _mamba_chunk_scan_combined_fwd "
            "_mamba_chunk_scan_combined_bwd",
        ),
        (
            "mamba_ssm.ops.triton.ssd_chunk_state", KERNELS,
            "init_to_zero _chunk_cumsum_bwd _chunk_state_bwd_dx _chunk_state_bwd_db _chunk_state_bwd_ddAcs_stable",
        ),
        (
            "mamba_ssm.ops.triton.ssd_chunk_scan", KERNELS,
            "init_to_zero _chunk_scan_fwd _chunk_scan_fwd_wip _chunk_scan_bwd_dz _chunk_scan_bwd_dstates _chunk_scan_bwd_dC "
            "_chunk_scan_bwd_dcb _chunk_scan_bwd_dx _chunk_scan_bwd_ddAcs_unstable _chunk_scan_bwd_ddAcs_stable_old "
            "_chunk_scan_bwd_ddAcs_stable _chunk_scan_bwd_ddAcs_prev",
        ),
        ("mamba_ssm.ops.triton.ssd_state_passing", KERNELS, "_state_passing_bwd"),
        ("mamba_ssm.ops.triton.ssd_bmm", KERNELS, "init_to_zero _bmm_chunk_bwd"),
        ("mamba_ssm.ops.triton.k_activations", KERNELS, "_swiglu_bwd"),
        (
            "mamba_ssm.ops.triton.layer_norm", KERNELS,
            "_layer_norm_fwd _layer_norm_bwd config_prune configs_autotune pruned_configs_autotune",
        ),
        ("mamba_ssm.ops.triton.layernorm_gated", KERNELS, "_layer_norm_fwd _layer_norm_bwd"),
        ("mamba_ssm.modules.mha", KERNELS, "_update_kv_cache"),
        ("mamba_ssm.utils.generation", GRAPHS, "DecodingCGCache update_graph_cache capture_graph"),
        ("mamba_ssm.utils.torch", "what upstream makes custom_fwd and custom_bwd of", "custom_amp_decorator"),
        (
            "mamba_ssm.utils.determinism", KERNELS,
            "autotune_configs alloc_tile_workspace finalize_tile_workspace _estimate_config_cost _filter_configs_by_block_sizes",
        ),
        (
            "mamba_ssm.distributed.tensor_parallel", PARALLELISM,
            "ParallelLinearFunc parallel_linear_func VocabParallelEmbedding ColumnParallelEmbedding ParallelEmbeddings",
        ),
        (
            "mamba_ssm.distributed.distributed_utils", PARALLELISM,
            "all_gather_raw reduce_scatter_raw all_reduce_raw AllGatherFunc ReduceScatterFunc AllReduceFunc sync_shared_params "
            "allreduce_sequence_parallel_grad get_dim_for_local_rank",
        ),
    )
}  # fmt: skip
