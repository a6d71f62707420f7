"""The Triton convolution: in the interpreter and compiled ahead of time everywhere, on a GPU where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ahead_of_time import resources
from operators import assert_matches_reference, causal_conv1d_call, run

from polymamba.core.ops.causal_conv1d import causal_conv1d, gpu, gpu_kernels
from polymamba.core.ops.tolerances import RELATIVE_ERROR

SUPPORT = Path(__file__).parents[3] / "support"
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
KERNELS = ("conv_kernel", "conv_state_kernel", "conv_backward_weight_kernel", "conv_backward_input_kernel")


def assert_interpreted_kernels_match(calls: int, visits: int) -> None:
    done = subprocess.run(
        [sys.executable, SUPPORT / "interpreted.py", "causal_conv1d", str(calls), str(visits)],
        env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == calls
    limit = RELATIVE_ERROR[torch.float32]
    wrong = [r for r in results if not all(error <= limit for error in r["errors"].values())]
    assert not wrong, f"beyond {limit}: {wrong}"


def test_interpreted_kernels_match_the_reference():
    assert_interpreted_kernels_match(calls=24, visits=100)


EMPTY = """
import torch
from polymamba.core.ops.causal_conv1d import causal_conv1d

state = torch.randn(2, 5, 3, requires_grad=True)
_, after = causal_conv1d(torch.zeros(2, 0, 5), torch.randn(5, 4), initial_state=state, return_final_state=True, backend="gpu")
incoming = torch.randn(2, 5, 3)
(found,) = torch.autograd.grad(after, state, incoming)
assert torch.equal(after, state) and torch.equal(found, incoming)
"""


def test_a_state_and_its_gradient_pass_an_empty_sequence():
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", EMPTY], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_interpreted_kernels_match_the_reference_on_many_calls():
    assert_interpreted_kernels_match(calls=200, visits=200)


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("width", [4, pytest.param(2, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)])
def test_no_spills(name, architecture, width):
    rows, columns, warps = gpu.blocks_of(1024, 768, width)
    rows = rows if name != "conv_state_kernel" else {2: 1, 4: 4, 8: 8}[width]
    usage = resources(getattr(gpu_kernels, name), architecture, "bf16", warps, W=width, BS=rows, BD=columns, SILU=True)
    assert usage["stack"] == usage["local"] == 0, usage


class TestOnGpu:
    pytestmark = ON_GPU

    @pytest.mark.parametrize("seed", range(60))
    def test_random_calls_match_the_reference(self, seed):
        assert_matches_reference(causal_conv1d, *causal_conv1d_call(seed), backend="gpu", device="cuda")

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision(self, dtype):
        tensors, other = causal_conv1d_call(3)
        half = tensors | {"x": tensors["x"].to(dtype)}
        exact = {n: t.double() for n, t in half.items()}
        expected, state = causal_conv1d(**exact, **other, backend="reference")
        moved = {n: v.cuda() if torch.is_tensor(v) else v for n, v in (half | other).items()}
        out, found = causal_conv1d(**moved, backend="gpu")
        assert out.dtype == dtype
        for a, b in ((out, expected), (found, state)):
            assert (a.double().cpu() - b).norm() <= RELATIVE_ERROR[dtype] * b.norm()

    def test_results_repeat_bit_for_bit(self):
        for seed in range(8):
            first, second = (run(causal_conv1d, *causal_conv1d_call(seed), "gpu", device="cuda") for _ in range(2))
            assert all(torch.equal(first[name], second[name]) for name in first)
