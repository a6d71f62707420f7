"""The data group's files and the classes they build say the same."""

import importlib
import inspect
from dataclasses import asdict, is_dataclass
from pathlib import Path

import pytest

import polymamba.configs
from polymamba.engine.command_line.compose import compose
from polymamba.engine.command_line.groups import read_yaml

FILES = sorted(Path(polymamba.configs.__file__).parent.glob("*/data/*.yaml"))
FOR_THE_ENGINE = {"_target_", "card", "choose", "defaults"}


def test_there_are_files():
    assert {path.stem for path in FILES} >= {"digits", "fashion_mnist", "cifar10", "image_folder"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_keys_and_defaults_are_the_classes(path):
    target = read_yaml(path)["_target_"]
    config = compose([f"domain={target.split('.')[2]}", f"data={path.stem}"]).data
    module, name = target.rsplit(".", 1)
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    assert config["name"] == path.stem
    assert set(config) - FOR_THE_ENGINE == set(parameters)
    defaults = {key: each.default for key, each in parameters.items()}
    defaults = {key: asdict(value) if is_dataclass(value) else value for key, value in defaults.items()}
    assert config["loading"].pop("workers") in (0, 2)
    defaults["loading"].pop("workers")
    assert {key: config[key] for key in parameters} == defaults


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_card_gives_the_licence_of_the_source(path):
    card = read_yaml(path)["card"]
    sources = importlib.import_module(f"polymamba.data.{path.parent.parent.name}.sources")
    source = getattr(sources, path.stem.upper(), None) or getattr(sources, f"{path.stem.upper()}_SOURCE")
    assert card["licence"] == source.licence
    assert {"title", "source", "size", "needs"} <= set(card)
