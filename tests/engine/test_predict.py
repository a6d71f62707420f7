"""predict.py: a run's model goes on with a prompt; mistakes end with code 2 and a message."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from polymamba.core.errors import UserError
from polymamba.domains.nlp.generation import generate
from polymamba.domains.nlp.models.build import build
from polymamba.engine.checkpoints import folder as files
from polymamba.engine.command_line.compose import compose
from polymamba.engine.command_line.config import SCHEMA_VERSION
from polymamba.engine.predict import Wanted, read_wanted

HERE = Path(__file__).resolve().parent
MODEL = {"size": "micro", "d_model": 32, "n_layer": 2, "tie_embeddings": False}


@pytest.fixture
def run(command, groups, tmp_path):
    """A run folder with a language model that nobody trained, and the model."""
    import toy

    values = compose(["domain=toy"], groups, ["toy"]).plain()
    values["data"] = {"_target_": "toy.Sentences", "name": "toy_text"}
    values["model"] = {"_target_": "polymamba.domains.nlp.models.build.build", "name": "mamba_lm", **MODEL}
    values["trainer"]["accelerator"] = "cpu"
    torch.manual_seed(0)
    model = build(toy.Sentences().describe(), **MODEL)
    folder = tmp_path / "run"
    last = files.write(folder / "checkpoints", 1, model.state_dict(), {}, {})
    files.point(folder / "checkpoints", "last", last)
    OmegaConf.save(OmegaConf.create({"schema_version": SCHEMA_VERSION, **values}), folder / "config.yaml")
    return model


def test_it_writes_the_prompt_and_the_models_text(run, command):
    import toy

    code, printed, message = command("ckpt=run", "prompt=a = b", "max_new_tokens=30", "seed=4", job="predict")
    expected = generate(
        run, "a = b", toy.Bytes(), max_new_tokens=30, seed=4, temperature=0.8, top_p=0.95
    ).texts[0]  # fmt: skip
    assert (code, message) == (0, "")
    assert printed == f"a = b{expected}\n"
    assert len(expected) > 5


def test_without_a_prompt_a_document_begins(run, command):
    code, printed, _ = command("ckpt=run", "max_new_tokens=5", "temperature=0", job="predict")
    assert code == 0
    assert printed.endswith("\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prompt=x"], "predict.py ckpt="),
        (["ckpt=nowhere"], "no such run"),
        (["ckpt=run", "promt=x"], "prompt=x"),
        (["ckpt=run", "hello"], 'prompt="hello"'),
        (["ckpt=run", "temperature=-1"], "temperature is out of range"),
        (["ckpt=run", "top_p=high"], "top_p has the wrong type"),
        (["ckpt=run", "top_k=1.5"], "top_k has the wrong type"),
        (["ckpt=run", "data.length=3"], "given by the weights"),
    ],
)
def test_mistakes(run, command, arguments, message):
    code, printed, said = command(*arguments, job="predict")
    assert code == 2
    assert message in said
    assert printed == ""
    assert "Traceback" not in said


def test_a_run_that_is_no_language_model(command):
    assert command("domain=toy", "trainer.progress=none", "data.samples=20", "run_dir=other", "debug=fast")[0] == 0
    code, _, message = command("ckpt=other", "prompt=x", job="predict")
    assert code == 2
    assert "not a language model" in message


def test_what_may_be_typed():
    assert read_wanted([]) == Wanted()
    wanted = read_wanted(["prompt=a=b c\n", "max_new_tokens=null", "temperature=1", "top_p=1e-3", "stop=", "seed=7"])
    assert (wanted.prompt, wanted.max_new_tokens, wanted.temperature, wanted.top_p) == ("a=b c\n", None, 1.0, 1e-3)
    assert (wanted.stop, wanted.seed) == ("", 7)
    with pytest.raises(UserError, match="max_new_tokens"):
        read_wanted(["max_new_tokens=0"])


def test_help_names_every_key(command):
    code, printed, _ = command("--help", job="predict")
    assert code == 0
    assert [name for name in Wanted.__dataclass_fields__ if f"\n  {name}" not in printed] == []
    assert "\\n" in printed


@pytest.mark.slow
def test_the_command_itself(run, tmp_path):
    options = [f"--config-dir={HERE / 'stand_ins' / 'configs'}", "--allow=toy"]
    done = subprocess.run(
        [sys.executable, str(HERE.parents[1] / "predict.py"), *options, "ckpt=run", "prompt=é", "max_new_tokens=9"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(HERE / "stand_ins")}, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("é".encode())
