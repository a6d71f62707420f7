"""What a user may write: names, joined names, parameters; and the errors."""

import re
from importlib import resources

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from polymamba.core import scans
from polymamba.core.errors import UserError
from polymamba.core.scans.modes import MODES

CONFIGS = {file.name.removesuffix(".yaml"): file for file in (resources.files("polymamba.configs") / "scan").iterdir()}


def test_every_mode_has_a_config_and_every_config_a_mode():
    assert set(CONFIGS) == set(scans.names())


@pytest.mark.parametrize("name", scans.names())
def test_a_config_holds_the_parameters_and_their_defaults(name):
    config = OmegaConf.to_container(OmegaConf.create(CONFIGS[name].read_text(encoding="utf-8")))
    assert config.pop("name") == name
    card = config.pop("card")
    assert (card["paper"], card["axes"]) == (MODES[name].paper, list(MODES[name].ndims))
    defaults = {key: parameter.default for key, parameter in MODES[name].parameters.items()}
    assert config == {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    assert scans.get(name, **config) == scans.get(name)


def test_values_as_omegaconf_holds_them():
    config = OmegaConf.create({"_target_": "polymamba.core.scans.get", "name": "local", "window": [1, 7, 7]})
    assert instantiate(config) == scans.get("local", window=(1, 7, 7))


def test_joined_modes_walk_all_paths_in_turn():
    joined = scans.get("raster+hilbert+cross")
    sizes = (4, 6)
    parts = [scans.get(name).order(sizes) for name in ("raster", "hilbert", "cross")]
    assert torch.equal(joined.order(sizes), torch.cat(parts))
    assert (joined.paths(2), joined.name, joined.ndims) == (9, "raster+hilbert+cross", (2, 3))
    assert joined.paper.count(";") >= 2
    assert scans.get(" raster + hilbert+cross ") == joined


def test_joined_paths_of_different_lengths_are_filled_up():
    order = scans.get("raster+skip").order((2, 3)).tolist()
    assert order == [[0, 1, 2, 3, 4, 5], [0, 2, -1, -1, -1, -1], [3, 5, -1, -1, -1, -1], [1] + [-1] * 5, [4] + [-1] * 5]


def test_parameters_go_to_every_mode_that_has_them():
    joined = scans.get("raster+local+local_flip+hilbert", window=4, paths=2)
    assert joined.parameters == {"window": 4, "flip": False, "paths": 2}
    assert joined.name == "raster+local+local_flip+hilbert"
    assert scans.get(joined.name, **joined.parameters) == joined


def test_brackets_give_a_mode_its_own_parameters():
    joined = scans.get("local(window=2)+local+local_flip(window=(3, 4))", window=5)
    sizes = (6, 7)
    expected = [
        scans.get("local", window=2),
        scans.get("local", window=5),
        scans.get("local_flip", window=(3, 4)),
    ]
    assert torch.equal(joined.order(sizes), torch.cat([scan.order(sizes) for scan in expected]))
    assert "window" not in joined.parameters
    assert scans.get(joined.name, **joined.parameters) == joined
    assert scans.get("local(flip=true)") == scans.get("local", flip=True)


def test_joined_layers():
    joined = scans.get("zigzag+raster+mamba_nd")
    assert joined.layers == 24
    for layer in (0, 5, 11):
        of_layer = joined.layer(layer).order((4, 5))
        zigzag, nd = scans.get("zigzag").order((4, 5)), scans.get("mamba_nd").order((4, 5))
        expected = torch.stack([zigzag[layer % 8], torch.arange(20, dtype=torch.int32), nd[layer % 4]])
        assert torch.equal(of_layer, expected)


def test_joined_modes_that_share_no_grid():
    joined = scans.get("diagonal+slices")
    assert joined.ndims == ()
    with pytest.raises(UserError, match="no grid") as error:
        joined.order((4, 4))
    assert "its parts share none" in error.value.allowed


def test_a_scan_stays_as_it_is():
    scan = scans.get("skip", step=3)
    assert scans.get(scan) is scan
    with pytest.raises(UserError, match="already made"):
        scans.get(scan, step=2)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("hilbrt", "hilbert"),
        ("bidirection", "bidirectional"),
        ("raster+zigzagg", "zigzag"),
        ("Cross", "cross"),
        ("local-flip", "local_flip"),
        ("continous(x=1)", "continuous"),
    ],
)
def test_an_unknown_scan_names_the_nearest_and_all(name, nearest):
    with pytest.raises(UserError, match=re.escape(f"Did you mean scan={nearest}?")) as error:
        scans.get(name)
    assert error.value.given == f"scan={name}"
    assert set(scans.names()) <= set(error.value.allowed)


@pytest.mark.parametrize(
    "name", ["", "+", "raster+", "3", "raster raster", "raster*2", "f'x'", "()", "x" * 50, None, 3, ["raster"]]
)
def test_nonsense_is_refused(name):
    with pytest.raises(UserError, match="There is no scan named"):
        scans.get(name)


@pytest.mark.parametrize(
    ("name", "parameters", "nearest"),
    [
        ("local", {"windw": 4}, "window=4"),
        ("skip", {"steps": 3}, "step=3"),
        ("raster+local", {"windows": 4}, "window=4"),
    ],
)
def test_an_unknown_parameter_names_the_nearest(name, parameters, nearest):
    with pytest.raises(UserError, match="has no parameter") as error:
        scans.get(name, **parameters)
    assert error.value.do == f"Did you mean {nearest}?"


def test_parameters_in_brackets_are_checked_too():
    with pytest.raises(UserError, match="'local' has no parameter 'windoww'"):
        scans.get("raster+local(windoww=3)")
    with pytest.raises(UserError, match="'raster' has no parameter 'window'") as error:
        scans.get("raster(window=3)+local")
    assert error.value.allowed == "no parameters at all"
    for written in ("local(4)", "local(window=x)", "local(**{'window': 3})"):
        with pytest.raises(UserError):
            scans.get(written)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("local", {"window": 0}),
        ("local", {"window": -2}),
        ("local", {"window": 2.0}),
        ("local", {"window": "7"}),
        ("local", {"window": None}),
        ("local", {"window": True}),
        ("local", {"window": ()}),
        ("local", {"window": (2, 0)}),
        ("local", {"window": [2, "3"]}),
        ("local", {"flip": 1}),
        ("local", {"flip": "yes"}),
        ("skip", {"step": 0}),
        ("skip", {"step": [2, 2]}),
        ("hilbert", {"paths": 3}),
        ("hilbert", {"paths": True}),
        ("local(window=0)", {}),
    ],
)
def test_a_wrong_value_says_what_is_allowed(name, parameters):
    with pytest.raises(UserError, match="cannot take this value") as error:
        scans.get(name, **parameters)
    assert error.value.allowed
    assert error.value.do.startswith("Leave it out")
