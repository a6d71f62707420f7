import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.medical.models.nnmamba import MambaLayer, NnMamba, NnMambaClassifier, build, build_classifier

CLASSES = {"task": "classification", "channels": 1, "num_classes": 3, "image_size": [17, 12, 20], "model_size": "micro"}


@pytest.mark.slow
def test_matches_the_original(held):
    model = NnMamba(1, 6, (32, 48, 64), compat="published")
    _, answers = held("nnmamba_seg_nnunet", model, model.scales, tolerance=1e-5)
    assert len(answers) == 4
    assert answers[0].min() >= 0


@pytest.mark.slow
def test_the_classifier_matches_the_original(held):
    held("nnmamba_cls", NnMambaClassifier(1, 3, (32, 48, 40)), tolerance=1e-5)


@pytest.mark.parametrize(("walks", "count"), [(4, 15_959_598), (1, 15_876_318)])
def test_the_published_counts(walks, count):
    with torch.device("meta"):
        model = NnMamba(1, 16, (64, 64, 64), walks=walks, compat="published")
    assert sum(each.numel() for each in model.parameters()) == count
    assert model.deep_supervision == (walks == 1)


def test_four_walks_are_the_mean_over_flips():
    torch.manual_seed(0)
    layer = MambaLayer(8, "raster", 0, 4, True, {}).double().eval()
    x = torch.randn(2, 8, 2, 3, 4, dtype=torch.float64)
    given = torch.relu(layer.norm(layer.nin(x)))
    tokens = given.flatten(2).mT
    walks = [layer.mamba(tokens.flip(way).contiguous())[0].flip(way) for way in ((), (1,), (2,), (1, 2))]
    inner = (sum(walks) / 4).mT.unflatten(2, (2, 3, 4)) + given
    torch.testing.assert_close(layer(x), torch.relu(layer.norm2(layer.nin2(inner))))


def test_the_classifier_takes_any_sizes_and_has_a_twin():
    model, twin = (build_classifier(CLASSES, "slices", mamba=on).eval() for on in (True, False))
    for sizes in ((17, 12, 20), (1, 3, 2)):
        assert model(torch.randn(2, 1, *sizes)).shape == (2, 3)
    assert set(model.state_dict()) - set(twin.state_dict()) == {key for key in model.state_dict() if "mamba" in key}
    with pytest.raises(UserError, match="3 axes"):
        build_classifier({**CLASSES, "image_size": [16, 16]})


def test_walks_are_one_or_four():
    with pytest.raises(UserError, match="walks"):
        NnMamba(1, 3, (16, 16, 16), walks=2)


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
