"""Everything that README.md shows can be run as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from polymamba.engine.command_line.compose import compose
from polymamba.engine.command_line.groups import Groups
from polymamba.engine.command_line.main import main
from polymamba.engine.conventions import find_published
from polymamba.engine.predict import read_options

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
COMMANDS = [
    line.removeprefix(".venv/bin/python ") for _, code in BLOCKS for line in code.splitlines() if ".py " in line
]
# what a command is followed by in the README: two spaces and what it does
COMMANDS = [
    re.split(r"(?<!\.py) {2,}", line)[0] for line in COMMANDS if line.startswith(("train.py", "eval.py", "predict.py"))
]
JOBS = {"train.py": "train", "eval.py": "evaluate", "predict.py": "predict"}
SMALL = ["trainer.steps=2", "trainer.progress=none", "trainer.threads=1", "trainer.pictures=false"]


@pytest.fixture
def published(monkeypatch):
    """A small model in place of one from the hub."""
    from polymamba.domains.nlp import checkpoints
    from polymamba.domains.nlp.models import LanguageModel

    torch.manual_seed(0)
    monkeypatch.setattr(checkpoints, "load_pretrained", lambda name: LanguageModel(50277, d_model=16, n_layer=2))


def test_the_python_code_runs_from_top_to_bottom(published):
    from polymamba import compat

    names: dict[str, object] = {}
    try:
        for code in PYTHON:
            exec(compile(code, "README.md", "exec"), names)
    finally:
        compat.uninstall()
    assert len(PYTHON) >= 5
    assert names["y"].shape == (8, 140, 64)
    assert names["matrix"].shape == (1, 128, 140, 140)
    length = len(names["ids"][0])
    assert names["flow"].shape == (1, length, length)
    assert names["model"].num_classes == 1000


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run of each domain, trained for two steps."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "sums.txt").write_text("".join(f"{i} and {i} make {2 * i}.\n" for i in range(200)))
    texts = ["domain=nlp", "data=text_file", f"data.files={folder / 'sums.txt'}", "data.length=32", "task.sample=0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        sized = ["model.n_layer=1", "model.d_model=16"]
        assert main([*texts, *sized, *SMALL, "run_dir=runs/nlp/mamba_lm/some"]) == 0
        assert main(["model.depth=1", "data.limit=20", *SMALL, "run_dir=runs/vision/vim/some"]) == 0
    return folder


def words(command):
    return shlex.split(command.replace("<run>", "some").replace("runs/…/", "runs/nlp/mamba_lm/").replace(" …", ""))


def test_the_commands_are_found():
    assert len(COMMANDS) >= 11
    assert {words(command)[0] for command in COMMANDS} == set(JOBS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(command, runs, monkeypatch, capsys):
    """Those of a run that is there are carried out; the others are read and their settings composed."""
    monkeypatch.chdir(runs)
    program, *typed = words(command)
    if "state-spaces/" in command:
        file, _ = find_published(typed[0].partition("=")[2], None, Groups())
        assert read_options(file, typed[1:])["prompt"]
    elif program != "train.py" or "resume=" in command or {"--help", "--cfg"} & set(typed):
        small = ["trainer.threads=1"] if program != "train.py" else []
        assert main([*typed, *small], job=JOBS[program]) == 0
    elif "-m" in typed:
        for scan in typed[1].partition("=")[2].split(","):
            assert compose([f"scan={scan}"]).scan["name"] == scan
    else:
        domain = ["domain=nlp"] if "init=" in command else []
        assert compose([*domain, *typed]).trainer.epochs
    assert "Traceback" not in capsys.readouterr().err
