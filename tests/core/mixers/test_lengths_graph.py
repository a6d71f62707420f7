"""Mixers under torch.compile and torch.export at one length or grid after another: one graph for all, and the eager answers."""

import io

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from polymamba.core.mixers import get
from polymamba.core.scans import Grid

pytestmark = pytest.mark.filterwarnings("ignore")
LENGTHS = (5, 9, 16, 33)
GRIDS = ((8, 9), (9, 8), (8, 12), (16, 7))
HEADS = {"headdim": 8}
ROWS = {
    "mamba": ("mamba", {}),
    "mamba, both ways": ("mamba", {"scan": "bidirectional"}),
    "mamba, skip": ("mamba", {"scan": "skip"}),
    "mamba, shared": ("mamba", {"scan": "bidirectional", "parameters": "shared"}),
    "mamba, decay": ("mamba", {"scan": "bidirectional", "parameters": "decay", "norms": "learned"}),
    "mamba, conv on the grid": ("mamba", {"scan": "bidirectional", "conv": "grid"}),
    "mamba, mean": ("mamba", {"scan": "reverse", "conv": "none", "merge": "mean", "gate": False}),
    "mamba, none": ("mamba", {"scan": "mamba_nd", "merge": "none"}),
    "mamba2": ("mamba2", HEADS),
    "mamba2, both ways": ("mamba2", HEADS | {"scan": "bidirectional"}),
    "mamba3": ("mamba3", HEADS),
    "mamba3, both ways": ("mamba3", HEADS | {"scan": "bidirectional", "is_mimo": True}),
    "s4d": ("s4d", {}),
    "s4d, both ways": ("s4d", {"scan": "bidirectional"}),
    "attention": ("attention", {"num_heads": 2, "rotary_fraction": 0.5, "d_conv": 3}),
}
IMAGES = {
    "mamba, cross": ("mamba", {"scan": "cross"}),
    "mamba, skip": ("mamba", {"scan": "skip"}),
    "mamba, skip, shared": ("mamba", {"scan": "skip", "parameters": "shared", "merge": "mean"}),
    "mamba, conv on the grid": ("mamba", {"scan": "cross", "conv": "grid", "parameters": "shared"}),
    "mamba, local_vim": ("mamba", {"scan": "local_vim"}),
    "mamba2, hilbert": ("mamba2", HEADS | {"scan": "hilbert"}),
    "mamba2, raster+skip": ("mamba2", HEADS | {"scan": "raster+skip"}),
    "mamba3, diagonal": ("mamba3", HEADS | {"scan": "diagonal"}),
    "s4d, skip": ("s4d", {"scan": "skip"}),
    "s4d, zigzag": ("s4d", {"scan": "zigzag"}),
}
slow = pytest.mark.slow


def mixer_of(name, options):
    torch.manual_seed(0)
    return get(name)(16, **(options if name == "attention" else {"d_state": 4} | options))


class Row(torch.nn.Module):
    """Tokens in, tokens out."""

    def __init__(self, case):
        super().__init__()
        self.mixer = mixer_of(*ROWS[case])

    def forward(self, x, seq_idx=None):
        return self.mixer(x, seq_idx=seq_idx)[0]


class Image(torch.nn.Module):
    """(batch, height, width, channels) in, tokens out; the grid is the image's own."""

    def __init__(self, case, where):
        super().__init__()
        name, options = IMAGES[case]
        self.mixer, self.where = mixer_of(name, options | {"axes": 2}), where

    def forward(self, x):
        sizes = x.shape[1:3]
        if self.where == "none":
            return self.mixer(x.flatten(1, 2), tuple(sizes))[0]
        grid = Grid.with_class_token(sizes, self.where)
        tokens = torch.cat([x.flatten(1, 2), *[x[:, 0, :1]] * len(grid.extra)], 1)
        return self.mixer(tokens, grid)[0]


def compiled(function, **options):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    return torch.compile(function, **{"fullgraph": True, "backend": "aot_eager"} | options)


def same(graph, model, *inputs, rtol=1e-4):
    """Outputs and all gradients."""
    x = inputs[0].requires_grad_()
    wanted = [x, *model.parameters()]
    found, expected = graph(*inputs), model(*inputs)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol)
    gradients, correct = (
        torch.autograd.grad(y.float().square().sum(), wanted, materialize_grads=True) for y in (found, expected)
    )
    torch.testing.assert_close(gradients, correct, rtol=10 * rtol, atol=rtol)


def packed(length):
    numbers = torch.arange(length) // 4
    return numbers.where(numbers.flip(0) > 0, -1).int().expand(2, -1).contiguous()


def check_rows(case, dynamic=None, with_numbers=False):
    model = Row(case)
    graph = compiled(model, dynamic=dynamic)
    for length in LENGTHS:
        same(graph, model, torch.randn(2, length, 16), *([packed(length)] if with_numbers else []))
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def test_one_graph_for_all_lengths():
    assert check_rows("mamba, both ways") == 2


@slow
@pytest.mark.parametrize("case", ROWS)
def test_lengths(case):
    assert check_rows(case) == 2


@slow
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("case", ["mamba", "mamba, skip", "mamba2, both ways", "mamba3, both ways", "s4d, both ways"])
def test_lengths_all_or_none_dynamic(case, dynamic):
    assert check_rows(case, dynamic) == (1 if dynamic else len(LENGTHS))


@slow
@pytest.mark.parametrize("case", [case for case in ROWS if "grid" not in case])
def test_lengths_of_packed_sequences(case):
    check_rows(case, with_numbers=True)


@slow
@pytest.mark.parametrize("where", ["none", "middle"])
@pytest.mark.parametrize("case", IMAGES)
def test_grids(case, where):
    model = Image(case, where)
    graph = compiled(model)
    for sizes in GRIDS:
        same(graph, model, torch.randn(2, *sizes, 16))


def export_rows(case, with_numbers=False):
    model, dims = Row(case), {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=1)}
    inputs = (torch.randn(2, 7, 16), *([packed(7)] if with_numbers else []))
    exported = torch.export.export(model, inputs, dynamic_shapes=(dims, dims)[: len(inputs)])
    return model, exported


def test_exports_with_any_length_and_is_read_back():
    model, exported = export_rows("mamba, both ways")
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    read = torch.export.load(file).module()
    for length in (1, 2, *LENGTHS):
        x = torch.randn(3, length, 16)
        torch.testing.assert_close(read(x), model(x))


@slow
@pytest.mark.parametrize("case", ROWS)
def test_exports_with_any_length(case):
    model, exported = export_rows(case)
    for length in (2, *LENGTHS):
        x = torch.randn(3, length, 16)
        torch.testing.assert_close(exported.module()(x), model(x), rtol=1e-4, atol=1e-5)


@slow
@pytest.mark.parametrize("case", [case for case in ROWS if "grid" not in case])
def test_exports_packed_with_any_length(case):
    model, exported = export_rows(case, with_numbers=True)
    for length in (2, *LENGTHS):
        inputs = torch.randn(2, length, 16), packed(length)
        torch.testing.assert_close(exported.module()(*inputs), model(*inputs), rtol=1e-4, atol=1e-5)


@slow
@pytest.mark.parametrize("where", ["none", "middle"])
@pytest.mark.parametrize("case", IMAGES)
def test_exports_with_any_grid(case, where):
    model, dims = (
        Image(case, where),
        {axis: torch.export.Dim(name) for axis, name in enumerate(("batch", "high", "wide"))},
    )
    exported = torch.export.export(model, (torch.randn(2, 8, 9, 16),), dynamic_shapes=(dims,))
    for sizes in GRIDS:
        x = torch.randn(3, *sizes, 16)
        torch.testing.assert_close(exported.module()(x), model(x), rtol=1e-4, atol=1e-5)


@slow
@pytest.mark.parametrize("case", ["mamba", "mamba2", "mamba3", "s4d", "attention"])
def test_a_state_is_carried_at_any_length(case):
    mixer = mixer_of(*ROWS[case])
    graph, state = compiled(mixer), mixer(torch.randn(2, 4, 16))[1]
    for length in LENGTHS:
        x = torch.randn(2, length, 16)
        torch.testing.assert_close(graph(x, None, state), mixer(x, None, state), rtol=1e-4, atol=1e-5)


@slow
@pytest.mark.parametrize("case", ["mamba, both ways", "mamba2, both ways", "mamba3", "s4d"])
def test_autocast(case):
    model = Row(case)
    graph = compiled(model)
    with torch.autocast("cpu", torch.bfloat16):
        for length in LENGTHS:
            same(graph, model, torch.randn(2, length, 16), rtol=0.03)


@slow
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("case", ["mamba, both ways", "mamba2", "mamba3", "s4d"])
def test_checkpointing(case, reentrant):
    model = Row(case)

    def again(x):
        return checkpoint(model, x, use_reentrant=reentrant)

    graph = again if reentrant else compiled(again)
    for length in (5, 9):
        x = torch.randn(2, length, 16, requires_grad=True)
        gradients = []
        for function in (graph, model):
            model.zero_grad()
            x.grad = None
            function(x).square().sum().backward()
            gradients.append([t.grad.clone() for t in (x, *model.parameters())])
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


@slow
@pytest.mark.parametrize("case", ["mamba, both ways", "mamba2"])
def test_machine_code(case):
    model = Row(case)
    graph = compiled(model, backend="inductor")
    for length in LENGTHS:
        same(graph, model, torch.randn(2, length, 16))


@slow
def test_machine_code_ahead_of_time(tmp_path):
    model = Row("mamba, both ways").eval()
    with torch.no_grad():
        length = {1: torch.export.Dim("length", min=2, max=1024)}
        exported = torch.export.export(model, (torch.randn(2, 7, 16),), dynamic_shapes=(length,))
        package = torch._inductor.aoti_compile_and_package(exported, package_path=str(tmp_path / "model.pt2"))
        loaded = torch._inductor.aoti_load_package(package)
        for steps in LENGTHS:
            x = torch.randn(2, steps, 16)
            torch.testing.assert_close(loaded(x), model(x), rtol=1e-4, atol=1e-5)
