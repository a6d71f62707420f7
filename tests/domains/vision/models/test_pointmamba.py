"""PointMamba against its original; centres, neighbours and orders against their definitions."""

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.vision.models.point_groups import GroupEncoder, farthest_points, nearest_points, serialise
from polymamba.domains.vision.models.pointmamba import PointMamba, build

TINY = {
    "trans_dim": 16,
    "depth": 1,
    "num_classes": 3,
    "num_group": 8,
    "group_size": 4,
    "encoder_width": 4,
    "head_width": 8,
}


@pytest.mark.parametrize("compat", [None, "published"])
def test_matches_the_original(golden, compat):
    model = golden.fill(PointMamba(384, 2, 40, 32, 16, compat=compat))
    with torch.no_grad():
        found = golden.compare("pointmamba_depth2", model(0.3 * golden.seeded(2, 512, 3)), model)
    assert max(found["errors"]) < 1e-5
    assert not found["missing"] + found["extra"] + found["shapes"]
    assert found["parameters"][0] == found["parameters"][1]


def test_sizes():
    assert sum(p.numel() for p in PointMamba(device="meta").parameters()) == 12_297_768
    few = build({"points": 10, "num_classes": 2, "model_size": "micro"})
    assert (few.group_divider.num_group, few.group_divider.group_size, few.tokens) == (10, 10, 20)


def test_farthest_points():
    points = torch.tensor([[[0.5, 0, 0], [0.6, 0, 0], [-0.5, 0, 0], [0.0, 0.01, 0], [0.0, 0.4, 0]]])
    assert farthest_points(points, 4).tolist() == [[0, 2, 4, 3]]
    assert farthest_points(points, 4, skip_origin=True).tolist() == [[0, 2, 4, 1]]
    torch.manual_seed(0)
    cloud = torch.randn(2, 30, 3, dtype=torch.float64)
    taken = farthest_points(cloud, 9)
    for one, order in zip(cloud, taken, strict=True):
        for step in range(1, 9):
            far = torch.cdist(one, one[order[:step]]).amin(1)
            assert far[order[step]] == pytest.approx(float(far.max()))


def test_nearest_points():
    torch.manual_seed(1)
    points = torch.randn(2, 20, 3)
    near = nearest_points(points, points[:, :5], 4)
    assert near[..., 0].tolist() == [list(range(5))] * 2
    expected = torch.cdist(points[:, :5], points).argsort(2)[..., :4]
    assert torch.equal(near, expected)


def test_each_cloud_has_the_order_it_has_alone():
    torch.manual_seed(2)
    clouds = torch.rand(3, 16, 3) * torch.tensor([0.1, 0.5, 2.0])[:, None, None]
    orders = ("hilbert", "trans_hilbert", "z", "trans_z")
    found = serialise(clouds, orders, 0.02)
    for one, each in zip(clouds, found, strict=True):
        assert torch.equal(serialise(one[None], orders, 0.02)[0], each)
        assert all(sorted(order.tolist()) == list(range(16)) for order in each)
    swapped = serialise(clouds[..., [1, 0, 2]], orders, 0.02)
    assert torch.equal(swapped[:, [1, 0, 3, 2]], found)
    assert not torch.equal(serialise(clouds, orders, 0.02, together=True)[0], found[0])


def test_the_encoder_is_the_convolutions_it_is_made_of():
    torch.manual_seed(3)
    encoder, groups = GroupEncoder(6, 4).double().eval(), torch.randn(2, 3, 5, 3).double()
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean)
    x = encoder.first_conv(groups.flatten(0, 1).transpose(1, 2))
    x = encoder.second_conv(torch.cat([x.amax(2, keepdim=True).expand_as(x), x], 1)).amax(2)
    torch.testing.assert_close(encoder(groups), x.unflatten(0, (2, 3)))


def test_points_may_come_in_any_order_but_the_first():
    torch.manual_seed(4)
    model, points = PointMamba(**TINY).double().eval(), torch.randn(2, 30, 3).double()
    mixed = points[:, torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(29)])]
    torch.testing.assert_close(model(points), model(mixed))


@pytest.mark.parametrize(
    ("options", "read"),
    [
        ({"use_cls_token": True}, 32),
        ({"max_head": True}, 32),
        ({"max_head": True, "avg_head": False}, 16),
        ({"rms_norm": True}, 16),
    ],
)
def test_other_forms(options, read):
    torch.manual_seed(5)
    model = PointMamba(**TINY, orders=("z",), drop_path=0.5, drop_out=0.1, **options)
    points = torch.randn(3, 12, 3)
    model.train()
    model(points).square().sum().backward()
    assert all(each.grad is not None for each in model.parameters())
    features = model.eval().forward_features(points)
    assert features.shape == (3, model.tokens, 16)
    assert model.forward_head(features, pre_logits=True).shape == (3, read)


def test_costs_are_those_that_pytorch_counts_and_the_scans():
    from torch.utils.flop_counter import FlopCounterMode

    model = PointMamba(**TINY).eval()
    scans = sum(9 * model.tokens * layer.mixer.d_inner * layer.mixer.d_state for layer in model.blocks.layers)
    convolutions = sum(2 * model.tokens * layer.mixer.d_inner * 4 for layer in model.blocks.layers)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randn(1, 20, 3))
    counted = counter.get_total_flops() + scans + convolutions
    assert model.flops(2) == pytest.approx(2 * counted, rel=0.02)


def test_wrong_clouds_and_orders():
    model = PointMamba(**TINY)
    for shape in ((2, 7, 3), (2, 20, 4), (20, 3)):
        with pytest.raises(UserError, match="no clouds"):
            model(torch.zeros(shape))
    with pytest.raises(UserError, match="orders"):
        PointMamba(**TINY, orders=("spiral",))
    with pytest.raises(UserError, match="orders"):
        PointMamba(**TINY, orders=())
