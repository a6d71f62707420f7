"""MSVMamba's, GroupMamba's, Spatial-Mamba's and VSSD's mixers against their equations in loops, gradients too."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from polymamba.core.errors import UserError
from polymamba.core.mixers.grouped import GroupedSS2D
from polymamba.domains.vision.models.groupmamba import GroupMamba, ModulatedGroups
from polymamba.domains.vision.models.msvmamba import MultiScaleSS2D
from polymamba.domains.vision.models.spatialmamba import DILATIONS, StateFused
from polymamba.domains.vision.models.vssd import NonCausalDuality

SIZES = [(3, 5), (4, 4), (1, 1), (5, 2)]
DOUBLE = {"dtype": torch.float64}


def stirred(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module


def recurrence(x, step, B, C, A, D, bias):
    """A selective scan in loops: x, step (batch, length, channels), B, C (batch, length, states); the states are summed for y."""
    delta, state, said = F.softplus(step + bias), 0, []
    for t in range(x.shape[1]):
        state = (delta[:, t, :, None] * A).exp() * state + (delta[:, t] * x[:, t])[..., None] * B[:, t, None]
        said.append((state * C[:, t, None]).sum(-1) + D * x[:, t])
    return torch.stack(said, 1)


def scanned(mixer, number, x):
    """What one of a mixer's sets of stacked parameters makes of a sequence."""
    sizes = [mixer.dt_rank, mixer.d_state, mixer.d_state]
    step, B, C = F.linear(x, mixer.x_proj_weight[number]).split(sizes, -1)
    own = slice(number * x.shape[2], (number + 1) * x.shape[2])
    A, D = -mixer.A_logs[own].exp(), mixer.Ds[own]
    return recurrence(x, F.linear(step, mixer.dt_projs_weight[number]), B, C, A, D, mixer.dt_projs_bias[number])


def depthwise(layer, x, height, width, **options):
    image = F.conv2d(x.mT.unflatten(2, (height, width)), layer.weight, layer.bias, groups=x.shape[2], **options)
    return F.silu(image)


def same_with_gradients(module, x, expected, *call):
    """The module's answer and its gradients are those of the formula, whose parameters are the module's own."""
    found = module(x, *call)[0]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    parameters = list(module.parameters())
    ours = torch.autograd.grad(found.square().sum(), parameters, allow_unused=True)
    theirs = torch.autograd.grad(expected.square().sum(), parameters, allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", SIZES)
def test_multi_scale(size):
    """The whole map by rows; a quarter of it backwards, by columns and by columns backwards, in one sequence of one state."""
    height, width = size
    mixer = stirred(MultiScaleSS2D(4, **DOUBLE))
    x = torch.randn(2, height * width, 4, dtype=torch.float64)
    inner, gate = F.linear(x, mixer.in_proj.weight).chunk(2, -1)
    norm = (mixer.out_norm.weight, mixer.out_norm.bias)
    fine = depthwise(mixer.conv2d, inner, height, width, padding=1).flatten(2).mT
    y = F.layer_norm(scanned(mixer, 1, fine), (8,), *norm)
    image = depthwise(mixer.conv2d_b1, inner, height, width, padding=3, stride=2)
    tokens, turned = image.flatten(2).mT, image.mT.flatten(2).mT
    walked = F.layer_norm(scanned(mixer, 0, torch.cat([tokens.flip(1), turned, turned.flip(1)], 1)), (8,), *norm)
    backwards, columns, both = walked.chunk(3, 1)
    rows, narrow = image.shape[2:]
    total = backwards.flip(1).mT.unflatten(2, (rows, narrow))
    total = total + (columns + both.flip(1)).mT.unflatten(2, (narrow, rows)).mT
    y = y + F.interpolate(total, size=size, mode="bilinear", align_corners=False).flatten(2).mT
    weights = F.relu(F.linear(y.mean(1), mixer.se.fc[0].weight))
    y = y * F.linear(weights, mixer.se.fc[2].weight).sigmoid()[:, None]
    same_with_gradients(mixer, x, F.linear(y * F.silu(gate), mixer.out_proj.weight), size)


def test_multi_scale_over_other_scans():
    x = torch.randn(2, 20, 4)
    for scan in ("raster", "cross", "skip", "bidirectional", "hilbert"):
        mixer = MultiScaleSS2D(4, scan=scan)
        assert mixer(x, (4, 5))[0].shape == x.shape
        assert hasattr(mixer, "conv2d_b1") == (mixer.paths > 1)
        assert len(mixer.x_proj_weight) == min(mixer.paths, 2)
    assert MultiScaleSS2D(4)(x[:0], (4, 5))[0].shape == (0, 20, 4)


@pytest.mark.parametrize("size", SIZES)
def test_groups(size):
    """Each quarter of the channels has a mixer of its own and one order: rows, columns, both backwards."""
    height, width = size
    layer = stirred(GroupedSS2D(8, d_state=2, expand=1, **DOUBLE))
    x = torch.randn(2, height * width, 8, dtype=torch.float64)
    rows = torch.arange(height * width)
    columns = rows.reshape(height, width).T.flatten()
    parts = []
    for mixer, part, order in zip(
        layer.groups, x.chunk(4, -1), (rows, columns, rows.flip(0), columns.flip(0)), strict=True
    ):
        inner, gate = F.linear(part, mixer.in_proj.weight).chunk(2, -1)
        inner = depthwise(mixer.conv2d, inner, height, width, padding=1).flatten(2).mT
        y = scanned(mixer, 0, inner[:, order])[:, order.argsort()]
        y = F.layer_norm(y, (2,), mixer.out_norm.weight, mixer.out_norm.bias)
        parts.append(F.linear(y * F.silu(gate), mixer.out_proj.weight))
    same_with_gradients(layer, x, torch.cat(parts, -1), size)


def test_groups_need_channels_for_each_path():
    with pytest.raises(UserError, match="as many channels"):
        GroupedSS2D(6)
    assert len(GroupedSS2D(6, scan="bidirectional").groups) == 2


def test_modulated_groups():
    layer = stirred(ModulatedGroups(32, **DOUBLE))
    x = torch.randn(2, 12, 32, dtype=torch.float64)
    norm = (layer.norm.weight, layer.norm.bias)
    normed = F.layer_norm(x, (32,), *norm)
    y = GroupedSS2D.forward(layer, normed, (3, 4))[0] * layer.skip_scale * normed
    y = y * layer.fc2(F.relu(layer.fc1(normed.mean(1)))).sigmoid()[:, None]
    same_with_gradients(layer, x, layer.proj(F.layer_norm(y, (32,), *norm)), (3, 4))


def test_two_heads_of_a_distilled_model():
    torch.manual_seed(0)
    model = GroupMamba(16, 3, 5, stem_dim=8, dims=(16, 32), depths=(1, 1), mlp_ratios=(2, 2), distilled=True)
    x = torch.randn(2, 3, 16, 16)
    model.train()
    assert model(x).shape == (2, 5)
    model.set_distilled_training()
    own, taught = model(x)
    assert own.shape == taught.shape == (2, 5)
    model.eval()
    features = model.forward_head(model.forward_features(x), pre_logits=True)
    torch.testing.assert_close(model(x), (model.head(features) + model.dist_head(features)) / 2)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    model.reset_classifier(0)
    torch.testing.assert_close(model(x), features)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("compat", "training"), [(None, True), (None, False), ("published", False)])
def test_fused_states(size, compat, training):
    """Each path's states, blended on the grid by three convolutions, are read by C; D passes the tokens on."""
    height, width = size
    mixer = stirred(StateFused(3, compat=compat, **DOUBLE)).train(training)
    x = torch.randn(2, height * width, 3, dtype=torch.float64)
    inner, gate = F.linear(x, mixer.in_proj.weight).chunk(2, -1)
    inner = depthwise(mixer.conv2d, inner, height, width, padding=1).flatten(2).mT
    step, B, C = F.linear(inner, mixer.x_proj_weight[0]).split([mixer.dt_rank, 1, 1], -1)
    step, A = F.linear(step, mixer.dt_projs_weight[0]), -mixer.A_logs.exp()
    states = recurrence(inner, step, B, torch.ones_like(C), A, 0, mixer.dt_projs_bias[0]).mT.unflatten(2, size)
    mode = "constant" if compat == "published" else "replicate"
    total, fusion = 0, mixer.state_fusion
    for share, (name, dilation) in zip(fusion.alpha, DILATIONS.items(), strict=True):
        padded = F.pad(states, (dilation,) * 4, mode=mode)
        for row in range(3):
            for column in range(3):
                weight = getattr(fusion, name)[:, 0, row, column, None, None]
                here = padded[
                    :, :, row * dilation : row * dilation + height, column * dilation : column * dilation + width
                ]
                total = total + share * weight * here
    y = total.flatten(2).mT * C + mixer.Ds * inner
    y = F.layer_norm(y, (6,), mixer.out_norm.weight, mixer.out_norm.bias) * F.silu(gate)
    same_with_gradients(mixer, x, F.linear(y, mixer.out_proj.weight), size)


def test_fused_states_over_other_scans():
    """Of several paths, and of such as share the tokens out."""
    x = torch.randn(2, 20, 4, dtype=torch.float64)
    one, two = stirred(StateFused(4, scan="cross_rot90", **DOUBLE)), StateFused(4, scan="skip", **DOUBLE)
    assert one(x, (4, 5))[0].shape == two(x, (4, 5))[0].shape == x.shape
    assert one(x[:0], (4, 5))[0].shape == (0, 20, 4)


@pytest.mark.parametrize("size", SIZES)
def test_duality_without_an_order(size):
    """Every token reads the same sum over all of them."""
    height, width = size
    mixer = stirred(NonCausalDuality(6, 3, d_state=4, **DOUBLE))
    x = torch.randn(2, height * width, 6, dtype=torch.float64)
    z, mixed, step = F.linear(x, mixer.in_proj.weight).split([12, 20, 3], -1)
    value, B, C = depthwise(mixer.conv2d, mixed, height, width, padding=1).flatten(2).mT.split([12, 4, 4], -1)
    weight = F.softplus(step + mixer.dt_bias) * mixer.A_log.exp()
    heads = []
    for head in range(3):
        own = value[..., 4 * head : 4 * head + 4]
        seen = sum(B[:, t, :, None] * (weight[:, t, head, None] * own[:, t])[:, None] for t in range(height * width))
        heads.append(torch.einsum("bln,bnp->blp", C, seen) + mixer.D[head] * own)
    y = F.layer_norm(torch.cat(heads, -1), (12,), mixer.norm.weight, mixer.norm.bias) * z
    same_with_gradients(mixer, x, F.linear(y, mixer.out_proj.weight), size)


def test_heads_must_fit():
    with pytest.raises(UserError, match="share the inner channels"):
        NonCausalDuality(6, 5)
