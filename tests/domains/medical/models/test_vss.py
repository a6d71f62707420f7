"""The U-Nets of VMamba's blocks: VM-UNet, Mamba-UNet, Swin-UMamba and its D."""

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.core.grid_blocks import PatchExpand
from polymamba.domains.medical.models import mamba_unet, swin_umamba, vm_unet
from polymamba.domains.medical.models.vss import PatchMerging

BUILDS = {
    "vm_unet": vm_unet.build,
    "mamba_unet": mamba_unet.build,
    "swin_umamba": swin_umamba.build,
    "swin_umamba_d": lambda *given, **options: swin_umamba.build(*given, decoder="mamba", **options),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "arguments"),
    [
        ("vmunet_synapse_rect", vm_unet.VMUNet, (3, 9, (64, 96))),
        ("mamba_unet_rect", mamba_unet.MambaUNet, (3, 4, (96, 64))),
        ("swin_umamba", swin_umamba.SwinUMamba, (1, 4, (96, 64))),
        ("swin_umamba_d", swin_umamba.SwinUMambaD, (1, 4, (64, 96))),
    ],
)
def test_matches_the_original(held, name, kind, arguments):
    model = kind(*arguments)
    meta, answers = held(name, model, getattr(model, "scales", None), tolerance=1e-5)
    assert meta["final_outputs"] == (len(answers) if isinstance(answers, list) else 1)


@pytest.mark.parametrize("name", BUILDS)
def test_any_sizes_scans_and_the_twin(describe, name):
    for scan in (None, "raster", "skip"):
        model = BUILDS[name](describe(33, 40), scan).eval()
        assert model(torch.randn(2, 1, 33, 40)).shape == (2, 3, 33, 40)
    twin = BUILDS[name](describe(33, 40), mamba=False)
    assert not [key for key in twin.state_dict() if "self_attention" in key]
    assert set(twin.state_dict()) < set(model.state_dict())


@pytest.mark.parametrize(("name", "scales"), [("swin_umamba", (1, 2, 4, 8)), ("swin_umamba_d", (1, 4, 8, 16))])
def test_training_answers_at_every_scale(describe, name, scales):
    found = BUILDS[name](describe(64, 32))(torch.randn(2, 1, 64, 32))
    assert [tuple(each.shape[2:]) for each in found] == [(64 // scale, 32 // scale) for scale in scales]


def test_merging_and_expanding_keep_neighbours_together():
    x = torch.arange(2 * 4 * 6).float().view(2, 4, 6, 1)
    merging = PatchMerging(1)
    merging.norm = torch.nn.Identity()
    merging.reduction = torch.nn.Identity()
    found = merging(x)
    assert found.shape == (2, 2, 3, 4)
    assert found[0, 0, 0].tolist() == [0.0, 6.0, 1.0, 7.0]
    expanding = PatchExpand(4, 1)
    expanding.norm = torch.nn.Identity()
    expanding.expand = torch.nn.Identity()
    rows_first = found[..., [0, 2, 1, 3]]
    torch.testing.assert_close(expanding(rows_first), x)


def test_volumes_are_refused(describe):
    for build in BUILDS.values():
        with pytest.raises(UserError, match="2 axes"):
            build(describe(16, 16, 16))
