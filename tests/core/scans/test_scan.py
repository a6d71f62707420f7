"""What every scan mode must do, for every entry of the table and many grids."""

import itertools
import math

import pytest
import torch

from polymamba.core import scans
from polymamba.core.errors import UserError
from polymamba.core.scans import Grid
from polymamba.core.scans.modes import MODES
from polymamba.core.scans.scan import Part, Scan

GRIDS = [
    *[(1,), (2,), (5,), (16,)],
    *[(1, 1), (1, 2), (1, 7), (7, 1), (2, 3), (3, 2), (3, 3), (4, 4), (5, 8), (9, 4), (14, 14), (8, 15)],
    *[(1, 1, 1), (1, 4, 1), (2, 2, 2), (3, 4, 5), (1, 3, 6), (4, 2, 7), (3, 3, 3), (5, 1, 8)],
]
EMPTY = [(0,), (0, 5), (5, 0), (0, 0), (3, 0, 2), (0, 1, 1)]
CLASS_TOKENS = ["none", "front", "middle", "end", "double"]


def scan_of(name):
    return scans.get(name, **({"window": 2} if "window" in MODES[name].parameters else {}))


@pytest.mark.parametrize("where", CLASS_TOKENS)
@pytest.mark.parametrize("name", scans.names())
def test_every_path_visits_each_token_once_and_disjoint_paths_share_them(name, where):
    grids = [sizes for sizes in GRIDS if len(sizes) in MODES[name].ndims]
    assert grids
    for sizes in grids:
        check_paths(scan_of(name), Grid.with_class_token(sizes, where))


def check_paths(scan, grid):
    order = scan.order(grid)
    assert order.dtype == torch.int32
    assert order.shape[0] == scan.paths(grid.ndim) >= 1
    assert order.is_contiguous()
    everything = list(range(grid.length))
    paths = [[token for token in row if token >= 0] for row in order.tolist()]
    for row, path in zip(order.tolist(), paths, strict=True):
        assert row == path + [-1] * (len(row) - len(path)), "-1 stands only at the end"
        assert set(grid.extra) <= set(path)
    if scan.disjoint(grid.ndim):
        on_grid = [token for path in paths for token in path if token not in grid.extra]
        assert sorted(on_grid) == [token for token in everything if token not in grid.extra]
    elif scan.name == "multi_scale":
        assert sorted(paths[0]) == everything
        assert all(len(set(path)) == len(path) for path in paths)
    else:
        assert all(sorted(path) == everything for path in paths)
    assert max(map(len, paths)) == order.shape[1]


@pytest.mark.parametrize("name", scans.names())
def test_an_empty_grid_has_empty_paths(name):
    scan = scans.get(name)
    for sizes in [sizes for sizes in EMPTY if len(sizes) in MODES[name].ndims]:
        assert scan.order(sizes).shape == (scan.paths(len(sizes)), 0)
        with_token = scan.order(Grid.with_class_token(sizes, "front"))
        assert with_token.tolist() == [[0]] * scan.paths(len(sizes))


@pytest.mark.parametrize("name", scans.names())
@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_grids_that_make_no_sense_are_refused_with_what_is_allowed(name, ndim):
    scan = scans.get(name)
    if ndim in MODES[name].ndims:
        assert scan.paths(ndim) == len(scan.order((8,) * ndim))
        return
    for refused in (lambda: scan.order((8,) * ndim), lambda: scan.paths(ndim)):
        with pytest.raises(UserError, match=f"'{name}' makes no sense on a {ndim}-D grid") as error:
            refused()
        assert all(f"{allowed}-D" in error.value.allowed for allowed in MODES[name].ndims)


@pytest.mark.parametrize("name", scans.names())
def test_layers_walk_the_paths_in_turn(name):
    scan = scan_of(name)
    for ndim in MODES[name].ndims:
        sizes = (3, 4, 5)[:ndim]
        together = scan.order(sizes)
        for layer in range(30):
            of_layer = scan.layer(layer).order(sizes)
            if MODES[name].per_layer:
                assert torch.equal(of_layer, together[layer % len(together)][None])
            else:
                assert scan.layer(layer) is scan or scan.layer(layer) == scan
        assert scan.layer(scan.layers + 1) == scan.layer(1)
    chosen = scan.layer(5)
    assert chosen.layer(3) == chosen
    assert chosen.layers == 1


@pytest.mark.parametrize("name", scans.names())
def test_name_and_parameters_give_the_scan_again(name):
    scan = scan_of(name)
    assert scans.get(scan.name, **scan.parameters) == scan
    assert hash(scans.get(scan.name, **scan.parameters)) == hash(scan)
    assert scan.paper == MODES[name].paper
    assert scan.paper in scan.describe()
    assert scan.describe().startswith(f"{name}: ")


@pytest.mark.parametrize("name", scans.names())
def test_papers_and_descriptions_are_there(name):
    assert any(character.isdigit() for character in MODES[name].paper)
    assert MODES[name].summary.endswith(".")


def test_the_usual_path_counts():
    counts = {
        "raster": 1,
        "reverse": 1,
        "bidirectional": 2,
        "cross": 4,
        "cross_uni": 4,
        "cross_bidi": 4,
        "cross_rot90": 4,
        "continuous": 4,
        "zigzag": 8,
        "hilbert": 4,
        "skip": 4,
        "local": 1,
        "local_flip": 1,
        "local_vim": 4,
        "mamba_nd": 4,
        "diagonal": 4,
    }
    assert {name: scans.get(name).paths(2) for name in counts} == counts
    assert scans.get("zigzag").layer(3).paths(2) == 1
    assert scans.get("skip", step=3).paths(3) == 27
    assert scans.get("slices").paths(3) == 3


@pytest.mark.parametrize("name", scans.names())
def test_disjoint_is_said_of_the_modes_whose_paths_share_the_tokens(name):
    for ndim in MODES[name].ndims:
        order = scan_of(name).order((4, 5, 6)[:ndim])
        assert scan_of(name).disjoint(ndim) == (
            sorted(order[order >= 0].tolist()) == list(range(math.prod((4, 5, 6)[:ndim])))
        )


def test_joined_modes_are_not_disjoint_and_single_layers_are():
    assert all(scans.get(name).disjoint(2) for name in ("raster", "reverse", "column", "local", "local_flip", "skip"))
    assert not scans.get("raster+skip").disjoint(2)
    assert not scans.get("raster+reverse").disjoint(2)
    assert scans.get("zigzag").layer(2).disjoint(2)


@pytest.mark.parametrize("where", CLASS_TOKENS)
@pytest.mark.parametrize("sizes", [(5,), (6,), (3, 5), (2, 3, 4)])
def test_bidirectional_is_the_exact_flip(sizes, where):
    forward, backward = scans.get("bidirectional").order(Grid.with_class_token(sizes, where))
    assert forward.tolist() == list(range(len(forward)))
    assert torch.equal(backward, forward.flip(0))


REVERSED = {
    "bidirectional": {1: 0},
    "cross": {2: 0, 3: 1},
    "cross_bidi": {2: 0, 3: 1},
    "cross_rot90": {2: 0, 3: 1},
    "continuous": {1: 0, 3: 2},
    "hilbert": {1: 0, 3: 2},
    "local_vim": {1: 0, 3: 2},
    "diagonal": {2: 0, 3: 1},
    "mamba_nd": {1: 0, 3: 2},
}


@pytest.mark.parametrize(("name", "where"), list(itertools.product(REVERSED, CLASS_TOKENS)))
def test_reverses_reverse_the_extra_tokens_too(name, where):
    grid = Grid.with_class_token((5, 6), where)
    order = scan_of(name).order(grid)
    for backward, forward in REVERSED[name].items():
        assert torch.equal(order[backward], order[forward].flip(0))
    for forward in set(REVERSED[name].values()):
        for position in grid.extra:
            assert order[forward, position] == position


def test_orders_are_kept_per_scan_grid_and_device():
    scan = scans.get("cross")
    first = scan.order((4, 6))
    assert scans.get("cross").order([4, 6]) is first
    assert scan.order(Grid((4, 6)), device="cpu") is first
    assert scan.order((6, 4)) is not first
    assert scan.order(Grid((4, 6), (0,))) is not first
    assert scans.get("cross_rot90").order((4, 6)) is not first
    other = scan.order((4, 6), device="meta")
    assert other.device.type == "meta"
    assert scan.order((4, 6), device=torch.device("meta")) is other
    assert scan.order((4, 6)) is first


def test_a_number_is_the_length_of_a_sequence():
    assert scans.get("raster").order(3).tolist() == [[0, 1, 2]]


def test_an_order_built_without_autograd_serves_autograd():
    scan, sizes = scans.get("hilbert"), (3, 11)
    with torch.inference_mode():
        assert not scan.order(sizes).is_inference()
    x = torch.randn(33, requires_grad=True)
    (x[scan.order(sizes).flatten()] * torch.randn(132)).sum().backward()
    assert x.grad is not None


class Permute(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scan = scans.get("cross+hilbert")

    def forward(self, x):
        _, height, width, _ = x.shape
        order = self.scan.order((height, width), x.device)
        return x.flatten(1, 2)[:, order.flatten()]


def test_orders_are_constants_for_the_compiler_at_any_size():
    torch._dynamo.reset()
    module = Permute()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    for height, width in ((3, 4), (5, 4), (6, 7)):
        x = torch.randn(2, height, width, 3)
        assert torch.equal(compiled(x), module(x))


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict):
    x = torch.randn(2, 5, 3 + strict, 1)
    module = Permute()
    exported = torch.export.export(module, (x,), strict=strict).module()
    assert torch.equal(exported(x), module(x))
    assert type(module.scan.order(tuple(x.shape[1:3]))) is torch.Tensor


def test_scans_are_values():
    scan = scans.get("local", window=4)
    assert len({scan, scans.get("local", window=4), scans.get("local", window=5)}) == 2
    with pytest.raises(AttributeError):
        scan.parts = ()
    assert scan == Scan((Part("local", (("window", 4), ("flip", False))),))
    assert str(scan) == "local (window=4, flip=False)"
    assert str(scans.get("zigzag").layer(27)) == "zigzag, layer 3"
