"""Theorem 1 of Mamba (arXiv 2312.00752): with one state, A = -1, B = 1 and softplus steps, the scan is a gated RNN."""

import pytest
import torch
from torch.nn import functional as F

from polymamba.core.ops.selective_scan import selective_scan


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_one_state_is_the_gated_recurrence(backend):
    g = torch.Generator().manual_seed(0)
    x, logit = torch.randn(2, 40, 6, generator=g), 3 * torch.randn(2, 40, 6, generator=g)
    bias, ones = torch.randn(6, generator=g), torch.ones(2, 40, 1)
    step = F.softplus(logit + bias)
    held = -torch.expm1(-step) / step  # the theorem holds the input over a step (its eq. 4); the scan takes Δ B
    found, last = selective_scan(
        held * x, logit, -torch.ones(6, 1), ones, ones, None, None, bias, True, return_final_state=True, backend=backend
    )
    gate, state, rows = torch.sigmoid(logit + bias), torch.zeros(2, 6), []
    for t in range(40):
        state = (1 - gate[:, t]) * state + gate[:, t] * x[:, t]
        rows.append(state)
    torch.testing.assert_close(found, torch.stack(rows, 1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(last[..., 0], state, rtol=1e-5, atol=1e-6)
