"""The one-token update against the plain recurrences."""

from __future__ import annotations

import plain_recurrences as plain
import pytest
import torch

from polymamba.compat.state_update import selective_state_update


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


@pytest.mark.parametrize("options", [(), ("D",), ("z",), ("dt_bias",), ("D", "z", "dt_bias")], ids=str)
def test_mamba1(options):
    u, delta, z = (normal(2, 5, 7, seed=s) for s in range(3))
    A, B, C = -normal(5, 4).exp(), normal(2, 4, 7), normal(2, 4, 7, seed=1)
    given = {name: t for name, t in {"D": normal(5), "z": z, "dt_bias": normal(5, seed=1)}.items() if name in options}
    renamed = {"delta_bias" if name == "dt_bias" else name: t for name, t in given.items()}
    expected, last = plain.scan(u, delta, A, B, C, **renamed, delta_softplus=True)
    state = torch.zeros(2, 5, 4)
    for t in range(7):
        step = given | ({"z": z[..., t]} if "z" in given else {})
        y = selective_state_update(state, u[..., t], delta[..., t], A, B[..., t], C[..., t], **step, dt_softplus=True)
        torch.testing.assert_close(y, expected[..., t], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, last, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_mamba2_and_slots(groups):
    x, dt, A = normal(2, 6, 4, 3), normal(2, 6, 4), -normal(4).exp()
    B, C, D, bias = normal(2, 6, groups, 5), normal(2, 6, groups, 5, seed=1), normal(4), normal(4, seed=1)
    expected, last = plain.duality(x, dt, A, B, C, D, None, bias, None, True)
    slots, where = torch.ones(3, 4, 3, 5), torch.tensor([2, 0])
    slots[where] = 0.0
    wide_A, wide_D, wide_bias = A[:, None, None].expand(-1, 3, 5), D[:, None].expand(-1, 3), bias[:, None].expand(-1, 3)
    for t in range(6):
        step = dt[:, t, :, None].expand(-1, -1, 3)
        y = selective_state_update(slots, x[:, t], step, wide_A, B[:, t], C[:, t], wide_D, None, wide_bias, True, where)
        torch.testing.assert_close(y, expected[:, t], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(slots[where], last, rtol=1e-4, atol=1e-5)
    assert bool((slots[1] == 1).all())


def test_padding_slots_stay_as_they_are():
    state = normal(2, 3, 4)
    before = state.clone()
    A, row, vector = -normal(3, 4).exp(), normal(1, 3), normal(1, 4)
    selective_state_update(state, row, row, A, vector, vector, state_batch_indices=torch.tensor([-1]))
    assert torch.equal(state, before)
