"""The parameters that the models' cards name are counted again."""

import pytest
import torch

from polymamba.core.scans import get
from polymamba.engine.command_line.compose import compose
from polymamba.engine.command_line.listing import entries
from polymamba.engine.training.targets import build

NOISY = {"name": "noisy_speech", "sources": 1, "samples": 32000, "rate": 16000, "names": ["clean"]}
MIXTURES = {"name": "voices", "sources": 2, "samples": 8000, "rate": 8000, "names": ["s1", "s2"]}
SOUNDS = {"name": "sounds", "num_classes": 35, "samples": 16000, "rate": 16000}
OF_SOUNDS, OF_NOISE = {"aum", "conmamba", "spectrogram_transformer"}, {"semamba"}
MODELS = [model for model in entries("models") if "audio" in model.domains]
SIZES = [(model.name, size, count) for model in MODELS for size, count in model.card["sizes"].items()]


@pytest.mark.parametrize(("model", "size", "count"), SIZES)
def test_a_model_has_as_many_parameters_as_its_card_says(model, size, count):
    config = compose(["domain=audio", f"model={model}", f"model.size={size}"])
    describe = SOUNDS if model in OF_SOUNDS else NOISY if model in OF_NOISE else MIXTURES
    with torch.device("meta"):
        built = build(config.model, describe=describe, scan=get(config.scan["name"]))
    assert sum(each.numel() for each in built.parameters()) == count
