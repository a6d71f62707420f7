import math

import pytest
import torch
from torch.nn import functional as F

from polymamba.core.errors import UserError
from polymamba.domains.recommendation.models.hstu import HSTU, build


def by_hand(model, items, times, published):
    """The paper's equations pair by pair, for one history."""
    x = model.item_embedding.weight[items] * 32**0.5 + model.position_embedding.weight[: len(items)]
    for layer in model.layers:
        u, v, q, k = F.silu(F.layer_norm(x, (32,), eps=1e-6) @ layer.uvqk).split(32, -1)
        said = torch.zeros_like(x)
        for i in range(len(items)):
            for j in range(i + 1):
                bias = layer.pos_w[j - i + 11]
                if times is not None:
                    asked = times[min(i + 1, len(items) - 1)] if published else times[i]
                    bias = bias + layer.ts_w[min(int(math.log(max(abs(int(asked - times[j])), 1)) / 0.301), 128)]
                for head in (slice(0, 16), slice(16, 32)):
                    said[i, head] += F.silu(q[i, head] @ k[j, head] + bias) / 12 * v[j, head]
        x = x + layer.o(u * F.layer_norm(said, (32,), eps=1e-6))
    return x / x.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("compat", ["corrected", "published"])
@pytest.mark.parametrize("timed", [False, True])
@torch.no_grad()
def test_the_equations_by_hand(golden, timed, compat):
    model = golden.fill(HSTU(30, 12, 32, heads=2, compat=compat)).double()
    items = torch.tensor([3, 9, 27, 1, 3])
    times = torch.tensor([7, 8, 3_000, 10**7, 10**9]) if timed else None
    hidden, states = model(items[None], times=times[None] if timed else None)
    torch.testing.assert_close(hidden[0], by_hand(model, items, times, compat == "published"))
    assert (states is None) == (compat == "published")
    table = model.item_embedding.weight
    cosines = F.cosine_similarity(hidden[0, :, None], table[None], dim=-1)
    torch.testing.assert_close(model.scores(hidden)[0], cosines / 0.05)


@pytest.mark.parametrize(("size", "parameters"), [("base", 10_000), ("large", 10_000)])
def test_parameters_by_hand(size, parameters):
    layers = {"base": 2, "large": 8}[size]
    model = build({"items": 199, "length": 50}, size=size)
    layer = 50 * 200 + 50 * 50 + 50 + 99 + 129
    assert sum(p.numel() for p in model.parameters()) == parameters + 50 * 50 + layers * layer


def test_times_of_all_events_or_of_none(golden):
    model = golden.fill(HSTU(30, 12, 32))
    _, states = model(torch.tensor([[3, 9]]), times=torch.tensor([[3, 9]]))
    with pytest.raises(UserError, match="for all events or for none"):
        model(torch.tensor([[3]]), states=states)
    with pytest.raises(UserError, match="heads must divide"):
        HSTU(30, 12, 32, heads=3)
