"""Mamba-2 and Mamba-3: the matrices are the scan's answers to one-hot inputs, and rebuild the mixer's output."""

import pytest
import torch

from polymamba.core import scans
from polymamba.core.explanation import hidden_attention, mean_hidden_attention
from polymamba.core.mixers.mamba2 import Mamba2
from polymamba.core.mixers.mamba3 import Mamba3
from polymamba.core.ops.state_space_duality import state_space_duality
from polymamba.core.ops.trapezoidal_scan import trapezoidal_scan
from polymamba.core.scans import Grid

DOUBLE = {"dtype": torch.float64}
KINDS = {
    "mamba2": (Mamba2, {}),
    "mamba2 in groups": (
        Mamba2,
        {"ngroups": 2, "headdim": 4, "d_ssm": 16, "dt_limit": (0.3, 0.8), "norm_before_gate": True},
    ),
    "mamba3": (Mamba3, {}),
    "mamba3 in groups": (Mamba3, {"ngroups": 2, "rotation": "halves", "rope_fraction": 1.0}),
    "mamba3 of rank 3": (Mamba3, {"is_mimo": True, "mimo_rank": 3, "is_outproj_norm": True}),
}
WAYS = [
    ("raster", 1, (9,), "sum"), ("raster", 1, (1,), "sum"), ("reverse", 1, (5,), "mean"), ("bidirectional", 1, (7,), "none"),
    ("cross", 2, (3, 4), "sum"), ("skip", 2, (3, 5), "mean"), ("hilbert", 2, (3, 5), "sum"), ("raster+diagonal", 2, (5, 3), "sum"),
]  # fmt: skip
PACKED = torch.tensor([[-1, -1, 0, 0, 0, 3, 3, 3], [1, 1, 1, 1, 1, 2, -1, -1], [0, 0, -1, 0, 0, 1, 0, 0]])


def mixer(kind, **options):
    torch.manual_seed(0)
    made, chosen = KINDS[kind]
    made = made(16, **{"d_state": 6, "headdim": 8} | chosen | options, **DOUBLE)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def tokens(batch, length, seed=1):
    return torch.randn(batch, length, 16, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def close(found, expected):
    return found.shape == expected.shape and (found - expected).norm() <= 1e-9 * expected.norm()


def scan(made, given, values, seq_idx, merge):
    """What the scan says to other values, before gate and D; (batch, [paths,] length, [rank,] heads, headdim)."""
    rest = {"order": given.order, "seq_idx": seq_idx, "merge": merge, "backend": "reference"}
    if isinstance(made, Mamba2):
        steps = {"dt_bias": made.dt_bias, "dt_softplus": True, "dt_limit": made.dt_limit}
        return state_space_duality(values, given.dt, given.A, given.B, given.C, **steps, **rest)
    return trapezoidal_scan(values, given.log_decay, given.dt, given.trapezoid, given.B, given.C, **rest)


def answers(made, x, grid, seq_idx, merge):
    """The matrices, asked for column by column: the scan's answer to a one at one token (and row) and zeros elsewhere."""
    given, (batch, length) = made.select(x, grid, None, seq_idx), x.shape[:2]
    rank = getattr(made, "rank", 1)
    one = torch.eye(length * rank, **DOUBLE).view(length, rank, 1, length * rank)
    one = one.expand(batch, -1, -1, made.nheads, -1)
    if isinstance(made, Mamba2):
        y = scan(made, given, one[:, :, 0], seq_idx, merge).unsqueeze(-3)
    else:
        y = scan(made, given, one, seq_idx, merge)
    # (..., length, row, head, (token, row)) to (..., head, row, row, length, token)
    y = y.unflatten(-1, (length, rank)).movedim((-3, -4, -1), (-5, -4, -3))
    return y.flatten(-5, -3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("way", "axes", "sizes", "merge"), WAYS)
def test_is_the_scans_answer_to_every_single_token(kind, way, axes, sizes, merge):
    made, grid = mixer(kind, scan=way, axes=axes, merge=merge), Grid.with_class_token(sizes, "middle")
    x = tokens(2, grid.length)
    assert close(hidden_attention(made, x, grid), answers(made, x, grid, None, merge))
    each = hidden_attention(made, x, grid, merge="none")
    assert each.shape == (2, made.paths, made.nheads * getattr(made, "rank", 1) ** 2, grid.length, grid.length)
    assert close(each, answers(made, x, grid, None, "none").view_as(each))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["raster", "bidirectional"])
def test_packed_and_padded(kind, way):
    made, x = mixer(kind, scan=way), tokens(3, 8)
    found = hidden_attention(made, x, seq_idx=PACKED)
    assert close(found, answers(made, x, None, PACKED, "sum"))
    # Padding inside a sequence is stepped over, and a number that comes back is another sequence.
    sequence = torch.tensor([[-1, -1, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1, -1, -1], [0, 0, -1, 0, 0, 1, 2, 2]])
    together = (sequence[:, :, None] == sequence[:, None]) & (sequence >= 0)[:, None]
    if way == "raster":
        together = together.tril()
    assert not found.abs().sum(1)[~together].any()
    assert found.abs().sum(1)[together].all()


@pytest.mark.parametrize("kind", KINDS)
def test_rebuilds_the_mixers_output(kind):
    made, x = mixer(kind, scan="bidirectional"), tokens(2, 11)
    given, matrix = made.select(x), hidden_attention(made, x, merge="none")
    values = given.x.unsqueeze(3) if isinstance(made, Mamba2) else given.x[:, None].expand(-1, 2, *(-1,) * 4)
    rank = values.shape[3]
    matrix = matrix.unflatten(2, (made.nheads, rank, rank))
    # On each path the values are others: Mamba-2's convolution runs along it.
    y = (torch.einsum("bqhrsij,bqjshp->bqirhp", matrix, values) + made.D[:, None] * values).sum(1)
    if isinstance(made, Mamba2):
        y = made.finish(y.squeeze(2).flatten(-2), given)
    else:
        y = made.finish(y, given)
    assert close(y, made(x)[0])


def test_mamba3_is_the_formula_with_its_product_written_out():
    made, x = mixer("mamba3"), tokens(1, 6)
    given, found = made.select(x), hidden_attention(made, x)[0]
    for head in range(made.nheads):
        a, dt, lam = (t[0, :, head] for t in (given.log_decay.exp(), given.dt, given.trapezoid))
        B, C = (t[0, :, 0, head] for t in (given.B, given.C))
        for i in range(6):
            for j in range(6):
                told = lam[j] * dt[j] * a[j + 1 : i + 1].prod()
                if j < i:
                    told = told + (1 - lam[j + 1]) * dt[j + 1] * a[j + 1 : i + 1].prod()
                expected = C[i] @ B[j] * told if j <= i else torch.zeros((), **DOUBLE)
                torch.testing.assert_close(found[head, i, j], expected)


def test_tokens_that_a_path_does_not_visit_have_zero_rows_and_columns():
    made, grid = mixer("mamba3", scan="skip", axes=2), (4, 4)
    each = hidden_attention(made, tokens(1, 16), grid, merge="none")[0].abs().sum(1)
    for path, order in zip(each, scans.get("skip").order(grid), strict=True):
        visited = torch.zeros(16, dtype=torch.bool)
        visited[order[order >= 0].long()] = True
        assert not path[~visited].any()
        assert not path[:, ~visited].any()
        assert path.diagonal()[visited].all()


@pytest.mark.parametrize("kind", ["mamba2", "mamba3 of rank 3"])
def test_long_steps_and_long_sequences_stay_finite_and_exact(kind):
    torch.manual_seed(0)
    made, options = KINDS[kind]
    made = made(16, d_state=6, headdim=8, **options)
    with torch.no_grad():
        # Steps so uneven that what follows a long one is lost in the running sum of float32.
        made.in_proj.weight.mul_(50)
    x = tokens(1, 300).float()
    found = hidden_attention(made, x)
    assert found.isfinite().all()
    exact = hidden_attention(made.double(), x.double())
    assert (found - exact).norm() <= 1e-5 * exact.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_change_nothing(kind, monkeypatch):
    made, x = mixer(kind, scan="bidirectional"), tokens(2, 7)
    whole = hidden_attention(made, x)
    monkeypatch.setattr("polymamba.core.explanation.matrices.NUMBERS", 2 * 2 * 2 * 49)
    assert close(hidden_attention(made, x), whole)
    assert close(mean_hidden_attention(made, x), whole.mean(1))
    assert close(mean_hidden_attention(made, x, of=torch.abs), whole.abs().mean(1))
