import sys

import pytest
from torch import nn

from polymamba.core.errors import UserError
from polymamba.engine.training.targets import build, resolve

HOSTILE = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "polymamba.engine.training.environment.subprocess.run",
    "polymamba.core.errors.difflib.get_close_matches",
    "polymamba.core.errors.closest.__globals__",
    "polymamba.data.files.os.system",
    "polymamba.coreos.system",
    "torch.load",
    "torch.hub.load",
    "torch.nn.modules.module.warnings.warn",
    "timm.models.load_checkpoint",
    "",
    "system",
    "torch.nn",
    "torch.nn.Linear; import os",
]


@pytest.mark.parametrize("target", HOSTILE)
def test_targets_that_are_refused(target):
    with pytest.raises(UserError):
        build({"_target_": target, "command": "exit 1"})


def test_what_is_refused_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "hostile_module.py").write_text("open('was_here', 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        build({"_target_": "hostile_module.anything"})
    assert "hostile_module" not in sys.modules
    assert not (tmp_path / "was_here").exists()


def test_a_nested_target_is_refused_too():
    with pytest.raises(UserError):
        build({"_target_": "torch.nn.Sequential", "args": [{"_target_": "os.getcwd"}]})


def test_builds_with_what_is_offered_and_without_labels():
    layer = build(
        {"_target_": "torch.nn.Linear", "name": "a label", "domains": ["elsewhere"], "in_features": 3}, out_features=2
    )
    assert isinstance(layer, nn.Linear)
    assert layer.weight.shape == (2, 3)


def test_unknown_and_missing_keys_are_named():
    with pytest.raises(UserError, match="do:      in_features=3"):
        build({"_target_": "torch.nn.Linear", "in_feature": 3, "out_features": 2})
    with pytest.raises(UserError, match=r"needs more keys[\s\S]*out_features"):
        build({"_target_": "torch.nn.Linear", "in_features": 3})


def test_timm_create_model_is_on_the_list():
    import timm

    assert resolve("timm.create_model") is timm.create_model


UNPICKLES = {
    "timm.create_model": {"model_name": "resnet10t", "checkpoint_path": "weights.pth"},
    "timm.create_model ": {"model_name": "resnet10t", "pretrained_cfg_overlay": {"file": "weights.bin"}},
    "timm.create_model  ": {"model_name": "resnet10t", "pretrained_cfg": {"url": "https://example.org/weights.pth"}},
    "torch.nn.ModuleList": {"modules": [{"_target_": "torch.load", "f": "weights.pth"}]},
    "torch.load": {"f": "weights.pth", "weights_only": False},
    "torch.jit.load": {"f": "weights.pth"},
    "torch.serialization.load": {"f": "weights.pth"},
    "pickle.loads": {"data": "..."},
    "pickle.Unpickler": {"file": "weights.pth"},
    "joblib.load": {"filename": "weights.joblib"},
    "numpy.load": {"file": "weights.npy", "allow_pickle": True},
}


@pytest.mark.parametrize("target", UNPICKLES)
def test_nothing_is_unpickled_whatever_is_allowed(target):
    with pytest.raises(UserError, match="may not name a file to unpickle"):
        build({"_target_": target.strip(), **UNPICKLES[target]}, ("torch", "pickle", "joblib", "numpy"))


def test_a_target_that_unpickles_under_another_name_is_refused(tmp_path, monkeypatch):
    (tmp_path / "harmless_module.py").write_text("from pickle import loads as read\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="may not name a file to unpickle"):
        resolve("harmless_module.read", ("harmless_module", "_pickle"))


def test_what_a_target_objects_to_is_said_in_one_line_with_the_setting():
    with pytest.raises(UserError) as refused:
        build({"_target_": "timm.create_model", "model_name": "resnet_nope", "num_classes": 3}, path="model")
    assert refused.value.problem.startswith(
        "timm.create_model cannot be built: RuntimeError: Unknown model (resnet_nope) ("
    )
    assert refused.value.given == "model.model_name=resnet_nope"
    with pytest.raises(UserError) as refused:
        build(
            {
                "_target_": "torch.nn.ModuleList",
                "modules": {"_target_": "torch.nn.Linear", "in_features": "a", "out_features": 2},
            }
        )
    assert refused.value.given == "modules.in_features=a modules.out_features=2"
