"""An order without steps visits nothing: zeros come out, and the state and its gradient pass by."""

from __future__ import annotations

import pytest
import torch

from polymamba.core.ops.state_space_duality import state_space_duality


@pytest.mark.parametrize("paths", [1, 2])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_state_space_duality(backend, paths):
    state = torch.randn(2, paths, 3, 4, 5, requires_grad=True)
    x, C = torch.randn(2, 6, 3, 4, requires_grad=True), torch.randn(2, 6, 1, 5)
    out, after = state_space_duality(
        x, torch.rand(2, 6, 3), -torch.ones(3), torch.randn(2, 6, 1, 5), C, order=torch.zeros(paths, 0, dtype=torch.int32),
        initial_state=state, return_final_state=True, backend=backend,
    )  # fmt: skip
    assert torch.equal(out, torch.zeros(2, 6, 3, 4))
    assert torch.equal(after, state)
    incoming = torch.randn_like(after)
    found = torch.autograd.grad(after, state, incoming, retain_graph=True)[0]
    assert torch.equal(found, incoming)
