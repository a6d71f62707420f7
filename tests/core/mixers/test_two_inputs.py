"""Pan-Mamba's and FusionMamba's mixers against loops written from their equations, by the published code's names."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from polymamba.core import scans
from polymamba.core.errors import UserError
from polymamba.core.mixers import CrossModalMamba, GuidedMamba, NormedMamba

WIDTH = 6
GRIDS = [(3, 5), (1, 1), (4, 1), (2, 7)]


def made(kind, **options):
    torch.manual_seed(0)
    layer = kind(WIDTH, dtype=torch.float64, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return layer


def tokens(length: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(2, length, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def read(w, end: str, x, guide=None):
    """One path, (batch, steps, channels) in visiting order, by the parameters of this suffix, before the gate; guide: what selects,
    None: x itself."""
    kernel = w[f"conv1d{end}.weight"]
    x = F.conv1d(F.pad(x.mT, (kernel.shape[-1] - 1, 0)), kernel, w[f"conv1d{end}.bias"], groups=len(kernel)).mT
    x = F.silu(x)
    A, rank = -w[f"A{end}_log"].exp(), w[f"dt_proj{end}.weight"].shape[1]
    said = (x if guide is None else guide) @ w[f"x_proj{end}.weight"].T
    step, B, C = said.split([rank, A.shape[1], A.shape[1]], -1)
    step = F.softplus(step @ w[f"dt_proj{end}.weight"].T + w[f"dt_proj{end}.bias"])
    state, rows = x.new_zeros(len(x), *A.shape), []
    for t in range(x.shape[1]):
        state = (step[:, t, :, None] * A).exp() * state + (step[:, t] * x[:, t])[..., None] * B[:, t, None]
        rows.append((state * C[:, t, None]).sum(-1) + w[f"D{end}"] * x[:, t])
    return torch.stack(rows, 1)


def cross_modal(w, x):
    """Pan-Mamba: each input by its own parameters, gated by itself; their sum projected."""
    first, second = x.chunk(2, 1)
    (x, z), (other, gate) = (
        (t @ w[name].T).chunk(2, -1) for t, name in ((first, "in_proj.weight"), (second, "in_proj_extra.weight"))
    )
    return (read(w, "", x) * F.silu(z) + read(w, "_b", other) * F.silu(gate)) @ w["out_proj.weight"].T


def ways(height: int, width: int) -> dict[str, torch.Tensor]:
    """FusionMamba's paths by suffix: forward, backward, down the columns, and that backwards."""
    rows = torch.arange(height * width)
    columns = rows.reshape(height, width).T.flatten()
    return {"": rows, "_b": rows.flip(0), "_c": columns, "_d": columns.flip(0)}


def normed(w, x, paths, guide=None):
    """FusionMamba: the gated mean over the paths, normalised, projected."""
    x, z = (x @ w["in_proj.weight"].T).chunk(2, -1)
    guide = None if guide is None else guide @ w["in_proj_b.weight"].T
    total = 0
    for end, order in paths.items():
        y = read(w, end, x[:, order], None if guide is None else guide[:, order]) * F.silu(z[:, order])
        total = total + y[:, order.argsort()] / len(paths)
    y = F.layer_norm(total, total.shape[2:], w["norm.weight"], w["norm.bias"])
    return y @ w["out_proj.weight"].T


def same(layer, x, grid, formula):
    x = x.requires_grad_()
    found, expected = layer(x, grid)[0], formula(dict(layer.named_parameters()), x)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    weight, inputs = torch.randn_like(found), [x, *layer.parameters()]
    found = torch.autograd.grad((found * weight).sum(), inputs)
    expected = torch.autograd.grad((expected * weight).sum(), inputs)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("grid", [*GRIDS, (9,)])
def test_cross_modal_is_its_formula(grid):
    length = torch.Size(grid).numel()
    same(made(CrossModalMamba, d_state=3, axes=len(grid)), tokens(2 * length), grid, cross_modal)


@pytest.mark.parametrize("grid", GRIDS)
def test_guided_is_its_formula(grid):
    length = grid[0] * grid[1]

    def formula(w, x):
        return normed(w, x[:, :length], ways(*grid), x[:, length:])

    same(made(GuidedMamba, d_state=3), tokens(2 * length), grid, formula)


@pytest.mark.parametrize("grid", GRIDS)
def test_normed_is_its_formula(grid):
    length = grid[0] * grid[1]
    same(made(NormedMamba, d_state=3), tokens(length), grid, lambda w, x: normed(w, x, ways(*grid)))


@pytest.mark.parametrize(("scan", "ends"), [("raster", ("",)), ("bidirectional", ("", "_b"))])
def test_guided_over_other_scans(scan, ends):
    """What the published code calls v0 and v3."""
    paths = {end: order for end, order in ways(1, 7).items() if end in ends}
    layer = made(GuidedMamba, scan=scan, axes=1, expand=2)
    same(layer, tokens(14), None, lambda w, x: normed(w, x[:, :7], paths, x[:, 7:]))


def test_guided_where_paths_share_the_tokens():
    """skip: each path is given its own tokens, of the second input too."""
    layer, x = made(GuidedMamba, scan="skip"), tokens(30)
    found = layer(x, (3, 5))[0]
    layer.shares_tokens = lambda: False
    torch.testing.assert_close(found, layer(x, (3, 5))[0])


def test_interleaved_inputs_see_each_other_and_side_by_side_only_in_the_sum():
    for scan, reached in (("interleaved", True), ("side_by_side", False)):
        layer, x = made(CrossModalMamba, scan=scan), tokens(8).requires_grad_()
        assert layer.paths == 2
        given = layer.select(x, (4,))
        y, _ = layer.mix_tokens(given, layer.call(x, (4,), None, None, share=False))
        slope = torch.autograd.grad(y[:, :4].sum(), x)[0][:, 4:]
        assert bool(slope.any()) == reached
        assert torch.autograd.grad(layer(x, (4,))[0].sum(), x)[0][:, 4:].all()


def test_the_first_input_decides_what_is_mixed_and_the_second_how():
    """Without the first nothing is said but the norm's bias; scaling it leaves what is selected."""
    layer, x = made(GuidedMamba), tokens(30)
    x[:, :15] = 0
    with torch.no_grad():
        for end in ("", "_b", "_c", "_d"):
            getattr(layer, f"conv1d{end}").bias.zero_()
        said = layer(x, (3, 5))[0]
    torch.testing.assert_close(said, (layer.norm.bias @ layer.out_proj.weight.T).expand_as(said))
    before, after = (layer.select(torch.cat([scale * tokens(15), x[:, 15:]], 1), (3, 5)) for scale in (1, 7))
    for name in ("delta", "B", "C"):
        assert torch.equal(getattr(before, name), getattr(after, name))


def test_names_are_those_of_the_published_code():
    def ended(*ends):
        layers = ("conv1d{}.weight", "conv1d{}.bias", "x_proj{}.weight", "dt_proj{}.weight", "dt_proj{}.bias")
        return {name.format(end) for end in ends for name in (*layers, "A{}_log", "D{}")}

    outer, norm = {"in_proj.weight", "out_proj.weight"}, {"norm.weight", "norm.bias"}
    cross = {*outer, *ended("", "_b", "_c", "_d"), *norm}
    assert set(made(CrossModalMamba).state_dict()) == {*outer, *ended("", "_b"), "in_proj_extra.weight"}
    assert set(made(NormedMamba).state_dict()) == cross
    assert set(made(GuidedMamba).state_dict()) == {*cross, "in_proj_b.weight"}
    assert set(made(GuidedMamba, scan="local", axes=2).state_dict()) == {*outer, *ended(""), *norm, "in_proj_b.weight"}
    assert made(GuidedMamba).in_proj_b.weight.shape == (WIDTH, WIDTH)


def test_a_causal_one_goes_on_where_it_stopped():
    layer, x = made(GuidedMamba, scan="raster", axes=1), tokens(18)
    whole, state = layer(x)
    assert state is not None
    first, after = layer(torch.cat([x[:, :4], x[:, 9:13]], 1))
    second, last = layer(torch.cat([x[:, 4:9], x[:, 13:]], 1), state=after)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(last, state)


@pytest.mark.parametrize("kind", [CrossModalMamba, GuidedMamba])
def test_nothing_in_nothing_out_and_what_is_refused(kind):
    layer = made(kind, axes=2)
    for grid in ((0, 3), (0, 0)):
        assert layer(tokens(0), grid)[0].shape == (2, 0, WIDTH)
    with pytest.raises(UserError, match="equally many"):
        layer(tokens(7), (1, 3))
    with pytest.raises(UserError, match="grid does not fit"):
        layer(tokens(8), (8, 1))
    with pytest.raises(UserError, match="packed"):
        layer(tokens(4), (1, 2), seq_idx=torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(UserError, match="class token"):
        CrossModalMamba(WIDTH)(tokens(8).float(), scans.Grid((3,), (0,)))


def test_what_they_cost():
    """Beside a Mamba over as many tokens: a projection out once for both inputs, one more in for the guide."""
    both, alone = CrossModalMamba(WIDTH), CrossModalMamba.__mro__[1](WIDTH)
    assert both.flops((5,)) == 2 * alone.flops((5,)) - 2 * 5 * WIDTH * 12
    assert GuidedMamba(WIDTH).flops((3, 5)) == NormedMamba(WIDTH).flops((3, 5)) + 2 * 15 * WIDTH * WIDTH
