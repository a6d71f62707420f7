"""The mixer under torch.compile and torch.export."""

import pytest
import torch

from polymamba.core.mixers import walk
from polymamba.core.mixers.mamba import Mamba
from polymamba.core.mixers.mamba2 import Mamba2
from polymamba.core.scans import Grid

pytestmark = pytest.mark.filterwarnings("ignore")
CASES = {
    "raster": ({}, None),
    "bidirectional": ({"scan": "bidirectional"}, None),
    "cross": ({"scan": "cross", "axes": 2}, Grid.with_class_token((3, 4), "middle")),
    "skip": ({"scan": "skip", "axes": 2}, Grid.with_class_token((3, 4), "middle")),
    "decay": ({"scan": "cross", "axes": 2, "parameters": "decay"}, (3, 4)),
    "conv on the grid": ({"scan": "bidirectional", "axes": 2, "conv": "grid"}, Grid.with_class_token((3, 4), "front")),
}


class Mixed(torch.nn.Module):
    """One tensor in, one out; the grid is fixed, as it is in a model."""

    def __init__(self, grid, **options):
        super().__init__()
        self.mixer, self.grid = Mamba(16, d_state=4, **options), grid

    def forward(self, x):
        return self.mixer(x, self.grid)[0]


def make(case):
    torch.manual_seed(0)
    options, grid = CASES[case]
    length = 13 if grid is None else grid.length if isinstance(grid, Grid) else 12
    walk.walk.cache_clear()  # the tables are made while tracing
    return Mixed(grid, **options), torch.randn(2, length, 16)


@pytest.mark.parametrize("case", CASES)
def test_compiles_as_one_graph_with_gradients(case):
    model, x = make(case)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x.requires_grad_()
    found = compiled(x)
    gradients = torch.autograd.grad(found.square().sum(), [x, *model.parameters()])
    expected = model(x)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected.square().sum(), [x, *model.parameters()])
    torch.testing.assert_close(gradients, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_exports_with_any_batch(case):
    model, x = make(case)
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    more = torch.randn(5, *x.shape[1:])
    torch.testing.assert_close(exported.module()(more), model(more))


def test_a_walk_made_while_tracing_is_of_use_afterwards():
    model, x = make("skip")
    torch.export.export(model, (x,))
    model(x.requires_grad_()).sum().backward()
    assert x.grad is not None


@pytest.mark.slow
def test_compiles_to_machine_code():
    model, x = make("bidirectional")
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x))


@pytest.mark.parametrize("mixer", [Mamba(16, d_state=4), Mamba2(16, headdim=8)])
def test_one_token_compiles_as_one_graph(mixer):
    x = torch.randn(2, 1, 16)
    with torch.no_grad():
        state = mixer(torch.randn(2, 3, 16))[1]
        torch._dynamo.reset()
        found, after = torch.compile(mixer, fullgraph=True, backend="aot_eager")(x, None, state)
        expected, wanted = mixer(x, None, state)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(after, wanted)
