"""The data group's files and the classes they build say the same."""

import importlib
import inspect
from collections import Counter
from dataclasses import asdict, is_dataclass
from pathlib import Path

import pytest

import polymamba.configs
from polymamba.engine.command_line.compose import compose
from polymamba.engine.command_line.yaml_files import read_yaml

FILES = sorted(Path(polymamba.configs.__file__).parent.glob("*/data/*.yaml"))
SHARED = Counter(read_yaml(path)["_target_"] for path in FILES)
FOR_THE_ENGINE = {"_target_", "card", "choose", "defaults"}


def test_there_are_files():
    assert {path.stem for path in FILES} >= {"digits", "fashion_mnist", "cifar10", "image_folder"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_keys_and_defaults_are_the_classes(path):
    target = read_yaml(path)["_target_"]
    config = compose([f"domain={target.split('.')[2]}", f"data={path.stem}"]).data
    module, name = target.rsplit(".", 1)
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    assert config["name"] in (path.stem, None)
    assert set(config) - FOR_THE_ENGINE == set(parameters)
    defaults = {key: each.default for key, each in parameters.items()}
    defaults = {key: asdict(value) if is_dataclass(value) else value for key, value in defaults.items()}
    assert config["loading"].pop("workers") in (0, 2)
    defaults["loading"].pop("workers")
    defaults = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    # A file may fill in what a class leaves open, and one of several files for a class says which.
    free = {key for key, value in defaults.items() if value is None or SHARED[target] > 1}
    assert {key for key in parameters if config[key] != defaults[key]} <= free


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_card_gives_the_licence_of_the_source(path):
    values = read_yaml(path)
    module, name = values["_target_"].rsplit(".", 1)
    source = getattr(getattr(importlib.import_module(module), name), "source", None)
    assert (
        values["card"]["licence"] == source.licence if source is not None else "user's own" in values["card"]["licence"]
    )
    assert {"title", "source", "size", "needs"} <= set(values["card"])
