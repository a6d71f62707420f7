import pytest
import torch
from torch.nn import functional as F

from polymamba.core.connector import Connector
from polymamba.core.errors import UserError

FORMS = ("mlp", "vss-mlp", "vss-l2")


def made(form, scan="bidirectional", **options):
    torch.manual_seed(0)
    return Connector(6, 10, form, scan, d_state=4, backend="reference", **options).double()


def by_hand(connector, x, grid):
    def linear(layer, x):
        return x @ layer.weight.T + layer.bias

    def normed(x):
        x = x - x.mean(-1, keepdim=True)
        return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * connector.norm.weight + connector.norm.bias

    if connector.form == "vss-l2":
        x = linear(connector.enter, x)
        return linear(connector.leave, normed(connector.mix(F.gelu(x), grid)[0] + x))
    if connector.form == "vss-mlp":
        x = normed(connector.mix(x, grid)[0] + x)
    first, _, second = connector.leave
    return linear(second, F.gelu(linear(first, x)))


@pytest.mark.parametrize("scan", ["bidirectional", "cross"])
@pytest.mark.parametrize("form", FORMS)
def test_the_papers_equations(form, scan):
    connector, x = made(form, scan), torch.randn(2, 15, 6, dtype=torch.float64)
    found = connector(x, (3, 5))
    assert found.shape == (2, 15, 10)
    torch.testing.assert_close(found, by_hand(connector, x, (3, 5)))
    assert all(g is not None for g in torch.autograd.grad(found.square().sum(), list(connector.parameters())))


@pytest.mark.parametrize("form", FORMS)
def test_what_a_patch_learns_of_the_others(form):
    """Of none without a mixer, of all along both ways of a scan."""
    connector, x = made(form), torch.randn(1, 8, 6, dtype=torch.float64, requires_grad=True)
    [gradient] = torch.autograd.grad(connector(x, (2, 4))[0, 3].sum(), x)
    heard = gradient[0].abs().sum(-1) > 0
    assert heard.tolist() == ([i == 3 for i in range(8)] if form == "mlp" else [True] * 8)


def test_what_is_not_there():
    with pytest.raises(UserError, match="vss-l2"):
        Connector(6, 10, "vss")
    with pytest.raises(UserError, match="scan"):
        Connector(6, 10, scan="spiral")
