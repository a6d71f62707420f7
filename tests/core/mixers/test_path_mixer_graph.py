"""Mamba-2, Mamba-3 and S4D under torch.compile and torch.export."""

import pytest
import torch

from polymamba.core.mixers import get, walk

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
HEADS = {"headdim": 8}
CASES = {
    "mamba2": ("mamba2", HEADS, False),
    "mamba2, cross": ("mamba2", HEADS | {"scan": "cross", "axes": 2}, False),
    "mamba2, packed": ("mamba2", HEADS, True),
    "mamba3": ("mamba3", HEADS, False),
    "mamba3, cross": ("mamba3", HEADS | {"scan": "cross", "axes": 2}, False),
    "mamba3, packed": ("mamba3", HEADS, True),
    "mamba3, several inputs": ("mamba3", HEADS | {"is_mimo": True}, False),
    "s4d": ("s4d", {}, False),
    "s4d, cross": ("s4d", {"scan": "cross", "axes": 2}, False),
    "s4d, packed": ("s4d", {}, True),
}

# Its further tests are in test_mamba_graph.
MAMBA = {"mamba": ("mamba", {}, False), "mamba, cross": ("mamba", {"scan": "cross", "axes": 2}, False)}


class Mixed(torch.nn.Module):
    """Tokens in, tokens out; the grid is fixed, as it is in a model."""

    def __init__(self, name, options):
        super().__init__()
        self.mixer, self.grid = get(name)(16, d_state=4, **options), (3, 4)

    def forward(self, x, seq_idx=None):
        return self.mixer(x, self.grid, seq_idx=seq_idx)[0]


def make(case):
    torch.manual_seed(0)
    name, options, packed = (CASES | MAMBA)[case]
    walk.walk.cache_clear()  # the tables are made while tracing
    seq_idx = (torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, -1, -1]).expand(2, -1).contiguous(),) if packed else ()
    return Mixed(name, options), (torch.randn(2, 12, 16), *seq_idx)


@pytest.mark.parametrize("case", CASES)
def test_compiles_as_one_graph_with_gradients(case):
    model, inputs = make(case)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    inputs[0].requires_grad_()
    wanted = [inputs[0], *model.parameters()]
    found, expected = compiled(*inputs), model(*inputs)
    torch.testing.assert_close(found, expected)
    gradients, correct = (torch.autograd.grad(y.square().sum(), wanted) for y in (found, expected))
    torch.testing.assert_close(gradients, correct, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES | MAMBA)
def test_float64_compiles_as_one_graph(case):
    """What other dtypes hide in an operator is traced here: the references, where they do the work."""
    model, inputs = make(case)
    model, inputs = model.double(), (inputs[0].double(), *inputs[1:])
    torch._dynamo.reset()
    found = torch.compile(model, fullgraph=True, backend="aot_eager")(*inputs)
    torch.testing.assert_close(found, model(*inputs))


@pytest.mark.parametrize("case", CASES)
def test_exports_with_any_batch(case):
    model, inputs = make(case)
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(model, inputs, dynamic_shapes=tuple({0: batch} for _ in inputs))
    more = (torch.randn(5, 12, 16), *(t[:1].expand(5, -1) for t in inputs[1:]))
    torch.testing.assert_close(exported.module()(*more), model(*more))


@pytest.mark.parametrize("case", ["mamba2", "mamba3", "s4d"])
def test_compiles_to_machine_code(case):
    model, inputs = make(case)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(*inputs), model(*inputs), rtol=1e-4, atol=1e-5)
