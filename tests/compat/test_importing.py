"""Imports of mamba_ssm and causal_conv1d: found where the real packages are absent, never over them unless asked."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys

import pytest

from polymamba import compat
from polymamba.compat.names import ABSENT, ABSENT_MODULES, MODULES


@pytest.fixture
def installed():
    assert importlib.util.find_spec("mamba_ssm") is None
    yield compat.install()
    compat.uninstall()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("module", MODULES)
def test_every_name_is_there(module):
    found = importlib.import_module(module)
    for name in MODULES[module]:
        assert callable(getattr(found, name)), name
    assert found.__spec__.name == module
    with pytest.raises(AttributeError, match=module):
        _ = found.no_such_name


# Upstream's public names by module (mamba_ssm 2.3, causal_conv1d 1.7).
UPSTREAM = {
    "mamba_ssm": "selective_scan_fn mamba_inner_fn Mamba Mamba2 Mamba3 MambaLMHeadModel __version__",
    "mamba_ssm.distributed.distributed_utils": "all_gather_raw reduce_scatter_raw all_reduce_raw all_gather reduce_scatter "
    "all_reduce AllGatherFunc ReduceScatterFunc AllReduceFunc sync_shared_params allreduce_sequence_parallel_grad "
    "get_dim_for_local_rank",
    "mamba_ssm.distributed.tensor_parallel": "ParallelLinearFunc parallel_linear_func ColumnParallelLinear RowParallelLinear "
    "VocabParallelEmbedding ColumnParallelEmbedding ParallelEmbeddings",
    "mamba_ssm.models.config_mamba": "MambaConfig",
    "mamba_ssm.models.mixer_seq_simple": "create_block _init_weights MixerModel MambaLMHeadModel Block RMSNorm",
    "mamba_ssm.modules.block": "Block RMSNorm layer_norm_fn",
    "mamba_ssm.modules.mamba2": "Mamba2 RMSNormGated mamba_chunk_scan_combined selective_state_update",
    "mamba_ssm.modules.mamba2_simple": "Mamba2Simple",
    "mamba_ssm.modules.mamba3": "Mamba3",
    "mamba_ssm.modules.mamba_simple": "Mamba selective_scan_fn mamba_inner_fn causal_conv1d_fn selective_state_update",
    "mamba_ssm.modules.mha": "MHA",
    "mamba_ssm.modules.mlp": "GatedMLP",
    "mamba_ssm.modules.ssd_minimal": "segsum_unstable segsum ssd_minimal_discrete",
    "mamba_ssm.ops.cute.mamba3.mamba3_step_fn": "mamba3_step_fn",
    "mamba_ssm.ops.selective_scan_interface": "SelectiveScanFn rms_norm_forward selective_scan_fn selective_scan_ref "
    "MambaInnerFn mamba_inner_fn mamba_inner_ref",
    "mamba_ssm.ops.tilelang.mamba3.mamba3_mimo": "mamba3_mimo",
    "mamba_ssm.ops.triton.k_activations": "SwiGLU swiglu _swiglu_fwd _swiglu_bwd",
    "mamba_ssm.ops.triton.layer_norm": "layer_norm_ref rms_norm_ref LayerNormFn layer_norm_fn rms_norm_fn RMSNorm "
    "LayerNormLinearFn layer_norm_linear_fn _layer_norm_fwd _layer_norm_bwd",
    "mamba_ssm.ops.triton.layernorm_gated": "rms_norm_ref LayerNormFn layernorm_fn rmsnorm_fn LayerNorm RMSNorm _layer_norm_fwd",
    "mamba_ssm.ops.triton.mamba3.mamba3_siso_combined": "mamba3_siso_combined",
    "mamba_ssm.ops.triton.selective_state_update": "selective_state_update selective_state_update_ref",
    "mamba_ssm.ops.triton.softplus": "softplus",
    "mamba_ssm.ops.triton.ssd_bmm": "_bmm_chunk_fwd _bmm_chunk_bwd",
    "mamba_ssm.ops.triton.ssd_chunk_scan": "ChunkScanFn chunk_scan chunk_scan_ref _chunk_scan_fwd _chunk_scan_bwd_dx",
    "mamba_ssm.ops.triton.ssd_chunk_state": "ChunkStateFn chunk_state chunk_state_ref chunk_state_varlen _chunk_cumsum_fwd "
    "_chunk_state_fwd _chunk_cumsum_bwd",
    "mamba_ssm.ops.triton.ssd_combined": "MambaChunkScanCombinedFn mamba_chunk_scan_combined mamba_chunk_scan "
    "ssd_chunk_scan_combined_ref ssd_selective_scan mamba_conv1d_scan_ref MambaSplitConv1dScanCombinedFn "
    "mamba_split_conv1d_scan_combined mamba_split_conv1d_scan_ref selective_scan_bwd ensure_stride",
    "mamba_ssm.ops.triton.ssd_state_passing": "StatePassingFn state_passing state_passing_ref _state_passing_fwd "
    "_state_passing_bwd",
    "mamba_ssm.utils.determinism": "use_deterministic_mode set_deterministic_mode autotune_configs alloc_tile_workspace "
    "finalize_tile_workspace",
    "mamba_ssm.utils.generation": "InferenceParams modify_logits_for_min_p_filtering modify_logits_for_top_k_filtering "
    "modify_logits_for_top_p_filtering modify_logit_for_repetition_penalty sample decode GenerationMixin DecodingCGCache "
    "update_graph_cache capture_graph",
    "mamba_ssm.utils.hf": "load_config_hf load_state_dict_hf",
    "mamba_ssm.utils.torch": "custom_amp_decorator custom_fwd custom_bwd",
    "causal_conv1d": "causal_conv1d_fn causal_conv1d_update __version__",
    "causal_conv1d.causal_conv1d_interface": "CausalConv1dFn causal_conv1d_fn causal_conv1d_ref causal_conv1d_update "
    "causal_conv1d_update_ref causal_conv1d_fwd_function",
    "causal_conv1d.causal_conv1d_varlen": "causal_conv1d_varlen_states causal_conv1d_varlen_states_ref",
    "causal_conv1d.cpp_functions": "causal_conv1d_fwd_function causal_conv1d_bwd_function causal_conv1d_update_function",
}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("module", "names"), UPSTREAM.items(), ids=list(UPSTREAM))
def test_every_name_of_upstream_is_there_or_says_why_not(module, names):
    gone = next((why for absent, why in ABSENT_MODULES.items() if f"{module}.".startswith(f"{absent}.")), None)
    for name in names.split():
        why = gone or ABSENT.get(module, {}).get(name)
        if why is None:
            exec(f"from {module} import {name}", {})
        else:
            with pytest.raises(ImportError, match=why.split(",")[0]):
                exec(f"from {module} import {name}", {})


@pytest.mark.usefixtures("installed")
def test_absent_names_are_no_present_ones():
    for module, names in ABSENT.items():
        assert not set(names) & set(MODULES[module])
    with pytest.raises(ImportError, match="Mamba-3"):
        from mamba_ssm.ops.triton import mamba3  # noqa: F401
    with pytest.raises(ImportError, match="no_such_module"):
        importlib.import_module("mamba_ssm.ops.no_such_module")


@pytest.mark.usefixtures("installed")
def test_submodules_are_attributes():
    import mamba_ssm

    assert mamba_ssm.modules.mamba_simple.Mamba is mamba_ssm.Mamba
    assert mamba_ssm.__version__.split(".") >= ["2", "3"]


@pytest.mark.usefixtures("installed")
def test_from_imports():
    from causal_conv1d import causal_conv1d_fn
    from mamba_ssm import Mamba
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    from polymamba.compat import convolution, modules, scan

    assert causal_conv1d_fn is convolution.causal_conv1d_fn
    assert Mamba is modules.Mamba
    assert selective_scan_fn is scan.selective_scan_fn


@pytest.mark.usefixtures("installed")
def test_what_copies_of_mamba2_import_says_so_only_where_it_is_used():
    from mamba_ssm.distributed.distributed_utils import all_reduce
    from mamba_ssm.distributed.tensor_parallel import ColumnParallelLinear
    from mamba_ssm.utils.determinism import set_deterministic_mode, use_deterministic_mode

    set_deterministic_mode(False)
    assert use_deterministic_mode()
    for each in (all_reduce, ColumnParallelLinear):
        with pytest.raises(ValueError, match="tensor parallel"):
            each(8, 8, process_group=None)


def test_install_twice_and_uninstall():
    assert compat.install() == compat.install() == ["mamba_ssm", "causal_conv1d"]
    compat.uninstall()
    assert importlib.util.find_spec("mamba_ssm") is None
    compat.uninstall()


def test_a_real_package_is_left_alone_unless_asked(tmp_path, monkeypatch):
    (tmp_path / "mamba_ssm.py").write_text("real = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert compat.install() == ["causal_conv1d"]
    import mamba_ssm

    assert mamba_ssm.real
    assert "mamba_ssm" in compat.install(force=True)
    import mamba_ssm

    assert mamba_ssm.Mamba.__module__ == "polymamba.compat.modules"
    compat.uninstall()
    assert importlib.import_module("mamba_ssm").real
    del sys.modules["mamba_ssm"]


def test_installing_loads_nothing_heavy():
    code = "import sys, polymamba.compat as c; c.install(); import mamba_ssm; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
