import numpy as np
import pytest
import torch
from torch import nn

from polymamba.core.errors import UserError
from polymamba.domains.audio.multi_tagging import MultiTagging
from polymamba.domains.audio.tagging import Tagging, binary, mixed, smoothed

DESCRIBE = {"name": "sounds", "classes": ["low", "high", "none"], "rate": 8000}


class Loudness(nn.Module):
    """Says "high" of what is louder than 1, else "low"."""

    def forward(self, x):
        louder = x.square().mean(1) - 1
        return torch.stack([-louder, louder, -torch.ones_like(louder) * 9], 1)


def test_what_is_taken_for_what():
    task = Tagging(Loudness(), DESCRIBE, worst=2)
    sounds = torch.stack([torch.full((1000,), level) for level in (0.1, 0.5, 2.0, 3.0)])
    task.step((sounds, torch.tensor([0, 1, 1, 2])), "test")
    assert task.taken.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert task.pictures("test").keys() == {"worst_predictions", "confusion"}
    assert task.pictures("train", (sounds, torch.tensor([0, 1, 1, 2]))).keys() == {"first_batch"}
    task.on_test_start()
    assert not task.pictures("test")


def test_sounds_are_laid_over_one_another():
    torch.manual_seed(0)
    sounds, targets = torch.arange(4.0)[:, None].expand(4, 10), torch.eye(4)
    assert mixed(sounds, targets, 0.0)[0] is sounds
    found, shares = mixed(sounds, targets, 1.0)
    torch.testing.assert_close(shares.sum(1), torch.ones(4))
    torch.testing.assert_close(found[:, 0], shares @ torch.arange(4.0))
    assert ((shares > 0) & (shares < 1)).any()


def test_every_class_for_itself():
    logits, targets = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1.0, 0.0, 0.0]])
    expected = -(torch.sigmoid(logits[0, 0]).log() + torch.sigmoid(-logits[0, 1:]).log().sum())
    torch.testing.assert_close(binary(logits, targets), expected)
    assert smoothed(targets, 0.3).tolist() == [pytest.approx([0.8, 0.1, 0.1])]
    task = Tagging(Loudness(), DESCRIBE, loss="bce", mixup=0.5, label_smoothing=0.0)
    assert task.step((torch.randn(4, 100), torch.tensor([0, 1, 1, 0])), "train")[0].isfinite()


def test_several_names_a_sound():
    several = {**DESCRIBE, "several": True}
    task = MultiTagging(Loudness(), several, mixup=0.0)
    sounds = torch.stack([torch.full((100,), level) for level in (0.1, 0.5, 2.0, 3.0)])
    labels = torch.tensor([[1.0, 0, 1], [1, 0, 0], [0, 1, 1], [0, 1, 0]])
    _, metrics = task.step((sounds, labels), "test")
    assert metrics["mAP"].compute().item() == pytest.approx((1 + 1 + 0.5) / 3, abs=0.01)
    assert task.step((sounds, labels), "train")[0].isfinite()
    assert task.pictures("train", (sounds, labels)).keys() == {"first_batch"}
    with pytest.raises(UserError, match="one name each"):
        MultiTagging(Loudness(), DESCRIBE)
    with pytest.raises(UserError, match="several names"):
        Tagging(Loudness(), several)


def test_data_without_names():
    with pytest.raises(UserError, match="no names"):
        Tagging(Loudness(), {"name": "voices", "sources": 2})


@pytest.fixture
def tones(tmp_path):
    import soundfile

    for kind, pitch in (("high", 900), ("low", 300)):
        (tmp_path / "tones" / kind).mkdir(parents=True)
        for number in range(6):
            tone = 0.5 * np.sin(np.arange(1600) * (pitch + number) / 2500)
            soundfile.write(tmp_path / "tones" / kind / f"{number}.wav", tone, 16000)
    return tmp_path / "tones"


def test_a_run_names_sounds(tones, make_run, command):
    typed = (
        "data=audio_folder",
        f"data.root={tones}",
        "data.seconds=0.1",
        "model=aum",
        "model.depth=1",
        "task=tagging",
    )
    run = make_run("domain=audio", *typed)
    code, said, _ = command(f"ckpt={run}", f"input={tones}", "output=found", "top=2")
    assert code == 0
    assert "high" in said
    assert "low" in said
    assert "0.wav" in said
    with open("found/predictions.csv") as file:
        assert len(file.readlines()) == 13
