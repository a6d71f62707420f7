"""The definition itself: gradcheck, by hand, against the selective scan, and what the public function refuses."""

from __future__ import annotations

import pytest
import torch
from dualities import state_space_duality_call

from polymamba.core.errors import UserError
from polymamba.core.ops.selective_scan import selective_scan
from polymamba.core.ops.state_space_duality import state_space_duality

DOUBLE = {"dtype": torch.float64}


@pytest.mark.parametrize("seed", range(12))
def test_gradcheck(seed):
    tensors, other = state_space_duality_call(seed, longest=6, states=3, paths=3)
    other["dt_limit"] = (0.0, 3.0)
    names = list(tensors)
    inputs = [tensors[name].double().requires_grad_() for name in names]

    def call(*values):
        return state_space_duality(**dict(zip(names, values, strict=True)), **other, backend="reference")

    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)


def test_written_out_by_hand():
    x, dt, B, C = (torch.rand(1, 3, 1, *rest, **DOUBLE) for rest in ((1,), (), (1,), (1,)))
    A, D = torch.tensor([-0.7], **DOUBLE), torch.tensor([0.3], **DOUBLE)
    h, expected = 0.0, []
    for t in (2, 0, 1):
        step = dt[0, t, 0].clamp(0.2, 0.5)
        h = torch.exp(step * A[0]) * h + step * B[0, t, 0, 0] * x[0, t, 0, 0]
        expected.append((t, h * C[0, t, 0, 0] + 0.3 * x[0, t, 0, 0]))
    out = state_space_duality(x, dt, A, B, C, D, dt_limit=(0.2, 0.5), order=torch.tensor([[2, 0, 1]]))
    for t, value in expected:
        torch.testing.assert_close(out[0, t, 0, 0], value)


@pytest.mark.parametrize("packed", [False, True])
def test_is_the_selective_scan_with_one_decay_a_head(packed):
    batch, length, heads, width, groups, states = 2, 11, 6, 3, 2, 4
    x, z = (torch.randn(batch, length, heads, width, **DOUBLE) for _ in range(2))
    dt, A, D = torch.randn(batch, length, heads, **DOUBLE), -torch.rand(heads, **DOUBLE), torch.randn(heads, **DOUBLE)
    B, C = (torch.randn(batch, length, groups, states, **DOUBLE) for _ in range(2))
    bias, state = torch.randn(heads, **DOUBLE), torch.randn(batch, heads, width, states, **DOUBLE)
    seq_idx = (torch.arange(length) // 4).expand(batch, -1) if packed else None
    order = torch.randperm(length)[None]
    rest = {"order": order, "seq_idx": seq_idx, "return_final_state": True}
    found, end = state_space_duality(x, dt, A, B, C, D, z, bias, True, initial_state=state, **rest)

    def wide(t):
        return t.repeat_interleave(width, -1)

    expected, last = selective_scan(
        x.flatten(2), wide(dt), wide(A)[:, None].expand(-1, states), B, C, wide(D), z.flatten(2), wide(bias), True,
        initial_state=state.flatten(1, 2), **rest,
    )  # fmt: skip
    torch.testing.assert_close(found.flatten(2), expected)
    torch.testing.assert_close(end.flatten(1, 2), last)


def test_merges():
    tensors = {"x": torch.randn(2, 5, 4, 3), "dt": torch.rand(2, 5, 4), "A": -torch.rand(2, 4)}
    tensors |= {"B": torch.randn(2, 5, 1, 6), "C": torch.randn(2, 5, 1, 6), "z": torch.randn(2, 5, 4, 3)}
    order = torch.tensor([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])
    for backend in ("reference", "cpu"):
        by_path = state_space_duality(**tensors, order=order, merge="none", backend=backend)
        assert by_path.shape == (2, 2, 5, 4, 3)
        torch.testing.assert_close(
            by_path.sum(1), state_space_duality(**tensors, order=order, merge="sum", backend=backend)
        )
        torch.testing.assert_close(
            by_path.mean(1), state_space_duality(**tensors, order=order, merge="mean", backend=backend)
        )


def test_skip_per_head_and_per_entry():
    x, B = torch.randn(1, 4, 3, 2), torch.zeros(1, 4, 1, 5)
    arguments = (x, torch.rand(1, 4, 3), -torch.ones(3), B, B)
    D = torch.randn(3, 2)
    for backend in ("reference", "cpu"):
        torch.testing.assert_close(state_space_duality(*arguments, D, backend=backend), D * x)
        torch.testing.assert_close(state_space_duality(*arguments, D[:, 0], backend=backend), D[:, :1] * x)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"merge": "product"}, "merge"),
        ({"backend": "cuda"}, "backend"),
        ({"x": torch.rand(1, 4, 2)}, "x has the wrong shape"),
        ({"dt": torch.rand(1, 5, 2)}, "dt has the wrong shape"),
        ({"A": -torch.ones(3)}, "A has the wrong shape"),
        ({"D": torch.ones(5)}, "D has the wrong shape"),
        ({"B": torch.rand(1, 4, 3)}, "B has the wrong shape"),
        ({"z": torch.rand(1, 4, 2, 2)}, "z has the wrong shape"),
        ({"initial_state": torch.rand(1, 2, 3, 4)}, "initial_state has the wrong shape"),
        ({"order": torch.zeros(1, 4)}, "integer"),
        ({"order": torch.zeros(2, 4, dtype=torch.int64), "A": -torch.ones(3, 2)}, "number of paths"),
        ({"seq_idx": torch.zeros(1, 9, dtype=torch.int64)}, "seq_idx has the wrong shape"),
        ({"B": torch.rand(1, 4, 3, 5), "C": torch.rand(1, 4, 3, 5)}, "groups"),
    ],
)
def test_what_does_not_fit_is_refused(changes, text):
    arguments = {"x": torch.rand(1, 4, 2, 3), "dt": torch.rand(1, 4, 2), "A": -torch.ones(2)}
    arguments |= {"B": torch.rand(1, 4, 1, 5), "C": torch.rand(1, 4, 1, 5)} | changes
    with pytest.raises(UserError, match=text):
        state_space_duality(**arguments)
