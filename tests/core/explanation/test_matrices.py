import pytest
import torch
from torch import nn
from torch.nn import functional as F

from polymamba.core import scans
from polymamba.core.errors import UserError
from polymamba.core.explanation import hidden_attention, mean_hidden_attention
from polymamba.core.mixers import Mamba
from polymamba.core.ops.selective_scan import selective_scan
from polymamba.core.scans import Grid

DOUBLE = {"dtype": torch.float64}
WAYS = [
    ("raster", 1, (9,), {}), ("reverse", 1, (9,), {}), ("bidirectional", 1, (9,), {}),
    ("bidirectional", 1, (9,), {"parameters": "decay", "merge": "mean"}),
    ("bidirectional", 1, (9,), {"parameters": "shared", "merge": "none"}),
    ("cross", 2, (3, 4), {}), ("skip", 2, (3, 5), {"merge": "mean"}), ("skip", 2, (4, 4), {"conv": "grid"}),
    ("hilbert", 2, (3, 5), {"conv": "none", "gate": False}),
]  # fmt: skip


def mixer(scan="raster", axes=1, **options):
    torch.manual_seed(0)
    made = Mamba(6, d_state=4, scan=scan, axes=axes, **options, **DOUBLE)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def tokens(batch, length, seed=1):
    return torch.randn(batch, length, 6, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def scanned(made, x, grid=None, seq_idx=None):
    """What the scan is given, and what it gives before gate and D."""
    given = made.select(x, grid, None, seq_idx)
    u, delta, A, B, C = given.x, given.delta, given.A, given.B, given.C
    y = selective_scan(
        u,
        delta,
        A,
        B,
        C,
        None,
        None,
        given.delta_bias,
        True,
        given.order,
        seq_idx,
        merge=made.merge,
        backend="reference",
    )
    return u, y


def test_matches_the_original(golden):
    made = golden.fill(Mamba(16, d_state=8))
    x = golden.seeded(2, 24, 16)
    matrix = hidden_attention(made, x)
    given = made.select(x)
    u, D, z = given.x, given.D, given.z
    rebuilt = made.out_proj((torch.einsum("bcij,bjc->bic", matrix, u) + D * u) * F.silu(z))
    assert max(golden.compare("interp_hidden_attention", [matrix, rebuilt], made)["errors"]) < 1e-5


def test_is_the_formula_with_its_product_written_out():
    made, x = mixer(), tokens(1, 6)
    _, delta, A, B, C, *_ = made.select(x)
    step = F.softplus(delta + made.dt_proj.bias)[0]
    found = hidden_attention(made, x)[0]
    for i in range(6):
        for j in range(6):
            decay = torch.ones_like(A)
            for k in range(j + 1, i + 1):
                decay = decay * torch.exp(step[k, :, None] * A)
            expected = (C[0, i] * decay * step[j, :, None] * B[0, j]).sum(-1) if j <= i else torch.zeros(12, **DOUBLE)
            torch.testing.assert_close(found[:, i, j], expected)


@pytest.mark.parametrize(("scan", "axes", "sizes", "options"), WAYS)
@pytest.mark.parametrize("where", ["none", "middle"])
def test_times_the_input_is_the_scan(scan, axes, sizes, options, where):
    made, grid = mixer(scan, axes, **options), Grid.with_class_token(sizes, where)
    x = tokens(2, grid.length)
    u, expected = scanned(made, x, grid)
    each = hidden_attention(made, x, grid, merge="none")
    assert each.shape == (2, made.paths, 12, grid.length, grid.length)
    u = u[:, None] if u.dim() == 3 else u
    y = torch.einsum("bpcij,bpjc->bpic", each, u.expand(-1, made.paths, -1, -1))
    y = {"sum": y.sum(1), "mean": y.mean(1), "none": y}[made.merge]
    torch.testing.assert_close(y, expected)
    merged = {"sum": each.sum(1), "mean": each.mean(1), "none": each}[made.merge]
    torch.testing.assert_close(hidden_attention(made, x, grid), merged)


@pytest.mark.parametrize("scan", ["raster", "bidirectional"])
def test_packed_and_padded(scan):
    made, x = mixer(scan), tokens(2, 8)
    seq_idx = torch.tensor([[-1, -1, 0, 0, 0, 3, 3, 3], [1, 1, 1, 1, 1, 2, -1, -1]])
    u, expected = scanned(made, x, None, seq_idx)
    matrix = hidden_attention(made, x, seq_idx=seq_idx, merge="none")
    u = u[:, None] if u.dim() == 3 else u
    torch.testing.assert_close(torch.einsum("bpcij,bpjc->bic", matrix, u), expected)
    together = (seq_idx[:, :, None] == seq_idx[:, None]) & (seq_idx >= 0)[:, None]
    assert not matrix.sum((1, 2))[~together].any()
    assert matrix.abs().sum((1, 2))[together & torch.eye(8, dtype=torch.bool)].all()


def test_tokens_that_a_path_does_not_visit_have_zero_rows_and_columns():
    made, grid = mixer("skip", 2), (4, 4)
    each = hidden_attention(made, tokens(1, 16), grid, merge="none")[0].abs().sum(1)
    for path, order in zip(each, scans.get("skip").order(grid), strict=True):
        visited = torch.zeros(16, dtype=torch.bool)
        visited[order[order >= 0].long()] = True
        assert not path[~visited].any()
        assert not path[:, ~visited].any()
        assert path.diagonal()[visited].all()


def test_long_steps_and_long_sequences_stay_finite_and_exact():
    made = Mamba(6, d_state=4)
    with torch.no_grad():
        made.dt_proj.bias.copy_(torch.linspace(-8, 60, 12))
        made.A_log.add_(3)
    x = tokens(1, 300).float()
    found = hidden_attention(made, x)
    assert found.isfinite().all()
    exact = hidden_attention(made.double(), x.double())
    assert (found - exact).norm() <= 1e-5 * exact.norm()


def test_blocks_of_channels_change_nothing(monkeypatch):
    made, x = mixer("bidirectional"), tokens(2, 7)
    whole = hidden_attention(made, x)
    monkeypatch.setattr("polymamba.core.explanation.matrices.NUMBERS", 5 * 2 * 2 * 49)
    assert torch.equal(hidden_attention(made, x), whole)
    torch.testing.assert_close(mean_hidden_attention(made, x), whole.mean(1))
    torch.testing.assert_close(mean_hidden_attention(made, x, of=torch.abs), whole.abs().mean(1))


def test_other_mixers_and_merges_are_refused():
    with pytest.raises(UserError, match="hidden attention"):
        hidden_attention(nn.Linear(6, 6, **DOUBLE), tokens(1, 4))
    with pytest.raises(UserError, match="merge"):
        hidden_attention(mixer(), tokens(1, 4), merge="max")
