import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from polymamba.core.errors import UserError
from polymamba.domains.audio.models.aum import build
from polymamba.domains.audio.pretraining import Pretraining

DESCRIBE = {
    "name": "sounds",
    "classes": ["a", "b"],
    "num_classes": 2,
    "samples": 1600,
    "rate": 8000,
    "model_size": "micro",
}


@pytest.fixture
def task():
    torch.manual_seed(0)
    return Pretraining(build(DESCRIBE, embed_dim=16, depth=1), DESCRIBE)


def test_it_learns_what_is_hidden(task):
    sounds = torch.randn(4, 1600)
    optimizer = torch.optim.Adam(task.learning().parameters(), 3e-3)
    losses = []
    for _ in range(30):
        loss, _ = task.step((sounds, None), "train")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    named = {name for name, each in task.learning().named_parameters() if each.grad is None}
    assert named == {"model.head.weight", "model.head.bias"}


def test_validation_hides_the_same_patches_and_leaves_chance_alone(task):
    sounds = torch.randn(2, 1600)
    state = torch.get_rng_state()
    first, second = (task.step((sounds, None), "val")[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
    assert task.pictures("train", (sounds, None)).keys() == {"first_batch"}


def test_what_does_not_go_together(task):
    with pytest.raises(UserError, match="patches"):
        Pretraining(nn.Linear(1, 1), DESCRIBE)
    with pytest.raises(UserError, match="most"):
        Pretraining(task.model, DESCRIBE, least=6)


@pytest.fixture
def tones(tmp_path):
    for kind in ("high", "low"):
        (tmp_path / kind).mkdir()
        for number in range(6):
            soundfile.write(
                tmp_path / kind / f"{number}.wav", 0.1 * np.random.default_rng(number).standard_normal(1600), 16000
            )
    return tmp_path


def test_tagging_goes_on_from_it(make_run, tones):
    typed = (
        "domain=audio",
        "data=audio_folder",
        f"data.root={tones}",
        "data.seconds=0.1",
        "model=aum",
        "model.depth=1",
    )
    run = make_run(*typed, "task=pretraining")
    other = make_run(*typed, "task=tagging", f"init={run}")
    assert (other / "checkpoints").is_dir()
