"""The parameters that the models' cards name are counted again."""

import pytest
import torch

from polymamba.engine.command_line.compose import compose
from polymamba.engine.command_line.listing import entries
from polymamba.engine.training.targets import build

BYTES = {"name": "bytes", "vocab_size": 257, "length": 256, "task": "language_modelling"}
PILE = {"name": "pile", "vocab_size": 50277, "length": 2048, "task": "language_modelling"}
MODELS = [model for model in entries("models") if "nlp" in model.domains]
SIZES = [(model.name, size, count) for model in MODELS for size, count in model.card["sizes"].items()]


@pytest.mark.parametrize(("model", "size", "count"), SIZES)
def test_a_model_has_as_many_parameters_as_its_card_says(model, size, count):
    if "transformer" in model:
        pytest.importorskip("transformers")
    config = compose(["domain=nlp", f"model={model}", f"model.size={size}"])
    with torch.device("meta"):
        built = build(config.model, describe=BYTES if size == "micro" else PILE)
    assert sum(each.numel() for each in built.parameters()) == count
