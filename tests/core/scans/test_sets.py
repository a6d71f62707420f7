"""Orders of points and nodes: curves against their definitions, padding, mixers that walk them."""

import itertools

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.core.ops.selective_scan import selective_scan
from polymamba.core.scans.sets import cells, degree_key, hilbert_key, order_by, z_key


def lattice(bits: int, axes: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(2**bits), repeat=axes)))[None]


@pytest.mark.parametrize(("bits", "axes"), [(1, 2), (3, 2), (2, 3), (3, 3), (2, 4)])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_hilbert_curve_goes_to_a_neighbour_at_each_step(bits, axes, transposed):
    cell = lattice(bits, axes)
    key = hilbert_key(cell, bits, transposed)
    assert sorted(key[0].tolist()) == list(range(2 ** (bits * axes)))
    path = cell[0, key[0].argsort()]
    assert (path.diff(dim=0).abs().sum(1) == 1).all()
    assert path[0].tolist() == [0] * axes
    other = hilbert_key(cell[..., [1, 0, *range(2, axes)]], bits, not transposed)
    torch.testing.assert_close(key, other)


def test_a_hilbert_curve_fills_an_octant_before_the_next():
    cell = lattice(3, 3)
    path = cell[0, hilbert_key(cell, 3)[0].argsort()]
    octants = (path // 4).reshape(8, 64, 3)
    assert (octants == octants[:, :1]).all()


def test_z_order_interleaves_bits():
    cell = torch.tensor([[[0b10, 0b01, 0b11], [0b00, 0b11, 0b00]]])
    assert z_key(cell, 2).tolist() == [[0b101011, 0b010010]]
    with pytest.raises(UserError, match="counted from 0"):
        z_key(cell, 1)
    with pytest.raises(UserError, match="63 bits"):
        hilbert_key(cell, 30)


def test_cells_of_points():
    points = torch.tensor([[[0.0, 0.05, -0.03], [0.019, 0.0, 0.01], [0.021, 0.2, 0.0]]])
    assert cells(points, 0.02).tolist() == [[[0, 2, 0], [0, 0, 2], [1, 10, 2]]]
    scaled = cells(points)
    assert int(scaled.min()) == 0
    assert int(scaled.max()) == 2**10 - 1
    assert cells(torch.ones(1, 3, 3)).tolist() == [[[0, 0, 0]] * 3]


def test_nodes_by_degree_and_padding():
    degrees = torch.tensor([[3, 1, 3, 2], [5, 0, 9, 1]])
    valid = torch.tensor([[True, True, True, True], [True, True, False, True]])
    found = order_by(degree_key(degrees), -degrees, valid=valid)
    assert found.tolist() == [[[1, 3, 0, 2], [0, 2, 3, 1]], [[1, 3, 0, -1], [0, 3, 1, -1]]]
    noise = torch.tensor([[0.9, 0.0, 0.1, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert order_by(degree_key(degrees, noise))[0].tolist() == [[1, 3, 2, 0]]
    with pytest.raises(UserError, match="all alike"):
        order_by(degrees, degrees[:, :2])


def test_a_scan_along_a_samples_own_order_is_that_of_its_sorted_tokens():
    torch.manual_seed(0)
    points = torch.rand(3, 9, 3)
    order = order_by(hilbert_key(cells(points)))
    x, delta = torch.randn(2, 3, 9, 4).double().unbind(0)
    B, C = torch.randn(2, 3, 9, 2).double().unbind(0)
    A = -torch.rand(4, 2).double()
    found = selective_scan(x, delta, A, B, C, delta_softplus=True, order=order)
    index = order[:, 0].long()[..., None]
    sorted_ = [t.gather(1, index.expand_as(t)) for t in (x, delta, B, C)]
    expected = selective_scan(*sorted_[:2], A, *sorted_[2:], delta_softplus=True)
    torch.testing.assert_close(found.gather(1, index.expand_as(found)), expected)
