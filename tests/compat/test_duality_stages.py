"""The stages of the chunked scan against the scan itself, and against loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from polymamba.compat import duality, duality_stages
from polymamba.compat.duality import mamba_chunk_scan_combined

HEADS, WIDTH, STATES = 4, 6, 5


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))).to(dtype)


def given(length, groups=2, dtype=torch.float32, batch=2):
    """x, dt, A, B, C."""
    x, step = normal(batch, length, HEADS, WIDTH, dtype=dtype), normal(batch, length, HEADS, dtype=dtype)
    B, C = (normal(batch, length, groups, STATES, seed=seed, dtype=dtype) for seed in (1, 2))
    return [t.requires_grad_() for t in (x, step, -torch.linspace(0.5, 4, HEADS), B, C)]


@pytest.mark.parametrize("function", ["mamba_chunk_scan", "ssd_chunk_scan_combined_ref"])
@pytest.mark.parametrize("length", [1, 30, 32])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stages_are_the_whole(function, length, groups, dtype):
    values, options = (
        given(length, groups, dtype),
        {"D": normal(HEADS), "dt_bias": normal(HEADS, seed=3), "dt_softplus": True},
    )
    options["z"] = normal(2, length, HEADS, WIDTH, seed=4, dtype=dtype)
    found = getattr(duality, function)(*values, 8, **options)
    expected = mamba_chunk_scan_combined(*values, 8, **options)
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    wanted = torch.autograd.grad(expected.float().square().sum(), values)
    for ours, theirs in zip(torch.autograd.grad(found.float().square().sum(), values), wanted, strict=True):
        assert (ours - theirs).norm() <= tolerance * theirs.norm() + tolerance


@pytest.mark.parametrize("limit", [(0.0, math.inf), (0.1, 0.9)])
@pytest.mark.parametrize("wide", [False, True])
def test_one_scan_is_the_other(limit, wide):
    values = given(30)
    D, bias = (normal(HEADS, WIDTH) if wide else normal(HEADS)), normal(HEADS, seed=3)
    options = {
        "D": D,
        "dt_bias": bias,
        "dt_softplus": True,
        "dt_limit": limit,
        "z": normal(2, 30, HEADS, WIDTH, seed=4),
    }
    found = duality.ssd_selective_scan(*values, **options)
    torch.testing.assert_close(found, mamba_chunk_scan_combined(*values, 8, **options), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("normed", [False, True])
def test_from_convolution_to_projection(normed):
    channels, groups, convolved = HEADS * WIDTH, 2, HEADS * WIDTH + 2 * 2 * STATES
    zxbcdt = normal(2, 20, channels + convolved + HEADS)
    given = (
        zxbcdt,
        normal(convolved, 4),
        normal(convolved),
        normal(HEADS, seed=1),
        -normal(HEADS).exp(),
        normal(HEADS),
        8,
    )
    options = {"outproj_weight": normal(7, channels), "headdim": WIDTH, "ngroups": groups}
    found = duality.mamba_split_conv1d_scan_combined(*given, **options, rmsnorm_weight=None)
    torch.testing.assert_close(found, duality.mamba_split_conv1d_scan_ref(*given, **options), rtol=1e-4, atol=1e-4)
    if normed:
        options |= {"rmsnorm_weight": normal(channels), "ngroups": 1}
        found = duality.mamba_split_conv1d_scan_combined(*given, **options)
        torch.testing.assert_close(found, duality.mamba_split_conv1d_scan_ref(*given, **options), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("size", [8, 64])
def test_final_states_of_packed_sequences(dtype, groups, size):
    ends = torch.tensor([0, 3, 8, 9, 40, 64, 65, 77])
    x, step, A, B, C = (t.detach() for t in given(77, groups, dtype, batch=1))
    step, A = F.softplus(step.float()), -A.abs()
    number = torch.cat([torch.full((n,), i) for i, n in enumerate(ends.diff())])[None]
    sums, steps = duality_stages.chunk_cumsum(step, A, size)
    states = duality_stages.chunk_state_forward(B, x, steps, sums, seq_idx=number)
    before, last = duality_stages.state_passing(states.flatten(3), sums[..., -1], seq_idx=number, chunk_size=size)
    before, last = before.view_as(states), last.view(1, HEADS, WIDTH, STATES)
    found = duality_stages.chunk_state_varlen(B[0], x[0], steps[0], sums[0], ends, before[0])
    for row, (begin, end) in enumerate(itertools.pairwise(ends.tolist())):
        part = slice(begin, end)
        _, expected = mamba_chunk_scan_combined(
            x[:, part].float(), step[:, part], A, B[:, part].float(), C[:, part].float(), return_final_states=True
        )
        torch.testing.assert_close(found[row], expected[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(last[0], found[-1], rtol=1e-4, atol=1e-4)


def test_products_within_chunks():
    a, b, number = normal(2, 10, 3, 5), normal(2, 10, 3, 5, seed=1), torch.tensor([[0] * 6 + [1] * 4, [2] * 10])
    found = duality_stages.bmm_chunk(a, b, 4, number)
    assert found.shape == (2, 3, 3, 4, 4)
    for i, j in ((4, 5), (4, 7), (9, 8)):
        expected = (a[:, i] * b[:, j]).sum(-1) * (number[:, i] == number[:, j])[:, None]
        torch.testing.assert_close(found[:, i // 4, :, i % 4, j % 4], expected)
    torch.testing.assert_close(duality_stages.bmm_chunk(a[:, :, 0], b[:, :, 0], 4, number), found[:, :, 0])


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("groups", [1, HEADS])
def test_minimal_scan(states, groups):
    x, step, A, B, C = (t.detach() for t in given(32, groups))
    step, A = F.softplus(step), -A.abs()
    begin = normal(2, HEADS, WIDTH, STATES) if states else None
    found = duality_stages.ssd_minimal_discrete(
        x * step[..., None], A * step, B, C, 8, None if begin is None else begin[:, None]
    )
    expected = mamba_chunk_scan_combined(x, step, A, B, C, 8, initial_states=begin, return_final_states=True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_segment_sums():
    x = normal(2, 6)
    found = duality_stages.segsum(x)
    for i, j in itertools.product(range(6), range(6)):
        expected = x[:, j + 1 : i + 1].sum(-1) if i >= j else torch.full((2,), -math.inf)
        torch.testing.assert_close(found[:, i, j], expected)
    torch.testing.assert_close(duality_stages.segsum_unstable(x), found)
