"""Mamba-ND against its original; the order in which its layers take the axes."""

import torch

from polymamba.domains.vision.models.mamband import MambaND, checkpoint_filter_fn


def test_matches_the_original(golden):
    model = MambaND(64, depths=(6, 2), num_classes=0, compat="published").eval()
    weights = golden.weights("mamband_small2d_8layers_64")
    model.load_state_dict(checkpoint_filter_fn({"state_dict": {f"backbone.{k}": v for k, v in weights.items()}}, model))
    with torch.no_grad():
        found = golden.compare("mamband_small2d_8layers_64", model(golden.seeded(2, 3, 64, 64)))
    assert max(found["errors"]) < 1e-5
    assert sum(p.numel() for p in model.parameters()) == 8_409_984
    assert len(model.state_dict()) == len(weights)


def test_layers_take_the_axes_in_turn_on_any_grid():
    model = MambaND((8, 12), patch_size=4, embed_dim=8, depths=(4, 1), num_classes=2)
    orders = [block.mixer.scan.order((2, 3))[0].tolist() for block in model.layers[0].blocks]
    assert orders == [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [0, 3, 1, 4, 2, 5], [5, 2, 4, 1, 3, 0]]


def test_what_goes_past_the_mixer():
    torch.manual_seed(0)
    plain, published = (
        MambaND(16, patch_size=4, embed_dim=8, depths=(1, 1), compat=compat) for compat in (None, "published")
    )
    published.load_state_dict(plain.state_dict())
    x = torch.randn(2, 4, 4, 8)
    one, other = plain.layers[0].blocks[0], published.layers[0].blocks[0]
    torch.testing.assert_close(one(x) - x, other(x) - one.norm(x))
