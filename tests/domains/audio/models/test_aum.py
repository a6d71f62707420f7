import math

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.audio.models.aum import AuM, build
from polymamba.domains.audio.models.log_mel import Fbank, LogMel
from polymamba.domains.audio.models.spectrogram_transformer import build as transformer

DESCRIBE = {"name": "sounds", "num_classes": 5, "samples": 3000, "rate": 8000, "model_size": "micro"}


def test_meets_the_record(meets_the_record, golden):
    frames = golden.seeded(2, 128, 128)
    meets_the_record("audio_aum_tiny_bibi", AuM(), lambda model: [model(frames)])


@pytest.mark.parametrize(("size", "form", "count"), [("base", "decay", 92.11e6), ("small", "separate", 25.54e6)])
def test_it_is_as_large_as_the_paper_says(size, form, count):
    described = {"num_classes": 527, "samples": 163_680, "rate": 16000}
    with torch.device("meta"):
        model = build(described, size=size, parameters=form)
    assert sum(each.numel() for each in model.parameters()) == pytest.approx(count, rel=0.002)


@pytest.mark.parametrize("scan", ["raster", "bidirectional", "cross"])
@pytest.mark.parametrize("form", ["separate", "shared", "decay"])
def test_forms_and_scans(scan, form):
    model = build(DESCRIBE, scan, parameters=form, embed_dim=16, depth=1).eval()
    assert model(torch.randn(2, 3000)).shape == (2, 5)


def test_sounds_of_other_lengths_than_it_was_made_for():
    model = build(DESCRIBE, embed_dim=16, depth=1).eval()
    for samples in (0, 1, 100, 9000):
        assert model(torch.randn(1, samples)).isfinite().all()


@pytest.mark.parametrize("make", [build, transformer])
def test_strips_are_all_mels_of_a_few_frames(make):
    model = make(DESCRIBE, patch=64, patch_frames=2, embed_dim=16, depth=1).eval()
    frames = model.front.frames(3000)
    assert model.tokens == 1 + math.ceil(frames / 2)
    assert model(torch.randn(2, 3000)).shape == (2, 5)
    patches = getattr(model, "network", model).patch_embed.proj
    assert patches.weight.shape == (16, 1, 64, 2)


def test_loudness_does_not_matter():
    front, sound = LogMel(8000, 32).eval(), torch.randn(1, 4000)
    torch.testing.assert_close(front(sound), front(100 * sound), atol=1e-3, rtol=1e-3)
    assert front(torch.zeros(1, 4000)).isfinite().all()
    assert front(sound).shape[1] == front.frames(4000)


def test_what_hums_far_below_the_loudest_is_not_heard():
    """60 dB below, a hum over silence moves no level by a tenth of the deviation; 20 dB below, it does."""
    front, time = LogMel(8000, 32).eval(), torch.arange(8000) / 8000
    word = torch.sin(2 * math.pi * 500 * time) * (time < 0.4)
    hum = torch.sin(2 * math.pi * 2500 * time)
    silent, soft, loud = (front((word + share * hum)[None]) for share in (0, 1e-3, 1e-1))
    assert (silent - soft).abs().max() < 0.1 < (silent - loud).abs().max()


def test_how_loud_a_sound_must_be_is_drawn_in_training_alone():
    torch.manual_seed(0)
    front, sound = LogMel(8000, 32), torch.randn(1, 4000) * torch.linspace(0, 1, 4000)
    same = front.eval()(sound.expand(4, -1))
    assert torch.equal(same, same[:1].expand_as(same))
    drawn = front.train()(sound.expand(4, -1))
    assert (drawn[0] - drawn[1]).abs().max() > 1e-3


def test_stripes_are_hidden_in_training_alone():
    torch.manual_seed(0)
    front, sound = LogMel(8000, 32, 8, 10), torch.randn(4, 4000)
    hidden = (front.train()(sound) == 0).float()
    assert 0 < hidden.mean() < 0.6
    rows, columns = hidden.mean(2), hidden.mean(1)
    assert all((row == 1).sum() <= 10 for row in rows)
    assert all((column == 1).sum() <= 8 for column in columns)
    assert not (front.eval()(sound) == 0).any()


def test_filter_banks_as_published_weights_expect_them():
    front, times = Fbank(16000, 128, -6.0, 5.0), torch.arange(16000) / 16000
    found = front(torch.stack([0.3 + 0.1 * torch.sin(2 * math.pi * 1000 * times), torch.zeros(16000)]))
    assert found.shape == (2, 128, 128)
    low, high, tone = (1127 * math.log(1 + hertz / 700) for hertz in (20, 8000, 1000))
    assert (found[0, :98].argmax(1) == round((tone - low) / (high - low) * 129 - 1)).all()
    assert found[1, :98].allclose(torch.tensor((math.log(torch.finfo(torch.float32).eps) + 6) / 10))
    assert (found[:, 98:] == 0.6).all()  # filled up with levels of 0
    for samples in (0, 1, 399, 40000):
        assert front(torch.randn(1, samples)).isfinite().all()


def test_data_without_names():
    with pytest.raises(UserError, match="no names"):
        build({"name": "voices", "sources": 2}, size="micro")
