"""A run that cannot fit into memory is refused before it is built."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from polymamba.core.errors import UserError
from polymamba.data.module import Description
from polymamba.engine.command_line.compose import compose
from polymamba.engine.training import memory

TOLD = Description("points", {"train": 1000}, values=64, resized_by="data.length")


def model(width=10):
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False))


def test_what_a_run_needs():
    config = compose([])
    asked = memory.need(config, model(), TOLD, 32)
    assert (asked.parameters, asked.model, asked.samples) == (
        200,
        200 * 4 * 4,
        32,
    )  # weights, gradients, two of AdamW's
    assert asked.order == 24_000
    assert memory.need(config, model(), TOLD, None).model == 800
    averaged = memory.need(compose(["trainer.ema=0.9", "optimizer=sgd"]), model(), TOLD, 32)
    assert averaged.model == 200 * 4 * 4  # weights, gradients, momentum, average


@pytest.mark.parametrize(
    ("width", "told", "do"),
    [
        (1_000_000, TOLD, "a smaller model.size"),
        (10, replace(TOLD, length=20_000_000), "data.batch_size=2 or less"),
        (10, replace(TOLD, length=2_000_000_000), "a smaller data.length, or model.checkpointing=true"),
    ],
)
def test_what_does_not_fit_is_refused(width, told, do, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda config: 4 * 2**30)
    config = compose([])
    memory.check_memory(config, model(), TOLD, 8)
    with pytest.raises(UserError, match="needs more memory than there is") as refused:
        memory.check_memory(config, model(width), told, 8)
    assert do in refused.value.do
    assert "4.0 GiB are free" in str(refused.value)


def test_free_memory_is_some():
    assert memory.free_memory(compose(["trainer.accelerator=cpu"])) > 2**20
