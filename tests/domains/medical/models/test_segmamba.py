import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.medical.models.segmamba import SegMamba, build

SMALL = {"features": (8, 16), "hidden": 24, "depths": (1, 1)}


@pytest.mark.slow
def test_matches_the_original(held):
    held("segmamba_64_true_slices", SegMamba(4, 4, (64, 64, 64)), tolerance=1e-5)


def test_the_published_slices_are_the_true_ones_of_128_voxels():
    """The published count is of slices of 128 voxels: with it the grid is (64, rest), as such a volume's first stage has it."""
    torch.manual_seed(0)
    published, corrected = (
        SegMamba(1, 2, (128, 8, 8), **SMALL, compat=kind).eval() for kind in ("published", "corrected")
    )
    corrected.load_state_dict(published.state_dict())
    x = torch.randn(1, 1, 128, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(published(x), corrected(x))
        half = x[:, :, :64]
        assert (published(half) - corrected(half)).abs().max() > 1e-3


def test_published_slices_that_do_not_divide():
    model = SegMamba(1, 2, (12, 12, 12), **SMALL, compat="published").eval()
    with pytest.raises(UserError, match="multiple of 64"):
        model(torch.randn(1, 1, 12, 12, 12))


def test_any_sizes_scans_and_the_twin(describe):
    for scan in (None, "cross", "raster"):
        model = build(describe(16, 17, 12), scan).eval()
        assert model(torch.randn(1, 1, 16, 17, 12)).shape == (1, 3, 16, 17, 12)
    twin = build(describe(16, 17, 12), mamba=False)
    assert not [name for name in twin.state_dict() if "mamba" in name]


def test_images_are_refused(describe):
    with pytest.raises(UserError, match="3 axes"):
        build(describe(16, 16))
