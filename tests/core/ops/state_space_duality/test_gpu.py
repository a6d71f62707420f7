"""The Triton kernels of state space duality: interpreted and compiled ahead of time everywhere, on a GPU where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ahead_of_time import resources

from polymamba.core.ops.state_space_duality import gpu
from polymamba.core.ops.state_space_duality.gpu_backward_kernels import grad_bc_kernel, grad_x_kernel
from polymamba.core.ops.state_space_duality.gpu_kernels import output_kernel, pass_kernel, states_kernel
from polymamba.core.ops.tolerances import RELATIVE_ERROR

SUPPORT = Path(__file__).parents[3] / "support"
KERNELS = {"states": states_kernel, "output": output_kernel, "grad_x": grad_x_kernel, "grad_bc": grad_bc_kernel}
OPTIONAL = {"p_own", "p_seg", "p_w", "p_edge", "p_last"}
STRIDES = dict.fromkeys(("s_x", "s_b", "s_c", "s_dy"), 3)
KINDS = {"bf16": "bf16", "fp16": "tf32", "fp32": "tf32x3"}


def interpreted(calls: int, most: int, dtype: torch.dtype = torch.float32) -> list[dict]:
    """What tests/support/interpreted_duality.py prints."""
    name = str(dtype).removeprefix("torch.")
    done = subprocess.run(
        [sys.executable, SUPPORT / "interpreted_duality.py", str(calls), str(most), name],
        env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_small(results: list[dict], dtype: torch.dtype = torch.float32) -> None:
    limit = RELATIVE_ERROR[dtype]
    wrong = [r for r in results if not all(error <= limit for error in r["errors"].values())]
    assert not wrong, f"beyond {limit}: {wrong}"


def compiled(name: str, architecture: int, dtype: str, width=64, states=128, rank=1, absent=()) -> dict[str, int]:
    kind = KINDS[dtype]
    plan = gpu.Plan(2, 4096, 32, width, 1, states, rank, 64, gpu.ROWS[kind] // rank, kind)
    constants = plan.constants(name)
    kernel = KERNELS[name]
    warps, stages, most = (constants.pop(option) for option in ("num_warps", "num_stages", "maxnreg"))
    absent = set(absent) & {parameter.name for parameter in kernel.params}
    if name != "states":
        absent -= {"p_w"}
    constants |= {"BACK": "p_w" in absent, "HB": 8}
    return resources(kernel, architecture, dtype, warps, absent, most, STRIDES, stages, **constants)


def test_interpreted_kernels_match_the_reference():
    results = interpreted(calls=4, most=30)
    assert {r["rows"] for r in results} == {16, 64}
    assert_small(results)


@pytest.mark.slow
def test_interpreted_kernels_match_the_reference_on_many_calls():
    results = interpreted(calls=40, most=100)
    assert {r["rank"] for r in results} == {1, 2, 3, 4}
    assert_small(results)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_interpreted_kernels_in_half_precision(dtype):
    assert_small(interpreted(calls=4, most=40, dtype=dtype), dtype)


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("name", KERNELS)
def test_no_spills(name, architecture):
    usage = compiled(name, architecture, "bf16")
    assert usage["stack"] == usage["local"] == 0, usage
    assert usage["shared"] <= 96 * 1024, usage


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("name", KERNELS)
def test_no_spills_in_other_dtypes(name, dtype, architecture):
    usage = compiled(name, architecture, dtype)
    assert usage["stack"] == usage["local"] == 0, usage


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize(("width", "states", "rank"), [(64, 64, 1), (128, 256, 1), (64, 128, 4), (24, 20, 1)])
@pytest.mark.parametrize("absent", [set(), OPTIONAL], ids=["every", "least"])
def test_no_spills_at_other_sizes(width, states, rank, absent, architecture):
    found = {name: compiled(name, architecture, "bf16", width, states, rank, absent) for name in KERNELS}
    assert all(usage["stack"] == usage["local"] == 0 for usage in found.values()), found


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("absent", [set(), OPTIONAL], ids=["every", "least"])
def test_no_spills_from_chunk_to_chunk(absent, architecture):
    absent = absent & {"p_seg", "p_edge", "p_last"}
    constants = {"REVERSE": True, "Q": 64, "BLOCK": gpu.PASSED}
    usage = resources(pass_kernel, architecture, "fp32", gpu.PASS_WARPS, absent, **constants)
    assert usage["stack"] == usage["local"] == 0, usage


@pytest.mark.parametrize("heads", [1, 24, 80, 7])
@pytest.mark.parametrize("programs", [1, 60, 5000])
def test_heads_of_a_group_are_shared_out_evenly(programs, heads):
    each = gpu.heads_of_program(programs, heads, 132)
    assert heads % each == 0
    assert each == heads or programs * heads // each <= 2 * 4 * 132 * heads
    assert gpu.heads_of_program(5000, heads, 132) == heads
    assert gpu.heads_of_program(1, heads, 132) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnGpu:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("seed", range(20))
    def test_random_calls_match_the_reference(self, seed, dtype):
        from dualities import dense_duality_call
        from interpreted_duality import errors

        found = errors(*dense_duality_call(seed), dtype, "cuda")
        assert all(error <= RELATIVE_ERROR[dtype] for error in found.values()), found

    def test_results_repeat_bit_for_bit(self):
        from dualities import dense_duality_call
        from interpreted_duality import dense_run

        from polymamba.core.ops.state_space_duality.registration import state_space_duality_op

        for seed in range(8):
            tensors, other = dense_duality_call(seed)
            moved = {name: None if t is None else t.cuda() for name, t in tensors.items()}
            other["restart"] = None if other["restart"] is None else other["restart"].cuda()
            first, second = (
                dense_run(lambda *given: state_space_duality_op(*given, "gpu"), moved, other) for _ in range(2)
            )
            assert all(torch.equal(first[name], second[name]) for name in first)
