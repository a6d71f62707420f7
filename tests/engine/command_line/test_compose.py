import pytest

from polymamba.core.errors import UserError
from polymamba.engine.command_line import signature
from polymamba.engine.command_line.compose import compose
from polymamba.engine.command_line.config import Config
from polymamba.engine.command_line.groups import Groups

SHIPPED = Groups()


@pytest.mark.parametrize("group", ["data", "model", "optimizer", "logger", "debug", "experiments"])
def test_every_shipped_option_fits_its_schema_and_its_target(group):
    for name in SHIPPED.options(group):
        [domain, *_] = SHIPPED.read(group, name).get("domains", ["vision"])
        config = compose([f"{group}={name}", *([f"domain={domain}"] if group != "experiments" else [])])
        assert Config.from_plain(config.plain()) == config


def test_nothing_typed_is_vim_on_digits():
    config = compose([])
    assert (config.domain, config.model["name"], config.data["name"], config.scan["name"]) == (
        "vision", "vim", "digits", "bidirectional",
    )  # fmt: skip


def test_arguments_in_any_order():
    typed = ["domain=vision", "model=vim", "data=cifar10", "scan=local", "scan.window=4"]
    config = compose(typed)
    assert config == compose(typed[::-1])
    assert (config.data["name"], config.scan["name"], config.scan["window"]) == ("cifar10", "local", 4)


def test_recipe_follows_the_data_and_the_command_line_beats_it():
    digits, cifar = compose([]), compose(["data=cifar10"])
    assert digits.trainer.epochs != cifar.trainer.epochs
    assert compose(["data=cifar10", "trainer.epochs=7"]).trainer.epochs == 7


def test_a_data_set_brings_what_goes_with_it_unless_something_else_is_typed(tmp_path):
    config = compose(["domain=nlp", "data=trec"])
    assert (config.task["name"], config.scan["name"]) == ("text_classification", "bidirectional")
    assert compose(["domain=nlp", "data=trec", "scan=raster"]).scan["name"] == "raster"
    assert compose(["domain=nlp", "data=trec", "task=language_modelling"]).task["name"] == "language_modelling"
    assert compose(["domain=nlp"]).scan is None
    (tmp_path / "mine.yaml").write_text(
        "defaults:\n  - override /domain: nlp\n  - override /data: trec\n  - override /scan: cross\n"
        "  - override /task: text_classification\n"
    )
    assert compose(["experiments=mine"], Groups(experiments=tmp_path)).scan["name"] == "cross"


def test_an_experiment_beats_the_domain_and_debug_beats_it(tmp_path):
    (tmp_path / "reproduced.yaml").write_text(
        "defaults:\n  - override /scan: cross\ntrainer:\n  epochs: 123\n  steps: 9\n", encoding="utf-8"
    )
    groups = Groups(experiments=tmp_path)
    config = compose(["experiments=reproduced"], groups)
    assert (config.scan["name"], config.trainer.epochs, config.trainer.steps) == ("cross", 123, 9)
    assert compose(["debug=fast", "experiments=reproduced"], groups).trainer.steps == 1


def test_two_files_of_one_name_are_refused(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "vim.yaml").write_text("name: vim\n")
    with pytest.raises(UserError, match="two files define model=vim"):
        Groups([tmp_path])


def test_signatures_are_read_through_forwarding_and_inheritance(tmp_path, monkeypatch):
    (tmp_path / "shapes.py").write_text(
        "class Base:\n    def __init__(self, width: int, *, kind: str | None = None): ...\n"
        "class Child(Base): ...\n"
        "class Wider(Base):\n    def __init__(self, depth: float = 1.0, **rest):\n        super().__init__(**rest)\n"
        "def build(size: int = 1, **options):\n    return Wider(**options)\n"
        "def loose(**anything):\n    return dict(anything)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert signature.of("shapes.Child").parameters == {"width": int, "kind": str | None}
    assert signature.of("shapes.build").parameters == {"size": int, "depth": float, "width": int, "kind": str | None}
    assert not signature.of("shapes.build").open
    assert signature.of("shapes.loose").open
    assert signature.of("shapes.nothing") is None
    assert signature.of("no_such_package.thing") is None
