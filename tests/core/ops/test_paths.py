import pytest
import torch

from polymamba.core.ops.paths import Paths

LENGTH = 5
WHOLE = torch.tensor([[[0, 1, 2, 3, 4], [4, 2, 0, 3, 1]]])
SHORT = torch.tensor([[[3, 1, 0, -1], [2, -1, -1, -1]], [[4, 0, 2, 1], [0, 1, 2, 3]]])
ORDERS = {"whole": WHOLE, "short": SHORT, "one": WHOLE[:, 1:], "no steps": SHORT[..., :0], "raster": None}


def made(order, batch=2):
    return Paths(order, None, batch, 2 if order is None else order.shape[1], LENGTH, torch.device("cpu"))


@pytest.fixture(params=ORDERS)
def order(request):
    return ORDERS[request.param]


@pytest.mark.parametrize("own", [False, True])
def test_rows_of_steps_are_those_of_the_order(order, own):
    way = made(order)
    values = torch.randn(2, way.paths if own else 1, LENGTH, 3)
    seen = way.visit(values).unflatten(0, (way.paths, 2))
    for path in range(way.paths):
        for row in range(2):
            for step in range(way.steps):
                token = step if order is None else int(order[row % len(order), path, step])
                expected = values[row, path if own else 0, token] if token >= 0 else torch.zeros(3)
                assert torch.equal(seen[path, row, step], expected)


@pytest.mark.parametrize("how", ["sum", "mean", "none"])
def test_merging_puts_rows_back_where_they_were(order, how):
    way = made(order)
    values = torch.randn(2, way.paths, LENGTH, 2, 3)
    visited = torch.zeros(2, way.paths, LENGTH, 1, 1)
    for row, path, step in torch.cartesian_prod(*map(torch.arange, (2, way.paths, way.steps))).tolist():
        token = step if order is None else int(order[row % len(order), path, step])
        if token >= 0:
            visited[row, path, token] = 1
    expected = values * visited
    expected = {"sum": expected.sum(1), "mean": expected.mean(1), "none": expected}[how]
    torch.testing.assert_close(way.merge(way.visit(values), how), expected)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("how", ["sum", "none"])
def test_gradients_and_theirs(order, own, how):
    way = made(order)
    values = torch.randn(2, way.paths if own else 1, LENGTH, 2, dtype=torch.float64, requires_grad=True)

    def call(values):
        return way.merge(way.visit(values).square(), how)

    torch.autograd.gradcheck(call, values)
    torch.autograd.gradgradcheck(call, values)
    (found,) = torch.autograd.grad(call(values).sum(), values)
    expected = torch.func.grad(lambda values: call(values).sum())(values)  # PyTorch's own rules: no Function is asked
    torch.testing.assert_close(found, expected)
