import pytest
import torch
from torch.nn import functional as F

from polymamba.core.errors import UserError
from polymamba.domains.timeseries.models.cmamba import GDDMLP, CMamba, channel_mixup

SMALL = {
    "lookback": 13,
    "horizon": 5,
    "variables": 3,
    "d_model": 8,
    "d_ff": 6,
    "d_state": 3,
    "dt_rank": 2,
    "n_layer": 2,
}


def test_matches_the_original_model(golden):
    model = golden.fill(CMamba(96, 96, 7))
    with torch.no_grad():
        result = golden.compare("ts_cmamba", model(golden.seeded(4, 96, 7)), model)
    assert max(result["errors"]) < 1e-5
    assert not result["missing"]
    assert not result["extra"]
    assert not result["shapes"]
    assert result["parameters"][0] == result["parameters"][1]


@pytest.mark.parametrize(("average", "maximum"), [(True, True), (True, False), (False, True)])
def test_gdd_mlp_against_its_formula(average, maximum):
    torch.manual_seed(0)
    layer, x = GDDMLP(5, 2, average, maximum).double(), torch.randn(2, 5, 4, 6, dtype=torch.float64)
    assert layer.fc_sc[0].weight.shape == (2, 5)
    scale = shift = torch.zeros(2, 4, 5, dtype=torch.float64)
    for read, pooled in ((average, x.mean(-1)), (maximum, x.max(-1).values)):
        if read:
            scale = scale + layer.fc_sc(pooled.transpose(1, 2))
            shift = shift + layer.fc_sf(pooled.transpose(1, 2))
    expected = scale.sigmoid().transpose(1, 2)[..., None] * x + shift.sigmoid().transpose(1, 2)[..., None]
    torch.testing.assert_close(layer(x), expected)


def test_a_gdd_mlp_reads_something_and_takes_one_variable():
    with pytest.raises(UserError, match="reads something"):
        GDDMLP(3, average=False, maximum=False)
    assert GDDMLP(1)(torch.randn(2, 1, 4, 6)).shape == (2, 1, 4, 6)


def test_without_gdd_mlp_variables_are_independent():
    torch.manual_seed(0)
    x = torch.randn(2, 13, 3)
    other = x.clone()
    other[..., 1] = torch.randn(2, 13)
    mixing, alone = (CMamba(**SMALL, patch_len=4, stride=2, gdd_mlp=mlp).eval() for mlp in (True, False))
    torch.testing.assert_close(alone(other)[..., [0, 2]], alone(x)[..., [0, 2]])
    assert not torch.allclose(mixing(other)[..., [0, 2]], mixing(x)[..., [0, 2]])


def test_the_stack_against_its_formula():
    torch.manual_seed(0)
    model, x = CMamba(**SMALL, patch_len=4, stride=2).double().eval(), torch.randn(2, 13, 3, dtype=torch.float64)
    normal = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    wide = torch.cat([normal, normal[:, -1:], normal[:, -1:]], 1)
    cut = wide.transpose(1, 2).unfold(2, 4, 2)
    stream = model.patch_embedding.value_embedding(cut) + model.patch_embedding.position_embedding.pe[:, :6]
    for layer in model.encoder.layers:
        normed = stream / (stream.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.norm.weight
        said = layer.mixer(normed.flatten(0, 1))[0].unflatten(0, (2, 3))
        stream = stream + layer.GDDMLP(said)
    torch.testing.assert_close(model.features(x), F.silu(stream).transpose(2, 3))


def test_channel_mixup():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 7, 3, dtype=torch.float64), torch.randn(200, 4, 3, dtype=torch.float64)
    mixed_x, mixed_y = channel_mixup(x, y, 0.5, generator)
    together, whole = torch.cat([x, y], 1), torch.cat([mixed_x, mixed_y], 1)
    added = whole - together
    for variable in range(3):
        partners = [
            other
            for other in range(3)
            if torch.linalg.matrix_rank(torch.stack([added[0, :, variable], together[0, :, other]])) == 1
        ]
        assert len(partners) == 1  # one factor times one variable, over look-back and horizon alike
        factor = (added[..., variable] / together[..., partners[0]])[:, 0]
        assert 0.4 < factor.std() < 0.6
    unmixed = channel_mixup(x, y, 0.0)
    assert torch.equal(unmixed[0], x)
    assert torch.equal(unmixed[1], y)
