"""The parameters that the models' cards name are counted again."""

import pytest
import torch

from polymamba.engine.command_line.compose import compose
from polymamba.engine.command_line.listing import entries
from polymamba.engine.training.targets import build

CHAOTIC = {"name": "chaotic", "lookback": 96, "horizon": 24, "variables": 4, "mark_features": 0}
ETTH1 = {"name": "etth1", "lookback": 96, "horizon": 96, "variables": 7, "mark_features": 4}
MODELS = [model for model in entries("models") if "timeseries" in model.domains]
SIZES = [(model.name, size, count) for model in MODELS for size, count in model.card["sizes"].items()]


@pytest.mark.parametrize(("model", "size", "count"), SIZES)
def test_a_model_has_as_many_parameters_as_its_card_says(model, size, count):
    asked = [] if size == "etth1" else [f"model.size={size}"]
    config = compose(["domain=timeseries", f"model={model}", *asked])
    with torch.device("meta"):
        built = build(config.model, describe=CHAOTIC if size == "micro" else ETTH1, scan=None)
    assert sum(each.numel() for each in built.parameters()) == count
