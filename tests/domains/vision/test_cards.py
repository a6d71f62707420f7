"""The parameters that the models' cards name are counted again."""

import pytest
import torch

from polymamba.core.scans import get
from polymamba.engine.command_line.compose import compose
from polymamba.engine.command_line.listing import entries
from polymamba.engine.training.targets import build

DIGITS = {"name": "digits", "channels": 1, "image_size": [8, 8], "num_classes": 10}
IMAGENET = {"name": "imagenet", "channels": 3, "image_size": [224, 224], "num_classes": 1000}
MOTIFS = {"name": "graph_motifs", "tags": 1, "walks": 8, "num_classes": 5}
SCENES = {"name": "drawn_shapes", "channels": 3, "image_size": [64, 64], "num_classes": 6, "model_size": "micro"}
SHAPES = {"name": "moving_shapes", "channels": 3, "image_size": [32, 32], "frames": 8, "num_classes": 8}
BANDS = {"name": "drawn_bands", "channels": 4, "ratio": 4, "image_size": [32, 32]}
OTHERS = {
    "vmrnn": (SHAPES, SHAPES),
    "panmamba": (BANDS, BANDS),
    "fusionmamba": (BANDS, BANDS),
    "segmenter": (SCENES, SCENES),
    "unet": (SCENES, SCENES),
    "graphmamba": (MOTIFS, MOTIFS),
    "pointmamba": (
        {"name": "solids", "points": 256, "num_classes": 10},
        {"name": "", "points": 1024, "num_classes": 40},
    ),
}
MODELS = [model for model in entries("models") if "vision" in model.domains]
SIZES = [(model.name, size, count) for model in MODELS for size, count in model.card["sizes"].items()]


@pytest.mark.parametrize(("model", "size", "count"), SIZES)
def test_a_model_has_as_many_parameters_as_its_card_says(model, size, count):
    sized = [f"model.size={size}"] if model not in ("segmenter", "unet") else []
    config = compose(["domain=vision", f"model={model}", *sized])
    describe = OTHERS.get(model, (DIGITS, IMAGENET))[size != "micro"]
    with torch.device("meta"):
        built = build(config.model, describe=describe, scan=config.scan and get(config.scan["name"]))
    assert sum(each.numel() for each in built.parameters()) == count
