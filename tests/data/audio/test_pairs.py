import os

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.audio.pairs import MixtureFolder, NoisySpeech
from polymamba.data.loading import Loading

SHORT = {"loading": Loading(batch_size=2), "seconds": 0.05}


@pytest.mark.parametrize("layout", ["", "train", "wsj"])
def test_mixtures_lie_with_their_sources(write, tmp_path, layout):
    splits = {"": ["."], "train": ["train", "val", "test"], "wsj": ["tr", "cv", "tt"]}[layout]
    for split in splits:
        for number in range(5):
            for kind in ("mix_clean", "s1", "s2"):
                write(f"{split}/{kind}/{number}.wav", seed=hash((split, number, kind)) % 1000)
    data = MixtureFolder(str(tmp_path), **SHORT)
    counts = data.describe().counts
    assert counts == ({"train": 3, "val": 1, "test": 1} if layout == "" else {"train": 5, "val": 5, "test": 5})
    mixture, sources = data.load_batch("train", 0, np.arange(3))
    assert mixture.shape == (3, 400)
    assert sources.shape == (3, 2, 400)
    assert not torch.equal(mixture, data.load_batch("train", 1, np.arange(3))[0])  # another stretch
    assert torch.equal(data.load_batch("test", 0, np.arange(1))[0], data.load_batch("test", 1, np.arange(1))[0])
    remixed = MixtureFolder(str(tmp_path), **SHORT, remix=True)
    mixture, sources = remixed.load_batch("train", 0, np.arange(3))
    torch.testing.assert_close(mixture, sources.sum(1))


def test_voicebank_folders(write, tmp_path):
    for split, count in (("trainset_28spk", 5), ("testset", 2)):
        for kind in ("noisy", "clean"):
            for number in range(count):
                write(f"{kind}_{split}_wav/{number}.wav", rate=48000)
    with pytest.raises(UserError, match="not the folders that are needed"):
        MixtureFolder(str(tmp_path), **SHORT).setup()
    data = NoisySpeech(str(tmp_path), **SHORT)
    assert data.describe().for_model["sources"] == 1
    assert data.load_batch("val", 0, np.arange(1))[1].shape == (1, 1, 800)


def test_training_may_hear_other_noises(write, tmp_path):
    for number in range(6):
        write(f"clean/{number}.wav", 0.2, 16000, seed=number)
        write(f"noisy/{number}.wav", 0.2, 16000, seed=100 + number)
    plain, other = (NoisySpeech(str(tmp_path), **SHORT, other_noises=flag) for flag in (False, True))
    here = np.arange(4)
    (noisy, clean), (mixed, same) = (data.load_batch("train", 0, here) for data in (plain, other))
    assert torch.equal(clean, same)
    assert not torch.allclose(noisy, mixed)
    torch.testing.assert_close(mixed, other.load_batch("train", 0, here)[0])
    assert not torch.allclose(
        mixed - same[:, 0], other.load_batch("train", 1, here)[0] - other.load_batch("train", 1, here)[1][:, 0]
    )
    for split in ("val", "test"):
        assert torch.equal(*(data.load_batch(split, 0, np.arange(1))[0] for data in (plain, other)))


def test_a_recording_shorter_than_a_sample_ends_in_silence(write, tmp_path):
    for number in range(4):
        for kind in ("noisy", "clean"):
            write(f"{kind}/{number}.wav", 0.01, 16000)
    mixture, _ = NoisySpeech(str(tmp_path), **SHORT).load_batch("train", 0, np.arange(1))
    assert mixture.shape == (1, 800)
    assert not mixture[0, 160:].any()


def test_what_does_not_fit_is_named(write, tmp_path):
    with pytest.raises(UserError, match="which folder"):
        MixtureFolder()
    with pytest.raises(UserError, match="no such folder"):
        MixtureFolder(str(tmp_path / "none")).setup()
    for number in range(4):
        write(f"mix/{number}.wav")
        write(f"s1/{number}.wav")
    with pytest.raises(UserError, match="not the folders that are needed"):
        MixtureFolder(str(tmp_path)).setup()
    write("s2/0.wav")
    with pytest.raises(UserError, match=r"1\.wav has no counterpart"):
        MixtureFolder(str(tmp_path)).setup()
    for number in range(1, 4):
        write(f"s2/{number}.wav", 0.2)
    with pytest.raises(UserError, match="different lengths"):
        MixtureFolder(str(tmp_path)).verify()


def test_layouts_within_their_folders(write, tmp_path, monkeypatch):
    for split in ("tr", "cv", "tt"):
        for kind in ("mix_both", "mix_clean", "s1", "s2"):
            for cut in ("max", "min"):
                write(f"wav8k/{cut}/{split}/{kind}/a.wav", seed=len(split + kind))
    for mixture in ("mix_both", "mix_clean"):
        data = MixtureFolder(str(tmp_path), **SHORT, mixture=mixture)
        data.setup()
        assert data.splits["train"][0][0].parent == tmp_path / "wav8k/min/tr" / mixture
    for kind in ("mix", "s1", "s2"):
        for number in range(4):
            write(f"audio/some/{kind}/{number}.wav")
    monkeypatch.setenv("POLYMAMBA_DATA", str(tmp_path))
    assert MixtureFolder(folder="some", **SHORT).describe().counts == {"train": 2, "val": 1, "test": 1}


@pytest.mark.skipif("POLYMAMBA_DATA" not in os.environ, reason="needs the real files: set POLYMAMBA_DATA")
@pytest.mark.parametrize("make", [lambda: MixtureFolder(folder="librispeech_2mix_debug"), NoisySpeech])
def test_real_recordings(make):
    data = make()
    data.verify()
    mixture, sources = data.load_batch("test", 0, np.arange(1))
    assert mixture.std() > 0
    assert sources.std() > 0
