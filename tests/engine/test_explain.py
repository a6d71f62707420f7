"""predict.py with explain=: a picture in the run's folder; mistakes end with code 2 and a message."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from polymamba.core.errors import UserError
from polymamba.domains.nlp.explanation import explain_next_token
from polymamba.domains.nlp.models.build import build as build_text_model
from polymamba.domains.vision.models.vim import build as build_vim
from polymamba.engine.checkpoints import folder as files
from polymamba.engine.command_line.compose import compose
from polymamba.engine.command_line.config import SCHEMA_VERSION
from polymamba.engine.explain import read_prompt

LANGUAGE_MODEL = {"size": "micro", "d_model": 32, "n_layer": 2, "mixer": "mamba3", "attention_every": 2}
VIM = {"embed_dim": 16, "depth": 2, "patch_size": 2}


@pytest.fixture
def write_run(groups, tmp_path):
    """Writes a run folder with a model that nobody trained."""

    def write(data, target, options, task, model):
        values = compose(["domain=toy"], groups, ["toy"]).plain()
        values |= {"data": data, "model": {"_target_": target, "name": "model", **options}, "task": {"_target_": task}}
        values["scan"] = {"name": "raster"}
        values["trainer"]["accelerator"] = "cpu"
        last = files.write(tmp_path / "run" / "checkpoints", 1, model.state_dict(), {}, {})
        files.point(tmp_path / "run" / "checkpoints", "last", last)
        OmegaConf.save(OmegaConf.create({"schema_version": SCHEMA_VERSION, **values}), tmp_path / "run" / "config.yaml")
        return model

    return write


@pytest.fixture
def language_model(write_run):
    import toy

    torch.manual_seed(0)
    model = build_text_model(toy.Sentences().describe(), **LANGUAGE_MODEL)
    task = "polymamba.domains.nlp.language_modelling.LanguageModelling"
    data = {"_target_": "toy.Sentences", "name": "toy_text"}
    return write_run(data, "polymamba.domains.nlp.models.build.build", LANGUAGE_MODEL, task, model)


@pytest.fixture
def vim(write_run):
    import toy

    torch.manual_seed(0)
    model = build_vim({**toy.Points().describe(), "image_size": (2, 2)}, scan="raster", **VIM)
    task = "polymamba.domains.vision.classification.Classification"
    data = {"_target_": "toy.Points", "name": "toy_points"}
    return write_run(data, "polymamba.domains.vision.models.vim.build", VIM, task, model)


@pytest.mark.parametrize("method", ["raw", "rollout", "attribution"])
def test_a_text(language_model, command, tmp_path, method):
    import toy

    code, printed, message = command("ckpt=run", "prompt=a = b", f"explain={method}", job="predict")
    assert (code, message) == (0, "")
    figure, said = explain_next_token(language_model, toy.Bytes(), "a = b", method)
    assert f"answer   {said}\n" in printed
    assert f"run/explained_{method}.png" in printed
    figure.savefig(tmp_path / "expected.png")
    with Image.open(tmp_path / "run" / f"explained_{method}.png") as found, Image.open("expected.png") as expected:
        assert found.tobytes() == expected.tobytes()


def test_images(vim, command, tmp_path):
    code, printed, message = command("ckpt=run", "explain=attribution", job="predict")
    assert (code, message) == (0, "")
    assert "of 4 test images right" in printed
    with Image.open(tmp_path / "run" / "explained_attribution.png") as found:
        assert found.size[0] > 300


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["explain=atribution", "prompt=x"], "explain=attribution"),
        (["explain=", "prompt=x"], "unknown method"),
        (["explain=raw"], 'prompt="..."'),
        (["explain=raw", "promt=x"], "prompt=x"),
        (["explain=raw", "prompt=x", "temperature=0"], "no key 'temperature'"),
        (["explain=raw", "hello"], 'prompt="hello"'),
        (["explain=raw", "prompt=x", "data.length=3"], "given by the weights"),
    ],
)
def test_mistakes(language_model, command, tmp_path, arguments, said):
    code, printed, message = command("ckpt=run", *arguments, job="predict")
    assert (code, printed) == (2, "")
    assert said in message
    assert "Traceback" not in message
    assert not list((tmp_path / "run").glob("*.png"))


def test_a_run_without_such_a_picture(command):
    assert command("domain=toy", "trainer.progress=none", "data.samples=20", "run_dir=other", "debug=fast")[0] == 0
    code, _, message = command("ckpt=other", "explain=raw", job="predict")
    assert code == 2
    assert "no picture" in message


def test_what_may_be_typed():
    assert read_prompt([]) == ""
    assert read_prompt(["prompt=a=b c\n"]) == "a=b c\n"
    with pytest.raises(UserError, match="explain"):
        read_prompt(["explan=raw"])


def test_help_names_the_key_and_its_methods(command):
    code, printed, _ = command("--help", job="predict")
    assert code == 0
    for word in ("explain=attribution", "rollout", "raw"):
        assert word in printed
