"""Mixers and operators called in any order, way and dtype, each answer held to float64.

A short run by default; `pytest tests/core/test_random_calls.py --hypothesis-profile=long` tries 5,000 examples.
"""

from __future__ import annotations

import pytest
import torch
from dualities import state_space_duality_call
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from operators import causal_conv1d_call, run, selective_scan_call
from twins import CHANNELS, KINDS, Twins, error, sequences_of

from polymamba.core.errors import UserError
from polymamba.core.ops.causal_conv1d import causal_conv1d
from polymamba.core.ops.selective_scan import selective_scan
from polymamba.core.ops.state_space_duality import state_space_duality
from polymamba.core.ops.tolerances import RELATIVE_ERROR
from polymamba.core.scans import Grid
from polymamba.core.scans.modes import MODES

KERNEL = [torch.float32, torch.float32, torch.bfloat16, torch.float16]
# A whole mixer: several roundings behind one another, of weights and rows in the narrow dtypes.
OUTPUT = {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}
GRADIENT = 2e-4
NUMBERS = st.sampled_from([0, 0, 0, 1, 2, 5, 5 + 2**32, 2**40, -1, -7])
MISTAKES = [
    "channels", "axes", "seq_idx length", "seq_idx floats", "grid", "grid axes", "state", "batch of the state",
]  # fmt: skip
LAYOUTS = ["contiguous", "every other channel", "transposed", "every other token"]


def laid_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The same (batch, length, channels) numbers with other strides."""
    if layout == "every other channel":
        return torch.stack([x, x], -1).flatten(2)[..., ::2]
    if layout == "transposed":
        return x.transpose(0, 2).contiguous().transpose(0, 2)
    if layout == "every other token":
        return torch.stack([x, x], 2).flatten(1, 2)[:, ::2]
    return x


class Calls(RuleBasedStateMachine):
    """A mixer that is fed rows piece by piece, packed and padded at will, next to each row's own history in float64."""

    @initialize(
        kind=st.sampled_from(list(KINDS)),
        dtype=st.sampled_from(KERNEL),
        batch=st.integers(0, 3),
        seed=st.integers(0, 99),
    )
    def begin(self, kind, dtype, batch, seed):
        self.twins, self.dtype, self.batch = Twins(kind, dtype, seed), dtype, batch
        self.generator = torch.Generator().manual_seed(seed)
        self.state = None
        self.exact_states = [None] * batch
        self.history = [torch.zeros(1, 0, CHANNELS, dtype=torch.float64) for _ in range(batch)]

    def tokens(self, length: int) -> torch.Tensor:
        return torch.randn(self.batch, length, CHANNELS, generator=self.generator).to(self.dtype)

    @rule(length=st.integers(0, 9), layout=st.sampled_from(LAYOUTS), grads=st.booleans(), data=st.data())
    def feed(self, length, layout, grads, data):
        """Any number of tokens behind what was fed before."""
        self.call(laid_out(self.tokens(length), layout), None, grads)

    @rule(
        data=st.data(), length=st.integers(1, 12), grads=st.booleans(), kind=st.sampled_from([torch.int64, torch.int32])
    )
    def feed_packed(self, data, length, grads, kind):
        """Rows of several sequences and of padding; the first sequence goes on from the state."""
        rows = [data.draw(st.lists(NUMBERS, min_size=length, max_size=length)) for _ in range(self.batch)]
        if kind == torch.int32:
            rows = [[n if n < 2**31 else 3 for n in row] for row in rows]
        x = self.tokens(length)
        real = torch.tensor(rows, dtype=torch.int64).reshape(self.batch, length, 1) >= 0
        x = torch.where(real, x, torch.full_like(x, float("nan")))
        self.call(x, rows, grads, torch.tensor(rows, dtype=kind).reshape(self.batch, length))

    @rule()
    def forget(self):
        """The next piece begins a sequence."""
        self.state, self.exact_states = None, [None] * self.batch
        self.history = [rows[:, :0] for rows in self.history]

    def call(self, x, rows, grads, seq_idx=None):
        """One call, its outputs and states, and where asked for the gradients of tokens, weights and states."""
        grads = grads and self.dtype == torch.float32
        made_weights, exact_weights = self.twins.parameters()
        x = x.detach().requires_grad_(grads)
        before = self.state
        if before is not None and grads:
            before = type(before)(
                *(t if t is None or not t.is_floating_point() else t.detach().requires_grad_() for t in before)
            )
        y, state = self.twins.made(x, state=before, seq_idx=seq_idx)
        exact_x = x.detach().double().requires_grad_(grads)
        expected, ends = self.expected(exact_x, rows)
        assert y.shape == x.shape
        assert y.dtype == self.dtype
        real = torch.tensor([[n >= 0 for n in row] for row in rows]) if rows is not None else torch.ones(x.shape[:2])
        real = real.reshape(self.batch, x.shape[1], 1).bool()
        found = torch.where(real, y, 0)
        assert error(found, expected, 1e-3) <= OUTPUT[self.dtype]
        self.check_states(state, ends)
        if grads and x.numel():
            weight = torch.randn(y.shape, generator=self.generator)
            got = torch.autograd.grad(
                (found * weight).sum(), [x, *made_weights], allow_unused=True, materialize_grads=True
            )
            want = torch.autograd.grad(
                (expected * weight.double()).sum(), [exact_x, *exact_weights], allow_unused=True, materialize_grads=True
            )
            scale = max(float(t.norm()) for t in want)
            errors = [error(a, b, 1e-2 * scale) for a, b in zip(got, want, strict=True)]
            assert max(errors) <= GRADIENT, errors
        self.state = type(state)(*(t if t is None else t.detach() for t in state))
        self.exact_states = [type(s)(*(t if t is None else t.detach() for t in s)) for s in ends]

    def expected(self, x, rows):
        """(batch, length, channels), zero at padding, and each row's state: every sequence on its own in float64."""
        outputs, ends = [], []
        for row in range(self.batch):
            y, state = torch.zeros(x.shape[1], CHANNELS, dtype=torch.float64), self.exact_states[row]
            parts = sequences_of(None if rows is None else rows[row], x.shape[1]) or [[]]
            for number, tokens in enumerate(parts):
                part = x[row : row + 1, tokens]
                out, state = self.twins.alone(part, state if number == 0 else None)
                y = y.index_copy(0, torch.tensor(tokens, dtype=torch.int64), out[0])
                earlier = self.history[row] if number == 0 else part[:, :0].detach()
                self.history[row] = torch.cat([earlier, part.detach()], 1)
                whole = self.twins.exact(self.history[row])[0][0, len(self.history[row][0]) - len(tokens) :]
                assert error(out[0], whole, 1e-3) < 1e-9
            outputs.append(y)
            ends.append(state)
        return (torch.stack(outputs) if outputs else x), ends

    def check_states(self, state, ends):
        if self.twins.keeps_keys:
            return
        for name, found in zip(state._fields, state, strict=True):
            for row, end in enumerate(ends):
                expected = getattr(end, name)
                if found is None:
                    assert expected is None
                    continue
                assert found.dtype == torch.float32
                difference = found[row : row + 1].double() - expected
                if name == "angle":
                    turn = difference.remainder(2 * torch.pi)
                    assert torch.minimum(turn, 2 * torch.pi - turn).max() < (
                        1e-4 if self.dtype == torch.float32 else 0.5
                    )
                else:
                    floor = 1e-3 if self.dtype == torch.float32 else 5e-2
                    assert error(found[row : row + 1], expected, floor) <= 2 * OUTPUT[self.dtype]

    @precondition(lambda self: self.batch)
    @rule(what=st.sampled_from(MISTAKES))
    def wrong(self, what):
        """A mistake is refused, and leaves everything as it was."""
        x, seq_idx, grid, state = self.tokens(5), None, None, self.state
        if what == "channels":
            x = x[..., 1:]
        elif what == "axes":
            x = x[0]
        elif what == "seq_idx length":
            seq_idx = torch.zeros(self.batch, 4, dtype=torch.int32)
        elif what == "seq_idx floats":
            seq_idx = torch.zeros(self.batch, 5)
        elif what == "grid":
            assume(not self.twins.keeps_keys)
            grid = (2, 2)
        elif what == "grid axes":
            assume(not self.twins.keeps_keys)
            grid = (5, -1)
        else:
            assume(state is not None)
            cut = (lambda t: t[..., 1:]) if what == "state" else (lambda t: torch.cat([t, t]))
            state = type(state)(*(cut(t) if torch.is_tensor(t) else t for t in state))
        with pytest.raises(UserError):
            self.twins.made(x, grid, state, seq_idx)


TestCalls = Calls.TestCase


@st.composite
def walks(draw):
    """(scan, grid): any mode on any grid that it makes sense for, extra tokens included."""
    axes = draw(st.integers(1, 3))
    name = draw(st.sampled_from([name for name, mode in MODES.items() if axes in mode.ndims]))
    sizes = tuple(draw(st.integers(0 if axes < 3 else 1, {1: 12, 2: 5, 3: 3}[axes])) for _ in range(axes))
    return name, Grid.with_class_token(sizes, draw(st.sampled_from(["none", "front", "middle", "end", "double"])))


@given(
    kind=st.sampled_from([kind for kind in KINDS if not kind.startswith("attention")]),
    walk=walks(),
    merge=st.sampled_from(["sum", "mean", "none"]),
    conv=st.sampled_from(["path", "grid", "none"]),
    batch=st.integers(0, 2),
    dtype=st.sampled_from(KERNEL),
    seed=st.integers(0, 99),
    packed=st.booleans(),
)
def test_mixers_along_any_scan(kind, walk, merge, conv, batch, dtype, seed, packed):
    (name, grid), options = walk, {}
    if kind.startswith("mamba,") or kind == "mamba":
        options = {"conv": conv, "d_conv": None if conv == "grid" else 4}
    packed = packed and conv != "grid"
    twins = Twins(kind, dtype, seed, scan=name, axes=grid.ndim, merge=merge, **options)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, grid.length, CHANNELS, generator=generator).to(dtype).requires_grad_()
    seq_idx = torch.randint(-1, 3, (batch, grid.length), generator=generator) if packed else None
    exact_x = x.detach().double().requires_grad_()
    y, expected = twins.made(x, grid, None, seq_idx)[0], twins.exact(exact_x, grid, None, seq_idx)[0]
    if packed:
        real = (seq_idx >= 0)[..., None] if merge != "none" else (seq_idx >= 0)[:, None, :, None]
        y, expected = y.where(real, 0), expected.where(real, 0)
    assert error(y, expected, 1e-3) <= OUTPUT[dtype]
    if dtype == torch.float32 and x.numel():
        weight = torch.randn(y.shape, generator=generator)
        made_weights, exact_weights = twins.parameters()
        rest = {"allow_unused": True, "materialize_grads": True}
        got = torch.autograd.grad((y * weight).sum(), [x, *made_weights], **rest)
        want = torch.autograd.grad((expected * weight.double()).sum(), [exact_x, *exact_weights], **rest)
        scale = max(float(t.norm()) for t in want)
        errors = [error(a, b, 1e-2 * scale) for a, b in zip(got, want, strict=True)]
        assert max(errors) <= GRADIENT, errors


OPERATORS = {
    "selective_scan": (selective_scan, selective_scan_call),
    "causal_conv1d": (causal_conv1d, causal_conv1d_call),
    "state_space_duality": (state_space_duality, state_space_duality_call),
}


@given(name=st.sampled_from(list(OPERATORS)), seed=st.integers(0, 10**6), longest=st.integers(1, 60))
def test_operators_on_any_order(name, seed, longest):
    operator, call = OPERATORS[name]
    tensors, other = call(seed, longest=longest)
    expected = run(operator, tensors, other, "reference", torch.float64)
    # A gradient that is the small rest of large sums has their rounding, whoever computes it in float32.
    plain = run(operator, tensors, other, "reference", torch.float32)
    found = run(operator, tensors, other, "cpu", torch.float32)
    for key, right in expected.items():
        allowed = max(RELATIVE_ERROR[torch.float32], 4 * error(plain[key], right))
        assert error(found[key], right) <= allowed, key


@pytest.mark.parametrize("length", [0, 1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_out_may_be_changed_in_place(kind, length):
    made = Twins(kind).made
    x, state = torch.randn(2, length, CHANNELS), made(torch.randn(2, 3, CHANNELS))[1]
    given = [x, *state]
    before = [t if t is None else t.detach().clone() for t in given]
    y, after = made(x, state=state)
    parts = [t for t in (y, *after) if t is not None and t.is_floating_point()]
    for number, part in enumerate(parts):
        part.mul_(0).add_(number)
    assert all((part == number).all() for number, part in enumerate(parts))
    assert all(a is None or torch.equal(a, b) for a, b in zip(given, before, strict=True))
