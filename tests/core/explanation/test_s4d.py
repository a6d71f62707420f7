"""The matrices of the layer that does not select."""

import pytest
import torch
from torch.nn import functional as F

from polymamba.core.explanation import hidden_attention
from polymamba.core.mixers import S4D
from polymamba.core.ops.causal_conv1d import causal_conv1d
from polymamba.core.scans import Grid

WAYS = [
    ("raster", 1, (9,), "sum"), ("raster", 1, (1,), "sum"), ("bidirectional", 1, (7,), "none"), ("cross", 2, (3, 4), "sum"),
    ("skip", 2, (3, 5), "mean"), ("raster+diagonal", 2, (5, 3), "sum"),
]  # fmt: skip
PACKED = torch.tensor([[-1, -1, 0, 0, 0, 3, 3, 3], [1, 1, 1, 1, 1, 2, -1, -1], [0, 0, -1, 0, 0, 1, 0, 0]])


def mixer(**options):
    torch.manual_seed(0)
    made = S4D(6, d_state=4, **options, dtype=torch.float64)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def rebuilt(made, x, grid, seq_idx):
    """The mixer's answer by its matrices."""
    order = made.select(x, grid, None, seq_idx).order
    inner, z = made.in_proj(x).chunk(2, -1)
    u, _ = causal_conv1d(
        inner, made.conv1d.weight.squeeze(1), made.conv1d.bias, "silu", order, seq_idx, None, True, made.backend
    )
    u = u if u.dim() == 4 else u[:, None]
    y = torch.einsum("bpcij,bpjc->bpic", hidden_attention(made, x, grid, seq_idx, merge="none"), u)
    visited = torch.einsum("bpcij->bpi", hidden_attention(made, x, grid, seq_idx, merge="none").abs()) > 0
    y = y + made.D * u * visited[..., None]
    y = {"sum": lambda t: t.sum(1), "mean": lambda t: t.mean(1), "none": lambda t: t}[made.merge](y)
    return made.out_proj(y * F.silu(z if made.merge != "none" else z[:, None]))


@pytest.mark.parametrize(("way", "axes", "sizes", "merge"), WAYS)
def test_rebuilds_the_mixers_output(way, axes, sizes, merge):
    made, grid = mixer(scan=way, axes=axes, merge=merge), Grid.with_class_token(sizes, "middle")
    x = torch.randn(2, grid.length, 6, dtype=torch.float64)
    torch.testing.assert_close(rebuilt(made, x, grid, None), made(x, grid)[0])


@pytest.mark.parametrize("way", ["raster", "bidirectional"])
def test_packed_and_padded(way):
    made, x = mixer(scan=way), torch.randn(3, 8, 6, dtype=torch.float64)
    real = PACKED >= 0
    found = rebuilt(made, x, None, PACKED)
    torch.testing.assert_close(found[real], made(x, seq_idx=PACKED)[0][real])


def test_it_depends_on_the_distance_alone():
    made = mixer()
    matrix = hidden_attention(made, torch.randn(1, 10, 6, dtype=torch.float64))[0]
    torch.testing.assert_close(matrix[:, 1:, 1:], matrix[:, :-1, :-1], rtol=0, atol=0)
    assert not matrix.triu(1).any()
    assert matrix.tril().abs().sum() > 0
