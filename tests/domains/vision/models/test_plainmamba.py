"""PlainMamba against its original, and its mixer against the paper's equations."""

import pytest
import torch
from torch.nn import functional as F

from polymamba.core import scans
from polymamba.core.errors import UserError
from polymamba.domains.vision.models.plainmamba import DirectionAware, PlainMamba, build, checkpoint_filter_fn


def test_matches_the_original(golden):
    model = PlainMamba(depth=4, depthwise_layers=(0,), compat="published").eval()
    weights = golden.weights("plainmamba_l1_depth4")
    model.load_state_dict(checkpoint_filter_fn({"state_dict": weights}, model))
    with torch.no_grad():
        tokens = model.forward_features(golden.seeded(2, 3, 224, 224))
        answers = [model.forward_head(tokens), model.forward_head(tokens, pre_logits=True), tokens.flatten(1, 2)]
    assert max(golden.compare("plainmamba_l1_depth4", answers)["errors"]) < 1e-5
    assert sum(p.numel() for p in model.parameters()) == 2_147_176
    assert len(model.state_dict()) == len(weights)


def by_formula(layer, x, height, width, published):
    """The snakes walked one after the other, by equation."""
    x, z = F.linear(x, layer.in_proj.weight, layer.in_proj.bias).chunk(2, -1)
    image = F.conv2d(
        x.mT.unflatten(2, (height, width)), layer.conv2d.weight, layer.conv2d.bias, padding=3, groups=x.shape[2]
    )
    x = F.silu(image.flatten(2)).mT
    step, B, C = layer.x_proj(x).split([layer.dt_rank, layer.d_state, layer.d_state], -1)
    delta = F.softplus(layer.dt_proj(step) + (layer.dt_proj.bias if published else 0))
    A, total = -layer.A_log.exp(), 0
    for order, moves in zip(
        scans.get("continuous").order((height, width)).long(), scans.directions((height, width)), strict=True
    ):
        said, state = torch.zeros_like(x), 0
        for number, (token, move) in enumerate(zip(order.tolist(), moves.tolist(), strict=True)):
            of = number if published else token
            pushed = B[:, of] + layer.direction_Bs[move]
            state = (delta[:, of, :, None] * A).exp() * state + (delta[:, of] * x[:, token])[..., None] * pushed[
                :, None
            ]
            said[:, token] = (state * C[:, of, None]).sum(-1) + layer.D * x[:, token]
        total = total + said
    return layer.out_proj(total * F.silu(z))


@pytest.mark.parametrize("compat", [None, "published"])
@pytest.mark.parametrize(("height", "width"), [(3, 4), (1, 1), (5, 2)])
def test_the_mixer_is_its_formula(compat, height, width):
    torch.manual_seed(0)
    layer = DirectionAware(6, d_state=3, compat=compat, dtype=torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    x = torch.randn(2, height * width, 6, dtype=torch.float64)
    found, expected = layer(x, (height, width))[0], by_formula(layer, x, height, width, compat == "published")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    weight, parameters = torch.randn_like(found), list(layer.parameters())
    found = torch.autograd.grad((found * weight).sum(), parameters)
    expected = torch.autograd.grad((expected * weight).sum(), parameters)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_any_scan_and_what_it_lacks():
    describe = {"image_size": [8, 8], "channels": 1, "num_classes": 10, "model_size": "micro"}
    x = torch.randn(2, 1, 8, 8)
    for scan in ("raster", "cross", "hilbert", "local_vim", "zigzag"):
        assert build(describe, scan=scan)(x).shape == (2, 10)
    with pytest.raises(UserError, match="visit all"):
        build(describe, scan="skip")(x)


def test_positions_of_other_grids():
    torch.manual_seed(0)
    small, large = (PlainMamba(size, depth=1, embed_dim=16, num_classes=3, patch_size=4) for size in (16, (24, 16)))
    state = checkpoint_filter_fn(small.state_dict(), large)
    large.load_state_dict(state)
    assert state["pos_embed"].shape == (1, 24, 16)
    assert large(torch.randn(1, 3, 16, 20)).shape == (1, 3)
