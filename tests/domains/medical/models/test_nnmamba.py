import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.medical.models.nnmamba import MambaLayer, NnMamba, build


@pytest.mark.slow
def test_matches_the_original(held):
    model = NnMamba(1, 6, (32, 48, 64), compat="published")
    _, answers = held("nnmamba_seg_nnunet", model, model.scales, tolerance=1e-5)
    assert len(answers) == 4
    assert answers[0].min() >= 0


def test_four_walks_are_the_mean_over_flips():
    torch.manual_seed(0)
    layer = MambaLayer(8, "raster", 0, True, {}).double().eval()
    x = torch.randn(2, 8, 2, 3, 4, dtype=torch.float64)
    tokens = torch.relu(layer.norm(layer.nin(x))).flatten(2).mT
    walks = [layer.mamba(tokens.flip(way).contiguous())[0].flip(way) for way in ((), (1,), (2,), (1, 2))]
    torch.testing.assert_close(layer(x), (sum(walks) / 4).mT.unflatten(2, (2, 3, 4)))


def test_logits_have_both_signs_unless_as_published(describe):
    torch.manual_seed(0)
    x = torch.randn(1, 1, 16, 16, 16)
    assert build(describe(16, 16, 16)).eval()(x).min() < 0
    assert build(describe(16, 16, 16), compat="published").eval()(x).min() >= 0


def test_any_sizes_and_the_twin(describe):
    model, twin = (build(describe(17, 12, 20), "slices", mamba=on).eval() for on in (True, False))
    assert model(torch.randn(1, 1, 17, 12, 20)).shape == (1, 3, 17, 12, 20)
    assert set(model.state_dict()) - set(twin.state_dict()) == {key for key in model.state_dict() if "mamba" in key}
    with pytest.raises(UserError, match="3 axes"):
        build(describe(16, 16))
