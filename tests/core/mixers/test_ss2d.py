"""VMamba's mixer against its original and against its formula; grids filled up as its followers do."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from polymamba.core import scans
from polymamba.core.errors import UserError
from polymamba.core.mixers import SS2D, Mamba
from polymamba.core.ops.selective_scan import selective_scan_reference
from polymamba.core.scans.padded import padded_order


def test_matches_the_original(golden):
    """With the later form of its names, in which the original was filled."""
    shapes = golden.meta_of("vmamba_ss2d_v05_noz")["state"]
    made = SS2D(32, d_state=1, expand=1, conv_bias=False, gate=False).eval()
    made.load_state_dict({name: golden.value(name, torch.empty(shape)) for name, shape in shapes.items()})
    y, after = made(golden.seeded(2, 32, 6, 10).flatten(2).mT, (6, 10))
    found = golden.compare("vmamba_ss2d_v05_noz", y.mT.reshape(2, 32, 6, 10))
    assert after is None
    assert max(found["errors"]) < 1e-5
    assert sum(p.numel() for p in made.parameters()) == 3552


def by_formula(layer: SS2D, x, height: int, width: int):
    """Four loops over reordered tokens, by equation."""
    x, z = F.linear(x, layer.in_proj.weight).chunk(2, -1)
    image = F.conv2d(
        x.mT.unflatten(2, (height, width)), layer.conv2d.weight, layer.conv2d.bias, padding=1, groups=x.shape[2]
    )
    x, rank, states = F.silu(image.flatten(2)).mT, layer.dt_rank, layer.d_state
    rows = torch.arange(height * width)
    columns = rows.reshape(height, width).T.flatten()
    total = 0
    for path, order in enumerate((rows, columns, rows.flip(0), columns.flip(0))):
        visited = x[:, order]
        step, B, C = F.linear(visited, layer.x_proj_weight[path]).split([rank, states, states], -1)
        delta = F.softplus(F.linear(step, layer.dt_projs_weight[path]) + layer.dt_projs_bias[path])
        own = slice(path * x.shape[2], (path + 1) * x.shape[2])
        A, state, said = -layer.A_logs[own].exp(), 0, []
        for t in range(height * width):
            state = (delta[:, t, :, None] * A).exp() * state + (delta[:, t] * visited[:, t])[..., None] * B[:, t, None]
            said.append((state * C[:, t, None]).sum(-1) + layer.Ds[own] * visited[:, t])
        total = total + torch.stack(said, 1)[:, order.argsort()]
    y = F.layer_norm(total, total.shape[2:], layer.out_norm.weight, layer.out_norm.bias)
    return F.linear(y * F.silu(z), layer.out_proj.weight)


@pytest.mark.parametrize(("height", "width"), [(3, 5), (1, 1), (4, 1)])
def test_the_gated_form_is_its_formula(height, width):
    torch.manual_seed(0)
    layer = SS2D(6, d_state=3, dtype=torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    x = torch.randn(2, height * width, 6, dtype=torch.float64)
    found, expected = layer(x, (height, width))[0], by_formula(layer, x, height, width)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    weight = torch.randn_like(found)
    parameters = list(layer.parameters())
    found = torch.autograd.grad((found * weight).sum(), parameters)
    expected = torch.autograd.grad((expected * weight).sum(), parameters)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_tied_paths_turn_and_flip_with_the_image():
    """Cross with one set for all paths, without what the convolution prefers: half a turn, and rows for columns."""
    torch.manual_seed(0)
    layer = SS2D(6, d_state=3, parameters="shared", dtype=torch.float64)
    with torch.no_grad():
        layer.conv2d.weight.copy_(torch.randn(12, 1, 1, 1).expand(12, 1, 3, 3))
    image = torch.randn(2, 4, 5, 6, dtype=torch.float64)

    def mixed(image):
        return layer(image.flatten(1, 2), tuple(image.shape[1:3]))[0].reshape(image.shape)

    y = mixed(image)
    torch.testing.assert_close(mixed(image.flip(1, 2)), y.flip(1, 2))
    torch.testing.assert_close(mixed(image.transpose(1, 2)), y.transpose(1, 2))
    assert not torch.allclose(mixed(image.flip(2)), y.flip(2))


@pytest.mark.parametrize("sizes", [(4, 6), (5, 7), (1, 1), (7, 2)])
@pytest.mark.parametrize("name", ["skip", "raster+local(window=2)+local_flip(window=3)", "cross"])
def test_orders_of_grids_filled_up(sizes, name):
    """The grid's tokens in the order in which the scan of the larger grid meets them, padding between them."""
    scan, tokens = scans.get(name), sizes[0] * sizes[1]
    order, zeros = padded_order(scan, sizes)
    row = 0
    for part in scan.parts:
        sides = part.cell(2)
        wide = [-(-size // side) * side for size, side in zip(sizes, sides, strict=True)]
        for expected in scans.Scan((part,)).order(tuple(wide)).tolist():
            places = [divmod(token, wide[1]) for token in expected if token >= 0]
            found = [token for token in order[row].tolist() if token >= 0]
            assert len(found) == len(places) == len(set(found))
            for token, (h, w) in zip(found, places, strict=True):
                assert token == h * sizes[1] + w if h < sizes[0] and w < sizes[1] else tokens <= token < tokens + zeros
            row += 1
    assert row == len(order)


def test_padding_lets_states_decay():
    """On a grid that divides evenly it changes nothing; else it does, and as a scan over zeros does."""
    torch.manual_seed(0)
    plain = SS2D(6, d_state=3, scan="skip", dtype=torch.float64)
    padded = SS2D(6, d_state=3, scan="skip", padded=True, dtype=torch.float64)
    padded.load_state_dict(plain.state_dict())
    even, odd = (torch.randn(2, n, 6, dtype=torch.float64) for n in (24, 15))
    torch.testing.assert_close(plain(even, (4, 6))[0], padded(even, (4, 6))[0])
    y = padded(odd, (3, 5))[0]
    assert not torch.allclose(plain(odd, (3, 5))[0], y)
    given = plain.select(odd, (3, 5))
    wide = [
        F.pad(part.unflatten(-2, (3, 5)), (0, 0, 0, 1, 0, 1)).flatten(-3, -2)
        for part in (given.x, given.delta, given.B, given.C)
    ]  # fmt: skip
    x, delta, B, C = wide
    order = scans.get("skip").order((4, 6))[None]
    said, _ = selective_scan_reference(
        x[:, None], delta, given.A, B[:, :, :, None], C[:, :, :, None], given.D, None, given.delta_bias, True, order, None,
        None, "sum",
    )  # fmt: skip
    said = said.unflatten(1, (4, 6))[:, :3, :5].flatten(1, 2)
    torch.testing.assert_close(y, plain.finish(said, given), rtol=1e-6, atol=1e-8)


def test_another_number_of_paths_is_named():
    with pytest.raises(UserError, match="another scan"):
        SS2D(8, scan="raster").load_state_dict(SS2D(8).state_dict())


def test_other_parts_of_a_mamba_go_in_it():
    layer = SS2D(8, d_state=2, scan="bidirectional", conv="path", parameters="separate", gate=False)
    plain = Mamba(8, d_state=2, scan="bidirectional", axes=2, gate=False)
    plain.load_state_dict({name: value for name, value in layer.state_dict().items() if "out_norm" not in name})
    x = torch.randn(2, 12, 8)
    given = plain.select(x, (3, 4))
    y, _ = plain.mix_tokens(given, plain.call(x, (3, 4), None, None))
    torch.testing.assert_close(layer(x, (3, 4))[0], layer.out_proj(layer.out_norm(y)))
