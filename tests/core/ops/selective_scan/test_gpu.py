"""The Triton scan: in the interpreter and compiled ahead of time everywhere, on a GPU where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ahead_of_time import resources
from operators import assert_matches_reference, run, selective_scan_call

from polymamba.core.ops.selective_scan import gpu, selective_scan
from polymamba.core.ops.selective_scan.gpu_backward_kernel import scan_backward_kernel
from polymamba.core.ops.selective_scan.gpu_kernels import (
    chain_kernel,
    gate_backward_kernel,
    merge_kernel,
    scan_kernel,
    segment_kernel,
)
from polymamba.core.ops.tolerances import RELATIVE_ERROR

SUPPORT = Path(__file__).parents[3] / "support"
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
OPTIONAL = {"p_d", "p_z", "p_bias", "p_order", "p_seq", "p_carry", "p_initial", "p_grad_state", "p_ungated"}
OPTIONAL |= {"p_dd", "p_dbias", "p_dinitial"}


def interpreted(calls: int, longest: int) -> list[dict]:
    """What tests/support/interpreted.py prints."""
    done = subprocess.run(
        [sys.executable, SUPPORT / "interpreted.py", "selective_scan", str(calls), str(longest)],
        env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_small(results: list[dict]) -> None:
    limit = RELATIVE_ERROR[torch.float32]
    wrong = [r for r in results if not all(error <= limit for error in r["errors"].values())]
    assert not wrong, f"beyond {limit}: {wrong}"


def test_interpreted_kernels_match_the_reference():
    results = interpreted(calls=8, longest=6)
    assert {r["form"] for r in results} == {"whole", "split"}
    assert len(results) == 12
    assert_small(results)


@pytest.mark.slow
def test_interpreted_kernels_match_the_reference_on_the_calls_of_the_cpu_tests_cut_short():
    results = interpreted(calls=200, longest=12)
    assert len(results) == 300
    assert_small(results)


def compiled(
    kernel, states: int, architecture: int, dtype: str = "bf16", absent=(), most=None, **constants
) -> dict[str, int]:
    tile = gpu.tile_of(states, architecture // 10)
    sizes = {"BR": tile.rows, "BN": tile.states, "BW": tile.width, "CHUNK": gpu.CHUNK, "SOFTPLUS": True, "WIDE": False}
    sizes["UNROLL"] = tile.replay if kernel is scan_backward_kernel else tile.unroll
    names = {parameter.name for parameter in kernel.params}
    most = most or (gpu.REGISTERS_BACKWARD if kernel is scan_backward_kernel else gpu.REGISTERS)
    return resources(kernel, architecture, dtype, tile.warps, set(absent) & names, most, **sizes | constants)


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("kernel", [scan_kernel, scan_backward_kernel], ids=["forward", "backward"])
def test_no_spills_with_every_argument(kernel, architecture):
    usage = compiled(kernel, 16, architecture)
    assert usage["stack"] == usage["local"] == 0, usage


@pytest.mark.parametrize(("architecture", "absent"), [(80, {"p_order", "p_seq"}), (90, {"p_order"}), (90, {"p_seq"})])
def test_no_spills_with_fewer_registers_where_less_is_looked_up(architecture, absent):
    most = gpu.registers_of(16, looked_up=2 - len(absent), capability=architecture // 10)
    usage = compiled(scan_kernel, 16, architecture, absent=absent, most=most)
    assert most < gpu.REGISTERS
    assert usage["stack"] == usage["local"] == 0, usage


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("states", [1, 8, 16, 32, 64, 128, 256])
@pytest.mark.parametrize("absent", [set(), OPTIONAL], ids=["every", "least"])
def test_no_spills_at_other_sizes(states, architecture, absent):
    found = {
        kernel: compiled(kernel, states, architecture, absent=absent) for kernel in (scan_kernel, scan_backward_kernel)
    }
    absent = absent - {"p_carry"}
    found["forwards"] = compiled(segment_kernel, states, architecture, absent=absent | {"p_grad", "p_z"}, REVERSE=False)
    found["backwards"] = compiled(segment_kernel, states, architecture, absent=absent, REVERSE=True)
    assert all(usage["stack"] == usage["local"] == 0 for usage in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("kernel", [scan_kernel, scan_backward_kernel], ids=["forward", "backward"])
def test_no_spills_in_other_dtypes(kernel, dtype):
    for architecture in (80, 90):
        usage = compiled(kernel, 16, architecture, dtype)
        assert usage["stack"] == usage["local"] == 0, (architecture, usage)


@pytest.mark.parametrize("architecture", [80, 90])
def test_no_spills_beside_the_scan(architecture):
    found = [compiled(chain_kernel, 16, architecture, REVERSE=True)]
    found += [
        resources(kernel, architecture, "bf16", 4, BL=4, BD=512) for kernel in (merge_kernel, gate_backward_kernel)
    ]
    assert all(usage["stack"] == usage["local"] == 0 for usage in found), found


def test_length_is_split_only_where_the_card_would_stay_empty():
    h100 = {"processors": 132, "registers": gpu.REGISTERS}
    assert gpu.segments_of(programs=48, warps=1, steps=4096, **h100) > 8
    assert gpu.segments_of(programs=64 * 48, warps=1, steps=4096, **h100) == 1
    assert gpu.segments_of(programs=1, warps=1, steps=2 * gpu.CHUNK, **h100) == 1
    assert gpu.segments_of(programs=1, warps=8, steps=0, **h100) == 1
    assert gpu.segments_of(programs=0, warps=1, steps=64, **h100) == 1


def test_segments_are_what_an_h100_was_quickest_with():
    assert gpu.segments_of(programs=384, warps=1, steps=2048, processors=132, registers=gpu.REGISTERS) == 4
    assert gpu.segments_of(programs=384, warps=1, steps=2048, processors=132, registers=gpu.REGISTERS_BACKWARD) == 8


@pytest.mark.parametrize("steps", [1, 31, 32, 33, 100, 197, 4096, 65_537])
@pytest.mark.parametrize("programs", [1, 7, 48, 400])
def test_segments_cover_every_chunk_and_none_is_empty(programs, steps):
    count = gpu.segments_of(programs, 1, steps, 132, gpu.REGISTERS)
    chunks = -(-steps // gpu.CHUNK)
    each = -(-chunks // count)
    assert (count - 1) * each < chunks <= count * each


@pytest.mark.parametrize("states", [1, 3, 4, 16, 20, 64, 100, 256, 400])
def test_tiles_hold_all_states_and_divide_a_chunk(states):
    tile = gpu.tile_of(states)
    assert states <= tile.states < max(4, 2 * states) or tile.states == 4
    assert gpu.CHUNK % tile.unroll == gpu.CHUNK % tile.replay == 0
    assert tile.numel <= 16 * 32 * tile.warps


class TestOnGpu:
    pytestmark = ON_GPU

    @pytest.mark.parametrize("seed", range(60))
    def test_random_calls_match_the_reference(self, seed):
        assert_matches_reference(selective_scan, *selective_scan_call(seed), backend="gpu", device="cuda")

    @pytest.mark.parametrize("states", [64, 100, 128, 256])
    def test_many_states(self, states):
        g = torch.Generator().manual_seed(states)
        tensors = {"x": torch.randn(2, 70, 72, generator=g), "delta": torch.rand(2, 70, 72, generator=g)}
        tensors |= {"A": -torch.rand(72, states, generator=g), "B": torch.randn(2, 70, states, generator=g)}
        tensors |= {"C": torch.randn(2, 70, states, generator=g), "z": torch.randn(2, 70, 72, generator=g)}
        assert_matches_reference(selective_scan, tensors, {"return_final_state": True}, backend="gpu", device="cuda")

    @pytest.mark.parametrize("seed", range(30))
    def test_both_forms_agree(self, seed, monkeypatch):
        tensors, other = selective_scan_call(seed)
        monkeypatch.setattr(gpu, "CHUNK", 16)
        for segments in (1, 3, 10):
            monkeypatch.setattr(gpu, "segments_of", lambda *sizes, segments=segments: segments)
            assert_matches_reference(selective_scan, tensors, other, backend="gpu", device="cuda")

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("seed", range(10))
    def test_half_precision(self, seed, dtype):
        tensors, other = selective_scan_call(seed)
        half = {n: t.to(dtype) if n in ("x", "delta", "B", "C", "z") else t for n, t in tensors.items()}
        rounded = {n: t.float() for n, t in half.items()}
        expected, state = selective_scan(**{n: t.double() for n, t in rounded.items()}, **other, backend="reference")
        moved = {n: v.cuda() if torch.is_tensor(v) else v for n, v in (half | other).items()}
        out, found = selective_scan(**moved, backend="gpu")
        assert out.dtype == dtype
        for a, b in ((out, expected), (found, state)):
            assert (a.double().cpu() - b).norm() <= RELATIVE_ERROR[dtype] * b.norm()

    def test_results_repeat_bit_for_bit(self):
        for seed in range(8):
            first, second = (run(selective_scan, *selective_scan_call(seed), "gpu", device="cuda") for _ in range(2))
            assert all(torch.equal(first[name], second[name]) for name in first)
