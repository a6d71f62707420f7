"""EfficientVMamba against its original, on grids of odd sides too."""

import torch

from polymamba.domains.vision.models.efficientvmamba import EfficientVMamba, checkpoint_filter_fn


def test_matches_the_original(golden):
    model = EfficientVMamba((72, 88), depths=(1, 1, 1, 1), num_classes=10, compat="published").eval()
    weights = golden.weights("efficientvmamba_shallow_72x88")
    model.load_state_dict(
        checkpoint_filter_fn({"state_dict": {f"module.module.{k}": v for k, v in weights.items()}}, model)
    )
    x, maps = golden.seeded(2, 3, 72, 88), []
    with torch.no_grad():
        answers, x = [model(x)], model.patch_embed(x)
        for stage in model.layers:
            maps.append(x.mean((1, 2)))
            x = stage.downsample(stage(x))
        found = golden.compare("efficientvmamba_shallow_72x88", [*answers, *maps, x.mean((1, 2))])
    assert len(found["errors"]) == 6
    assert max(found["errors"]) < 1e-5
    assert sum(p.numel() for p in model.parameters()) == 2_801_068
    assert len(model.state_dict()) == len(weights)


def test_only_odd_grids_tell_the_forms_apart():
    torch.manual_seed(0)
    plain, padded = (
        EfficientVMamba(16, num_classes=3, stride=2, dims=(8, 16), depths=(1, 1), d_state=4, compat=compat).eval()
        for compat in (None, "published")
    )
    padded.load_state_dict(plain.state_dict())
    even, odd = torch.randn(1, 3, 16, 16), torch.randn(1, 3, 14, 14)
    torch.testing.assert_close(plain(even), padded(even), rtol=1e-5, atol=1e-6)
    assert not torch.equal(plain(odd), padded(odd))
