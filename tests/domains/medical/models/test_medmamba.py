import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.medical.models.medmamba import SIZES, Block, MedMamba, Stage, build
from polymamba.domains.medical.models.vss import Mixing

DESCRIBE = {"task": "classification", "channels": 1, "num_classes": 3, "image_size": [28, 33], "model_size": "micro"}


@pytest.mark.slow
@pytest.mark.parametrize("compat", ["corrected", "published"])
def test_matches_the_original(held, compat):
    held("medmamba_t_64", MedMamba(3, 6, (64, 96), compat=compat), tolerance=1e-5)


@pytest.mark.parametrize(("size", "count"), [("tiny", 14_457_222), ("small", 18_625_158), ("base", 39_864_838)])
def test_the_papers_sizes(size, count):
    with torch.device("meta"):
        model = MedMamba(3, 6, (224, 224), **SIZES[size])
    assert sum(each.numel() for each in model.parameters()) == count


def test_halves_lie_between_one_another():
    """Convolved channels at even places, scanned ones at odd places: ShuffleNet's shuffle of two groups."""
    torch.manual_seed(0)
    block, x = Block(8, Mixing("cross", True, {}), 0, 0.0).double().eval(), torch.randn(2, 3, 5, 8).double()
    found = block(x) - x
    left, right = x[..., :4], x[..., 4:]
    scanned = block.self_attention(block.ln_1(right).flatten(1, 2), (3, 5))[0].unflatten(1, (3, 5))
    torch.testing.assert_close(found[..., 1::2], scanned)
    torch.testing.assert_close(found[..., ::2], block.conv33conv33conv11(left.movedim(-1, 1)).movedim(1, -1))


def test_any_sizes_scans_and_the_twin():
    for scan in (None, "raster", "skip"):
        model = build(DESCRIBE, scan).eval()
        for sizes in ((28, 33), (1, 7)):
            assert model(torch.randn(2, 1, *sizes)).shape == (2, 3)
    twin = build(DESCRIBE, mamba=False)
    scanning = {key for key in model.state_dict() if "self_attention" in key or "ln_1" in key}
    assert set(model.state_dict()) - set(twin.state_dict()) == scanning
    assert twin.grids is None
    assert model.grids == [(7, 9), (4, 5), (2, 3)]


def test_odd_maps_are_filled_up_or_cut_as_published():
    x = torch.randn(1, 7, 9, 8)
    published, corrected = (Stage(8, Mixing("cross", True, {}), 0, [], True, crops) for crops in (True, False))
    torch.testing.assert_close(published(x), published.downsample(x[:, :6, :8]))
    torch.testing.assert_close(corrected(x), corrected.downsample(torch.nn.functional.pad(x, (0, 0, 0, 1, 0, 1))))
    model = build(DESCRIBE, compat="published").eval()
    assert model(torch.randn(1, 1, 28, 28)).shape == (1, 3)
    with pytest.raises(UserError, match="as small as these"):
        model(torch.randn(1, 1, 15, 28))


def test_other_data_are_refused(describe):
    with pytest.raises(UserError, match="class of a whole image"):
        build(describe(32, 32))
    with pytest.raises(UserError, match="2 axes"):
        build({**DESCRIBE, "image_size": [16, 16, 16]})
