"""Everything that README.md and docs/ show can be run as it stands there."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from polymamba.core import scans
from polymamba.core.scans import modes
from polymamba.engine.command_line.compose import compose
from polymamba.engine.command_line.compose_part import compose_part
from polymamba.engine.command_line.groups import Groups
from polymamba.engine.command_line.main import main
from polymamba.engine.conventions import find_published

ROOT = Path(__file__).resolve().parent.parent
README, USING, ADDING = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/using.md", "docs/adding.md")
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
HOW_TO_ADD = README.partition("## How to add")[2]
JOBS = {"train.py": "train", "eval.py": "evaluate", "predict.py": "predict"}
SMALL = ["trainer.steps=2", "trainer.progress=none", "trainer.threads=1", "trainer.pictures=false"]


def python(page: str) -> list[str]:
    return [code for language, code in BLOCK.findall(page) if language == "python"]


def commands(page: str) -> list[str]:
    """The commands of a page, without the two spaces and what follows them there."""
    lines = [line.removeprefix(".venv/bin/python ") for _, code in BLOCK.findall(page) for line in code.splitlines()]
    return [re.split(r"(?<!\.py) {2,}", line)[0] for line in lines if line.startswith(tuple(JOBS))]


def words(command: str) -> list[str]:
    return shlex.split(command.replace("<run>", "some").replace("runs/…/", "runs/nlp/mamba_lm/").replace(" …", ""))


@pytest.fixture
def published(monkeypatch):
    """A small model in place of one from the hub."""
    from polymamba.domains.nlp import checkpoints
    from polymamba.domains.nlp.models import LanguageModel

    torch.manual_seed(0)
    monkeypatch.setattr(checkpoints, "load_pretrained", lambda name: LanguageModel(50277, d_model=16, n_layer=2))


def run_in_order(page: str) -> dict:
    from polymamba import compat

    names: dict[str, object] = {}
    try:
        for code in python(page):
            exec(compile(code, "page.md", "exec"), names)
    finally:
        compat.uninstall()
    return names


def test_the_code_of_the_readme_runs():
    assert run_in_order(README)["y"].shape == (8, 140, 64)


def test_the_code_of_the_library_page_runs_from_top_to_bottom(published):
    names = run_in_order(USING)
    assert len(python(USING)) >= 5
    assert names["y"].shape == (8, 140, 64)
    assert names["matrix"].shape == (1, 128, 140, 140)
    length = len(names["ids"][0])
    assert names["flow"].shape == (1, length, length)
    assert names["model"].num_classes == 1000


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run of each domain, trained for two steps, and a photo."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "sums.txt").write_text("".join(f"{i} and {i} make {2 * i}.\n" for i in range(200)))
    texts = ["domain=nlp", "data=text_file", f"data.files={folder / 'sums.txt'}", "data.length=32", "task.sample=0"]
    Image.fromarray(np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)).save(folder / "photo.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        sized = ["model.n_layer=1", "model.d_model=16"]
        assert main([*texts, *sized, *SMALL, "run_dir=runs/nlp/mamba_lm/some"]) == 0
        assert main(["model.depth=1", "data.limit=20", *SMALL, "run_dir=runs/vision/vim/some"]) == 0
    return folder


def test_the_commands_are_found():
    assert len(commands(README)) == 5
    assert len(commands(USING)) >= 13
    assert {words(command)[0] for command in commands(USING)} == set(JOBS)


@pytest.mark.parametrize("command", sorted({*commands(README), *commands(USING)}))
def test_a_command_is_understood(command, runs, monkeypatch, capsys):
    """Those of a run that is there are carried out; the others are read and their settings composed."""
    monkeypatch.chdir(runs)
    program, *typed = words(command)
    if "state-spaces/" in command or "hustvl/" in command:
        file, _ = find_published(typed[0].partition("=")[2], None, Groups())
        if program == "predict.py":
            assert compose_part("predict", file.domain, typed[1:])["prompt"]
        else:
            assert compose([f"domain={file.domain}", *typed[1:]]).data
    elif program != "train.py" or "resume=" in command or {"--help", "--cfg", "--list"} & set(typed):
        small = ["trainer.threads=1"] if program != "train.py" else []
        assert main([*typed, *small], job=JOBS[program]) == 0
    elif "-m" in typed:
        for scan in typed[1].partition("=")[2].split(","):
            assert compose([f"scan={scan}"]).scan["name"] == scan
    else:
        domain = ["domain=nlp"] if "init=" in command else []
        assert compose([*domain, *typed]).trainer.epochs
    assert "Traceback" not in capsys.readouterr().err


def test_every_page_and_file_that_is_linked_is_there():
    for page, folder in ((README, ROOT), (USING, ROOT / "docs"), (ADDING, ROOT / "docs")):
        for target in re.findall(r"\]\((?!http)([^)#]+)", page):
            assert (folder / target).exists(), target


# How to add


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The files of docs/adding.md in a temporary folder, whose modules can be imported; only there."""
    for _, code in BLOCK.findall(ADDING):
        named = next(line for line in code.splitlines() if "@package" not in line)
        file = tmp_path / named.removeprefix("# ")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("my_package", "my_data", "my_task", "polymamba.core.scans.serpentine"):
        sys.modules.pop(name, None)


def typed_for(word: str) -> list[str]:
    """The arguments of the one command for it, which README and docs/adding.md give alike."""
    found = {command for page in (HOW_TO_ADD, ADDING) for command in re.findall(rf"`train\.py ([^`]*{word})`", page)}
    assert len(found) == 1
    [command] = found
    assert f"`train.py {command}`" in HOW_TO_ADD
    assert f"`train.py {command}`" in ADDING
    return shlex.split(command)


def columns_of_metrics(folder: Path) -> list[str]:
    return (folder / "some" / "metrics.csv").read_text().splitlines()[0].split(",")


def test_a_scan_is_added(own, monkeypatch):
    file = own / "core" / "scans" / "serpentine.py"
    spec = importlib.util.spec_from_file_location("polymamba.core.scans.serpentine", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    [line] = re.findall(r'`"serpentine": (Mode\(.*?\))`', ADDING)
    monkeypatch.setitem(modes.MODES, "serpentine", eval(line, {"Mode": modes.Mode, "serpentine": module}))
    assert scans.get("serpentine").order((2, 3)).tolist() == [[0, 1, 2, 5, 4, 3]]
    assert main([f"--config-dir={own / 'configs'}", *typed_for("serpentine"), "run_dir=some", *SMALL]) == 0


def test_a_model_is_added(own, capsys):
    typed = [*typed_for("my_net"), "model.width=32", "run_dir=some", *SMALL]
    assert main(typed) == 0
    assert "val/accuracy" in columns_of_metrics(own)
    assert main(["--config-dir=mine", "--list", "my_net"]) == 0
    assert "my_net: Two layers" in capsys.readouterr().out
    assert main([*typed, "model.width=narrow"]) == 2


def test_a_data_set_is_added(own):
    assert main([*typed_for("stripes"), "run_dir=some", *SMALL]) == 0
    assert "test/accuracy" in columns_of_metrics(own)


def test_a_domain_is_added(own):
    options = [*typed_for("lines"), "run_dir=some", *SMALL]
    assert main(options) == 0
    assert "test/loss" in columns_of_metrics(own)
    allowed = [word for word in options if word.startswith("--")]
    assert main([*allowed, "ckpt=some"], job="evaluate") == 0
    assert main([*allowed, "resume=some", "trainer.steps=4"]) == 0
