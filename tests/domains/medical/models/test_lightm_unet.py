import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.medical.models.lightm_unet import LightMUNet, build


def _skips_of_one(model):
    for name, parameter in model.named_parameters():
        if name.endswith("skip_scale"):
            parameter.data.fill_(1.0)


def test_matches_the_original(held):
    held("lightm_unet_2d_skip1", LightMUNet(1, 3, (64, 96)), after=_skips_of_one)


def test_any_sizes_scans_and_the_twin(describe):
    for sizes, scan in (((17, 12, 9), "slices"), ((19, 16), "cross")):
        model, twin = (build(describe(*sizes), scan, mamba=on).eval() for on in (True, False))
        assert model(torch.randn(1, 1, *sizes)).shape == (1, 3, *sizes)
        assert set(twin.state_dict()) < set(model.state_dict())


def test_features_fill_whole_groups(describe):
    with pytest.raises(UserError, match="features do not fit"):
        build(describe(16, 16), features=12)
