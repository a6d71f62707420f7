"""The parameters that the models' cards name are counted again."""

import pytest
import torch

from polymamba.core.scans import get
from polymamba.engine.command_line.compose import compose
from polymamba.engine.command_line.listing import entries
from polymamba.engine.training.targets import build

BEAUTY = {"name": "beauty", "items": 12_101, "length": 50}
MODELS = [model for model in entries("models") if "recommendation" in model.domains]
SIZES = [(model.name, size, count) for model in MODELS for size, count in model.card["sizes"].items()]


@pytest.mark.parametrize(("model", "size", "count"), SIZES)
def test_a_model_has_as_many_parameters_as_its_card_says(model, size, count):
    sized = [] if size == "any" else [f"model.size={size}"]
    config = compose(["domain=recommendation", f"model={model}", *sized])
    with torch.device("meta"):
        built = build(config.model, describe=BEAUTY, scan=get("raster"))
    assert sum(each.numel() for each in built.parameters()) == count
