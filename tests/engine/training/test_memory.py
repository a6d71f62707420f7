"""A run that cannot fit into memory is refused before it is built."""

import pytest
import torch
from torch import nn

from polymamba.core.errors import UserError
from polymamba.engine.command_line.compose import compose
from polymamba.engine.training import memory

TOLD = {"channels": 1, "image_size": (8, 8), "train": 1000}


def model(width=10):
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False))


def test_what_a_run_needs():
    config = compose(["data.batch_size=32"])
    asked = memory.need(config, model(), TOLD, training=True)
    assert (asked.parameters, asked.model, asked.samples) == (
        200,
        200 * 4 * 4,
        32,
    )  # weights, gradients, two of AdamW's
    assert asked.order == 24_000
    assert memory.need(config, model(), TOLD, training=False).model == 800
    averaged = memory.need(compose(["trainer.ema=0.9", "optimizer=sgd"]), model(), TOLD, training=True)
    assert averaged.model == 200 * 4 * 4  # weights, gradients, momentum, average


@pytest.mark.parametrize(
    ("width", "told", "do"),
    [
        (1_000_000, TOLD, "a smaller model.size"),
        (10, {**TOLD, "length": 20_000_000}, "data.batch_size=2 or less"),
        (10, {**TOLD, "length": 2_000_000_000}, "model.checkpointing=true"),
    ],
)
def test_what_does_not_fit_is_refused(width, told, do, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda config: 4 * 2**30)
    config = compose(["data.batch_size=8"])
    memory.check_memory(config, model(), TOLD, training=True)
    with pytest.raises(UserError, match="needs more memory than there is") as refused:
        memory.check_memory(config, model(width), told, training=True)
    assert do in refused.value.do
    assert "4.0 GiB are free" in str(refused.value)


def test_free_memory_is_some():
    assert memory.free_memory(compose(["trainer.accelerator=cpu"])) > 2**20
