"""Padding, and what the drop-in's results look like in memory: laid out as upstream's, changed in place by published code."""

from __future__ import annotations

import pytest
import torch

from polymamba.compat import convolution, duality, scan, state_update
from polymamba.compat.convolution import causal_conv1d_fn, causal_conv1d_ref, causal_conv1d_update
from polymamba.compat.modules import Mamba2
from polymamba.core.ops.causal_conv1d import causal_conv1d
from polymamba.core.ops.selective_scan import selective_scan
from polymamba.core.ops.state_space_duality import state_space_duality
from polymamba.core.ops.trapezoidal_scan import trapezoidal_scan

TOLERANCES = {torch.float32: (3e-4, 1e-3), torch.float16: (3e-3, 5e-3), torch.bfloat16: (1e-2, 5e-2)}


def normal(*shape, seed=0, dtype=torch.float32, grad=False):
    t = torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))).to(dtype)
    return t.requires_grad_(grad)


def rows(batch, channels, length, last, dtype=torch.float32):
    """(batch, channels, length) cut from something wider, with channels innermost in memory where `last`."""
    if last:
        return normal(batch, length, channels + 9, dtype=dtype)[..., 4 : 4 + channels].mT.detach().requires_grad_()
    return normal(batch, channels + 9, length, dtype=dtype)[:, 4 : 4 + channels].detach().requires_grad_()


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(
    ("width", "length", "channels"), [(2, 1, 64), (3, 2, 37), (4, 8, 7), (4, 129, 64), (2, 372, 33)]
)
@pytest.mark.parametrize(("last", "states"), [(False, False), (True, False), (True, True), (False, True)])
def test_convolution_is_its_reference(dtype, width, length, channels, last, states):
    rtol, atol = TOLERANCES[dtype]
    activation = "silu" if length % 2 else None
    found = []
    for function in (causal_conv1d_fn, causal_conv1d_ref):
        x, weight, bias = (
            rows(2, channels, length, last, dtype),
            normal(channels, width, grad=True),
            normal(channels, grad=True),
        )
        before = normal(2, width - 1, channels, dtype=dtype).mT.requires_grad_() if states else None
        out, state = function(x, weight, bias, initial_states=before, return_final_states=True, activation=activation)
        out += torch.sigmoid(state).sum(-1, keepdim=True)
        out.backward(normal(*out.shape, seed=3, dtype=dtype))
        found.append((out, state, x.grad, weight.grad, bias.grad, before.grad if states else None))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)
    assert found[0][0].stride() == torch.empty_like(rows(2, channels, length, last)).stride() or length == 1


@pytest.mark.parametrize("backend", ["fn", "ref"])
@pytest.mark.parametrize("last", [False, True])
def test_convolution_of_padding_is_zero_and_learns_nothing(backend, last):
    x, weight, bias = rows(2, 5, 12, last), normal(5, 4, grad=True), normal(5, grad=True)
    number = torch.tensor([[0] * 4 + [1] * 5 + [-1] * 3, [-1] * 2 + [3] * 6 + [-1] * 4], dtype=torch.int32)
    poisoned = x.detach().masked_fill((number < 0)[:, None], torch.nan).requires_grad_()
    out = getattr(convolution, f"causal_conv1d_{backend}")(poisoned, weight, bias, seq_idx=number, activation="silu")
    expected = torch.zeros_like(out)
    for row, begin, end in ((0, 0, 4), (0, 4, 9), (1, 2, 8)):
        expected[row : row + 1, :, begin:end] = causal_conv1d_ref(
            x[row : row + 1, :, begin:end], weight, bias, activation="silu"
        )
    torch.testing.assert_close(out, expected)
    wanted = torch.autograd.grad(expected.square().sum(), (x, weight, bias))
    for ours, theirs in zip(torch.autograd.grad(out.square().sum(), (poisoned, weight, bias)), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize(("count", "width"), [(0, 4), (1, 2), (4, 3), (5, 4)])
@pytest.mark.parametrize("pad", [-1, 7])
def test_update_of_slots_and_padding(dtype, ring, count, width, pad):
    """count 0: no token axis."""
    kept, activation = width + 1, "silu" if count % 2 else None
    x = normal(6, 37, dtype=dtype) if count == 0 else normal(6, count, 37, dtype=dtype).mT
    state, weight, bias = normal(20, kept, 37, dtype=dtype).mT, normal(37, width), normal(37)
    slot = torch.tensor([3, pad, 11, 0, -5, 4], dtype=torch.int32)
    real = (slot >= 0) & (slot != pad)
    seen = torch.tensor([0, 5, 1023, 2, 9, 7], dtype=torch.int32) if ring else None
    before = state.clone()
    out = causal_conv1d_update(x, state, weight, bias, activation, seen, slot, pad_slot_id=pad)
    own = before[slot[real].long()]
    expected = convolution.causal_conv1d_update_ref(
        x[real], own, weight, bias, activation, seen[real] if ring else None
    )
    assert out.shape == x.shape
    assert not out[~real].any()
    torch.testing.assert_close(out[real], expected)
    before[slot[real].long()] = own
    assert torch.equal(state, before)
    out.add_(1)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("ring", [False, True])
def test_update_reference_is_a_convolution(count, ring):
    state, weight, bias, x = normal(3, 5, 6, dtype=torch.float64), normal(5, 4), normal(5), normal(3, 5, count, seed=1)
    seen = torch.tensor([0, 4, 11]) if ring else None
    order = (seen[:, None] + torch.arange(6)) % 6 if ring else torch.arange(6).expand(3, 6)
    history = torch.cat([state.float().gather(2, order[:, None].expand(3, 5, 6)), x], -1)
    moved = state.float()
    out = convolution.causal_conv1d_update_ref(x, moved, weight, bias, None, seen)
    expected = torch.nn.functional.conv1d(history, weight[:, None], bias, groups=5)[..., -count:]
    torch.testing.assert_close(out, expected)
    order = (seen[:, None] + count + torch.arange(6)) % 6 if ring else order
    torch.testing.assert_close(moved.gather(2, order[:, None].expand(3, 5, 6)), history[..., -6:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_states_of_packed_sequences_are_their_reference(dtype):
    ends = torch.tensor([0, 3, 3, 30, 31, 64])
    x = normal(64, 37, dtype=dtype)
    given = (x, ends.int(), 20)
    assert torch.equal(
        convolution.causal_conv1d_varlen_states(*given), convolution.causal_conv1d_varlen_states_ref(*given)
    )


def test_state_update_of_padding_is_zero():
    state, x, step, A, B = normal(4, 5, 3), normal(3, 5), normal(3, 5), -normal(5, 3).exp(), normal(3, 3)
    before = state.clone()
    slot = torch.tensor([2, -1, 0])
    out = state_update.selective_state_update(state, x, step, A, B, B, normal(5), state_batch_indices=slot)
    assert not out[1].any()
    assert torch.equal(state[[1, 3]], before[[1, 3]])
    own = before[[2, 0]]
    expected = state_update.selective_state_update_ref(own, x[[0, 2]], step[[0, 2]], A, B[[0, 2]], B[[0, 2]], normal(5))
    torch.testing.assert_close(out[[0, 2]], expected)
    torch.testing.assert_close(state[[2, 0]], own)


def scan_given(grad=True):
    u, step = normal(2, 6, 9, grad=grad), normal(2, 6, 9, seed=1).exp()
    return u, step, -normal(6, 4).exp(), normal(2, 4, 9), normal(2, 4, 9, seed=1)


def duality_given():
    x, step = normal(1, 9, 2, 3, grad=True), normal(1, 9, 2).exp()
    return x, step, -normal(2).exp(), normal(1, 9, 1, 4), normal(1, 9, 1, 4, seed=1)


ORDER = torch.stack([torch.arange(9), torch.arange(9).flip(0)])
CALLS = {
    "selective_scan_fn": lambda: scan.selective_scan_fn(*scan_given(), return_last_state=True),
    "causal_conv1d_fn": lambda: causal_conv1d_fn(normal(2, 6, 9, grad=True), normal(6, 4), return_final_states=True),
    "mamba_chunk_scan_combined": lambda: duality.mamba_chunk_scan_combined(*duality_given(), 4, return_final_states=True),
    "varlen": lambda: duality.mamba_chunk_scan_combined(
        *duality_given(), 4, cu_seqlens=torch.tensor([0, 3, 9]), return_final_states=True, return_varlen_states=True
    ),
    "core convolution": lambda: causal_conv1d(normal(2, 9, 6, grad=True), normal(6, 4), return_final_state=True),
    "core convolution along paths": lambda: causal_conv1d(
        normal(2, 9, 6, grad=True), normal(6, 4), order=ORDER, return_final_state=True
    ),
    "core scan": lambda: selective_scan(
        normal(2, 9, 6, grad=True), normal(2, 9, 6).exp(), -normal(6, 4).exp(), normal(2, 9, 4), normal(2, 9, 4),
        order=ORDER, merge="none", return_final_state=True,
    ),
    "core trapezoidal scan": lambda: (
        lambda y, state: (y, *state)
    )(*trapezoidal_scan(
        normal(2, 9, 1, 2, 3, grad=True), -normal(2, 9, 2).exp(), normal(2, 9, 2).exp(), normal(2, 9, 2).sigmoid(),
        normal(2, 9, 1, 1, 4), normal(2, 9, 1, 1, 4, seed=1), return_final_state=True,
    )),
    "core duality": lambda: state_space_duality(*duality_given(), return_final_state=True),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_results_may_be_changed_in_place_and_viewed(call):
    """Each result for itself: none is a view of another, and autograd goes on through the change."""
    results, untouched = CALLS[call](), CALLS[call]()
    for number, result in enumerate(results):
        if not call.startswith("core"):
            assert result.view(result.shape[0], -1).shape[0] == result.shape[0]
        result.mul_(2)
        for other, same in zip(results[number + 1 :], untouched[number + 1 :], strict=True):
            assert torch.equal(other, same)
    sum(result.float().sum() for result in results).backward()


def test_tail_of_packed_prompts_is_padding():
    torch.manual_seed(0)
    layer = Mamba2(16, d_state=8, headdim=8, layer_idx=0)
    x, ends = normal(1, 12, 16), torch.tensor([0, 5, 9, 9])

    class Params:
        max_seqlen, seqlen_offset = 12, 0

    params = Params()
    params.key_value_memory_dict = {0: tuple(t.fill_(7) for t in layer.allocate_inference_cache(3, 12))}
    number = torch.tensor([[0] * 5 + [1] * 4 + [-1] * 3])
    with torch.no_grad():
        y = layer(x, seq_idx=number, cu_seqlens=ends, inference_params=params)
        assert y.shape == x.shape
        torch.testing.assert_close(y[:, 5:9], layer(x[:, 5:9]))
        assert not y[:, 9:].any()
    assert not any(t[2].any() for t in params.key_value_memory_dict[0])
