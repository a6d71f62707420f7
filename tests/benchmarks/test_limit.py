"""What the processor's limit is counted from."""

from __future__ import annotations

import pytest
import torch

from polymamba.benchmarks.cpu_limit_kernels import VECTORS, exponentials, multiply_adds
from polymamba.benchmarks.limit import _limits
from polymamba.core.ops.cpu.calls import address, record, run
from polymamba.core.ops.cpu.lanes import WIDTH

RATES = {"bytes_a_second": 1e9, "exponentials_a_second": 1e9, "multiply_adds_a_second": 1e9}


def answered(kernel, x: torch.Tensor) -> torch.Tensor:
    """What a kernel writes for two items."""
    out = torch.zeros_like(x)
    ends = {"x": address("x", x, x.shape), "out": address("out", out, x.shape)}
    run(kernel, len(x), record(kernel, items=len(x), **ends))
    return out


def test_the_exponentials_are_computed():
    x = torch.linspace(-3, 3, 2 * WIDTH * VECTORS).view(2, -1)
    torch.testing.assert_close(answered(exponentials, x), torch.exp2(x), rtol=1e-6, atol=0)


def test_the_multiply_adds_are_computed():
    """v -> x v + y, again and again, ends at y / (1 - x), in each of eight chains."""
    x = torch.zeros(2, WIDTH * VECTORS)
    x[:, :WIDTH], x[:, WIDTH : 2 * WIDTH] = 0.5, torch.arange(WIDTH)
    assert torch.equal(answered(multiply_adds, x)[:, :WIDTH], (16.0 * torch.arange(WIDTH)).expand(2, -1))


def test_a_limit_counts_every_state_of_every_step():
    forward, both = (_limits(100, 10, RATES, backward) for backward in (False, True))
    assert forward["exponentials"] == pytest.approx(1e-9 * 1000 * 18)
    assert forward["arithmetic"] == pytest.approx(1e-9 * 1000 * (18 + 16 * 4))
    assert both["arithmetic"] == pytest.approx(1e-9 * 1000 * (37 + 16 * 15))
    assert both["bytes"] > forward["bytes"]
