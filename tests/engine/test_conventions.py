"""What is found of a domain: its predict.yaml, its published.py, and what is never taken for published weights."""

import sys

import pytest

from polymamba.core.errors import UserError
from polymamba.engine.command_line import signature
from polymamba.engine.command_line.comments import comments
from polymamba.engine.command_line.compose_part import compose_part
from polymamba.engine.command_line.groups import CONFIGS, Groups
from polymamba.engine.command_line.options import Options
from polymamba.engine.conventions import find_published, may_be_published, predict_files, published
from polymamba.engine.training.summary import predict_example

FILES = sorted(CONFIGS.glob("*/predict.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_every_option_of_a_domain_is_a_parameter_with_its_default_and_is_explained(path):
    [file] = predict_files(Groups(), path.parent.name)
    found = signature.of(file.target)
    assert list(file.options) == [name for name in found.parameters if name != "run"]
    assert compose_part("predict", file.domain, []) == {"_target_": file.target, **file.options}
    assert set(comments(path)) == set(file.options)
    compose_part("predict", file.domain, predict_example(file.domain, Options(())))


def test_there_are_domains_that_answer():
    assert len(FILES) >= 2
    assert [file.domain for file in predict_files(Groups())] == [path.parent.name for path in FILES]
    with pytest.raises(UserError, match="answers nothing"):
        predict_files(Groups(), "nothing_here")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A domain's package that knows files that end in .mine."""
    folder = tmp_path / "package" / "knowing"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "published.py").write_text("def is_published(where):\n    return where.endswith('.mine')\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.chdir(tmp_path)
    yield "knowing.predict.predict"
    for name in ("knowing", "knowing.published"):
        sys.modules.pop(name, None)


def test_published_stands_beside_what_is_named(package, tmp_path):
    for name in ("some.mine", "some.other"):
        (tmp_path / name).touch()
    assert published("some.mine", package, ["knowing"]) == "knowing.published"
    assert published("some.other", package, ["knowing"]) is None
    assert published("some.mine", "elsewhere.predict.predict", ["elsewhere"]) is None
    assert published("gone.mine", package, ["knowing"]) is None, "neither there nor a hub's name"
    assert published("owner/gone.mine", package, ["knowing"]) == "knowing.published"
    with pytest.raises(UserError, match="_target_"):
        published("some.mine", package)
    assert find_published("some.mine", None, Groups()) is None


@pytest.mark.parametrize(
    ("made", "where", "may_be"),
    [
        (["run/config.yaml"], "run", False),
        (["run/checkpoints/last/manifest.json"], "run/checkpoints", False),
        (["run/checkpoints/last/manifest.json"], "run/checkpoints/last", False),
        (["last/manifest.json", "last/weights.safetensors"], "last/weights.safetensors", False),
        (["a/b/c/checkpoints/x"], "a", False),
        (["folder/weights.bin"], "folder", True),
        (["weights.bin"], "weights.bin", True),
        ([], "owner/name", True),
        ([], "runs/name", False),
        (["mine/x"], "mine/gone", False),
        ([], "gone", False),
        ([], "a/b/c", False),
        ([], "../gone", False),
        ([], "x" * 5000, False),
    ],
)
def test_runs_are_not_taken_for_published_weights(tmp_path, monkeypatch, made, where, may_be):
    monkeypatch.chdir(tmp_path)
    for each in made:
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / each).touch()
    assert may_be_published(where) is may_be
