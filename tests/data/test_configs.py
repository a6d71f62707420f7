"""The data group's files and the classes they build say the same."""

import importlib
import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import polymamba.configs
from polymamba.data import sources

FILES = sorted(Path(polymamba.configs.__file__).parent.glob("*/data/*.yaml"))
FOR_THE_ENGINE = {"_target_", "card", "choose"}


def test_there_are_files():
    assert {path.stem for path in FILES} >= {"digits", "fashion_mnist", "cifar10", "image_folder"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_keys_and_defaults_are_the_classes(path):
    config = OmegaConf.to_container(OmegaConf.merge({"seed": 0, "data": OmegaConf.load(path)}), resolve=True)["data"]
    module, name = config["_target_"].rsplit(".", 1)
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    assert config["name"] == path.stem
    assert set(config) - FOR_THE_ENGINE == set(parameters)
    defaults = {key: parameter.default for key, parameter in parameters.items()}
    differing = {key for key in parameters if config[key] != defaults[key]}
    assert differing <= {"workers"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_card_gives_the_licence_of_the_source(path):
    card = OmegaConf.load(path).card
    source = getattr(sources, path.stem.upper(), None) or getattr(sources, f"{path.stem.upper()}_SOURCE")
    assert card.licence == source.licence
    assert {"title", "source", "size", "needs"} <= set(card)
