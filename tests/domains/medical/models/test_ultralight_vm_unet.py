import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.medical.models.ultralight_vm_unet import ParallelMamba, UltraLightVMUNet, build


def test_matches_the_original(held):
    model = UltraLightVMUNet(3, 1, (256, 256))
    held("ultralight_vm_unet", model, lambda x: torch.sigmoid(model(x)), tolerance=1e-5)


def test_each_quarter_of_the_channels_is_mixed_by_the_same_mamba():
    torch.manual_seed(0)
    layer = ParallelMamba(8, 16, "raster", 2, 0, True, {}).double()
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    tokens = layer.norm(x.flatten(2).mT)
    parts = [layer.mamba(part, (3, 5))[0] + layer.skip_scale * part for part in tokens.chunk(4, 2)]
    expected = layer.proj(layer.norm(torch.cat(parts, 2))).mT.unflatten(2, (3, 5))
    torch.testing.assert_close(layer(x), expected)


def test_any_sizes_and_the_twin(describe):
    model, twin = (build(describe(33, 40), mamba=on).eval() for on in (True, False))
    assert model(torch.randn(1, 1, 33, 40)).shape == (1, 3, 33, 40)
    assert set(model.state_dict()) - set(twin.state_dict()) == {key for key in model.state_dict() if ".mamba." in key}
    assert model.grids[-1] == (2, 2)
    assert twin.grids is None


def test_volumes_take_the_same_steps(describe):
    volumes, images = build(describe(33, 17, 40)), build(describe(33, 40))
    assert volumes.state_dict().keys() == images.state_dict().keys()
    answer = volumes(torch.randn(2, 1, 33, 17, 40))
    assert answer.shape == (2, 3, 33, 17, 40)
    answer.square().mean().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in volumes.parameters())
    assert volumes.grids[-1] == (2, 1, 2)


def test_the_bridge_in_its_other_forms():
    torch.manual_seed(0)
    model = UltraLightVMUNet(3, 1, (64, 64)).eval()
    other = UltraLightVMUNet(3, 1, (64, 64), split_att="conv").eval()
    shapes = {name: value.shape for name, value in other.state_dict().items()}
    assert shapes["scab.catt.att1.weight"] == (8, 128, 1)
    other.load_state_dict({name: value.view(shapes[name]) for name, value in model.state_dict().items()})
    x = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(other(x), model(x), rtol=1e-4, atol=1e-5)
    bare = UltraLightVMUNet(3, 1, (64, 64), bridge=False)
    assert set(model.state_dict()) - set(bare.state_dict()) == {key for key in model.state_dict() if "scab" in key}
    with pytest.raises(UserError, match="split_att"):
        UltraLightVMUNet(3, 1, (64, 64), split_att="linear")
