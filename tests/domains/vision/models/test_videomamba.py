"""VideoMamba for images and for videos against its original."""

import pytest
import timm
import torch

from polymamba.core.errors import UserError
from polymamba.domains.vision.models.videomamba import VideoMamba, build, checkpoint_filter_fn


@pytest.mark.parametrize(
    ("record", "options", "shape"),
    [
        ("videomamba_image_tiny_depth4_64x96", {}, (2, 3, 64, 96)),
        ("videomamba_video_tiny_depth4_ks2", {"frames": 8, "tube": 2}, (2, 3, 8, 64, 96)),
    ],
)
def test_matches_the_original(golden, record, options, shape):
    model = golden.fill(VideoMamba((64, 96), depth=4, num_classes=10, **options))
    with torch.no_grad():
        features = model.forward_features(golden.seeded(*shape))
        found = golden.compare(
            record, [model.forward_head(features), model.forward_head(features, pre_logits=True)], model
        )
    assert max(found["errors"]) < 1e-5
    assert not found["missing"] + found["extra"] + found["shapes"]
    assert found["parameters"][0] == found["parameters"][1]


def test_orders_of_a_video():
    torch.manual_seed(0)
    options = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_classes": 3, "frames": 3}
    first, second = (VideoMamba(scan=scan, **options) for scan in ("spatial_first", "temporal_first"))
    second.load_state_dict(first.state_dict())
    video = torch.randn(2, 3, 3, 8, 8)
    assert first.grid.sizes == (3, 2, 2)
    assert first(video).shape == (2, 3)
    assert not torch.allclose(first(video), second(video))
    assert first.forward_intermediates(video, 1, intermediates_only=True)[0].shape == (2, 16, 3, 2, 2)
    with pytest.raises(UserError, match="3x8x8"):
        first(video[:, :, :2])
    with pytest.raises(UserError, match="tubes"):
        VideoMamba(**options, tube=2)


def test_a_still_video_begins_as_its_image():
    """Tubes whose middle frame an image's patches become: the tokens of a video of one tube are the image's."""
    torch.manual_seed(0)
    options = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_classes": 3}
    image, video = VideoMamba(**options), VideoMamba(frames=3, tube=3, **options)
    video.load_state_dict(checkpoint_filter_fn(image.state_dict(), video))
    x = torch.randn(2, 3, 8, 8)
    video.temporal_pos_embedding.data.zero_()
    torch.testing.assert_close(video(x[:, :, None].expand(-1, -1, 3, -1, -1)), image(x))


def test_sizes_and_names():
    assert (
        sum(p.numel() for p in timm.create_model("videomamba_middle_patch16_224", device="meta").parameters())
        == 74_217_448
    )
    describe = {"image_size": [8, 8], "channels": 1, "num_classes": 10, "model_size": "micro"}
    model = build(describe)
    assert model.layers[0].mixer.merge == "sum"
    assert "temporal_pos_embedding" in build({**describe, "frames": 4}, scan="spatiotemporal").no_weight_decay()
