import pytest

from polymamba.core.errors import UserError
from polymamba.engine.command_line import signature
from polymamba.engine.command_line.comments import option_comments
from polymamba.engine.command_line.compose import check, compose
from polymamba.engine.command_line.compose_part import compose_part
from polymamba.engine.command_line.config import Config
from polymamba.engine.command_line.groups import Groups
from polymamba.engine.command_line.part_keys import lifted

SHIPPED = Groups()
USUAL = SHIPPED.domain_of(None)


@pytest.mark.parametrize("domain", SHIPPED.domains)
@pytest.mark.parametrize("group", ["data", "model", "task", "optimizer", "logger", "debug", "experiments"])
def test_every_shipped_option_fits_its_schema_and_its_target(domain, group):
    for name in SHIPPED.options(group, domain):
        config = compose([f"{group}={name}", *([f"domain={domain}"] if group != "experiments" else [])])
        assert config.domain == domain
        assert Config.from_plain(config.plain()) == config
        assert not {"card", "defaults"} & {key for part in (config.data, config.model, config.task) for key in part}


@pytest.mark.parametrize("domain", SHIPPED.domains)
def test_a_domain_says_what_it_trains_where_nothing_else_is_typed(domain):
    config = compose([f"domain={domain}"])
    assert config.domain == domain
    assert all("_target_" in part for part in (config.data, config.model, config.task))
    assert compose([]).domain == USUAL


def written(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


NET = "_target_: own_parts.Net\nname: {}\ncard:\n  title: A net\n"
DATA = "_target_: own_parts.Data\nname: {}\n"
HEAD = "# @package _global_\n"
OWN = {
    "own/domain.yaml": HEAD
    + "defaults:\n  - override /model: net\n  - override /data: dots\n  - override /task: guess\n"
    "  - override /scan: cross\n",
    "own/model/net.yaml": NET.format("net") + "depth: 3\n",
    "own/data/dots.yaml": DATA.format("dots"),
    "own/data/lines.yaml": DATA.format("lines") + "choose: {task: count, scan: bidirectional}\n",
    "own/task/guess.yaml": "_target_: own_parts.Guess\nname: guess\n",
    "own/task/count.yaml": "_target_: own_parts.Guess\nname: count\n",
    "own/recipe/dots.yaml": HEAD + "trainer:\n  epochs: 3\n",
    "own/recipe/lines.yaml": HEAD + "trainer:\n  epochs: 5\n",
    "other/domain.yaml": HEAD
    + "defaults:\n  - override /model: plain\n  - override /data: dots\n  - override /task: guess\n",
    "other/model/plain.yaml": "_target_: own_parts.Plain\nname: plain\n",
    "other/data/dots.yaml": DATA.format("other_dots"),
    "other/task/guess.yaml": "_target_: own_parts.Guess\nname: other_guess\n",
}
PARTS = """
class Net:
    def __init__(self, describe, scan, depth: int = 2): ...

class Plain:
    def __init__(self, describe): ...

class Data: ...

class Guess:
    def __init__(self, model, describe): ...
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Composes from two domains of a folder, which may have more configs and experiments: own("domain=own", configs={...})."""
    (tmp_path / "own_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(*typed, configs=(), experiments=()):
        folder = written(tmp_path / "configs", {**OWN, **dict(configs)})
        return compose(typed, Groups([folder], written(tmp_path / "experiments", dict(experiments))), ["own_parts"])

    return run


def test_arguments_in_any_order(own):
    typed = ["domain=own", "model=net", "data=lines", "scan=local", "scan.window=4"]
    config = own(*typed)
    assert config == own(*typed[::-1])
    assert (config.data["name"], config.scan["name"], config.scan["window"]) == ("lines", "local", 4)


def test_recipe_follows_the_data_and_the_command_line_beats_it(own):
    assert own("domain=own").trainer.epochs == 3
    assert own("domain=own", "data=lines").trainer.epochs == 5
    assert own("domain=own", "data=lines", "trainer.epochs=7").trainer.epochs == 7


def test_a_data_set_brings_what_goes_with_it_unless_something_else_is_typed(own):
    config = own("domain=own", "data=lines")
    assert (config.task["name"], config.scan["name"]) == ("count", "bidirectional")
    assert own("domain=own", "data=lines", "scan=raster").scan["name"] == "raster"
    assert own("domain=own", "data=lines", "task=guess").task["name"] == "guess"
    assert own("domain=other").scan is None
    mine = "defaults:\n  - override /data: lines\n  - override /scan: cross\n  - override /task: count\n"
    assert own("experiments=mine", experiments={"own/mine.yaml": mine}).scan["name"] == "cross"


def test_a_task_brings_what_goes_with_it_and_beats_what_the_data_bring(own):
    more = {"own/task/sum.yaml": "_target_: own_parts.Guess\nname: sum\nchoose: {data: lines, scan: raster}\n"}
    config = own("domain=own", "task=sum", configs=more)
    assert (config.data["name"], config.task["name"], config.scan["name"]) == ("lines", "sum", "raster")
    assert own("domain=own", "task=sum", "data=lines", configs=more).scan["name"] == "raster"
    assert own("domain=own", "task=sum", "data=dots", configs=more).data["name"] == "dots"


def test_an_experiment_beats_the_domain_and_debug_beats_it(own):
    again = "defaults:\n  - override /scan: hilbert\ntrainer:\n  epochs: 123\n  steps: 9\n"
    config = own("experiments=again", experiments={"own/again.yaml": again})
    assert (config.scan["name"], config.trainer.epochs, config.trainer.steps) == ("hilbert", 123, 9)
    assert own("debug=fast", "experiments=again").trainer.steps == 1


def test_what_is_typed_beside_an_experiment_brings_what_goes_with_it_where_the_experiment_names_nothing(own):
    more = {"own/model/wide.yaml": NET.format("wide") + "choose: {scan: local}\n"}
    experiments = {
        "own/short.yaml": "trainer:\n  epochs: 9\n",
        "own/fixed.yaml": "defaults:\n  - override /scan: cross\n",
    }

    def scan(*typed):
        return own(*typed, configs=more, experiments=experiments).scan["name"]

    usual = scan("experiments=short")
    assert (usual, scan("experiments=short", "model=wide")) == (own("domain=own").scan["name"], "local")
    assert scan("experiments=short", "model=wide", "scan=raster") == "raster"
    assert scan("experiments=fixed", "model=wide") == "cross"
    config = own("experiments=short", "data=lines", experiments=experiments)
    assert (config.task["name"], config.scan["name"], config.trainer.epochs) == ("count", "bidirectional", 9)


def test_two_files_of_one_name_are_refused(own):
    twice = {"model/net.yaml": "name: net\n"}
    with pytest.raises(UserError, match="two files define model=net"):
        own("domain=own", configs=twice)
    assert own("domain=other", configs=twice).model["name"] == "plain"


def test_a_folder_adds_to_the_domain_that_runs_to_one_domain_and_a_whole_domain(own):
    more = {"model/everywhere.yaml": NET.format("everywhere"), "other/model/seen.yaml": NET.format("seen")}
    config = own("domain=own", configs=more)
    assert (config.domain, config.model["depth"], config.trainer.epochs) == ("own", 3, 3)
    assert "card" not in config.plain()["model"]
    assert own("model=everywhere", "scan=raster").domain == USUAL
    assert own("model=everywhere", "domain=own").model["name"] == "everywhere"
    assert own("model=seen", "domain=other", "scan=raster").model["name"] == "seen"
    with pytest.raises(UserError, match="belongs to other, not to own") as error:
        own("domain=own", "model=seen")
    assert error.value.do == "domain=other model=seen"


def test_an_experiment_brings_its_domain_unless_several_have_it(own):
    body = "seed: 7\n"
    names = (f"{USUAL}/mine", "own/mine", "own/one", "other/both", "own/both")
    experiments = {f"{name}.yaml": body for name in names}
    assert own("experiments=mine", experiments=experiments).domain == USUAL
    assert own("experiments=one").domain == "own"
    with pytest.raises(UserError, match="several domains have an experiment 'both'"):
        own("experiments=both")
    with pytest.raises(UserError, match="belongs to own, not to other"):
        own("domain=other", "experiments=one")


def test_what_runs_from_before_named_and_no_longer_name():
    values = compose([]).plain()
    values["model"]["domains"] = values["data"]["domains"] = [values["domain"]]
    assert check(values).model["name"] == values["model"]["name"]


NESTED = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Literal
from polymamba.core.ranges import Seed, Size, Threads

Kind = Literal["none", "light"]

@dataclass(frozen=True)
class Loading:
    batch_size: Size
    workers: int = 0
    seed: Seed = 0

@dataclass(frozen=True)
class Change:
    kind: Kind = "light"
    seed: Seed = 0
    strength: float | None = None

class Data:
    def __init__(self, loading: Loading, change: Change | None = None, root: str | None = None, count: Threads = 3): ...
"""


@pytest.fixture
def nested(tmp_path, monkeypatch):
    """A domain whose data have two nested parts; composes `data` from arguments."""
    (tmp_path / "nested_data.py").write_text(NESTED)
    monkeypatch.syspath_prepend(str(tmp_path))
    configs = written(
        tmp_path / "configs",
        {
            "batches.yaml": "batch_size: 32 # samples on each device\nworkers: 0\n",
            f"{USUAL}/data/parted.yaml": "defaults: [/batches@loading, _self_]\n_target_: nested_data.Data\nname: parted\n"
            "loading: {batch_size: 64}\nchange: {kind: light}\n",
        },
    )
    return lambda *typed: compose(["data=parted", *typed], Groups([configs]), ["nested_data"]).data


def test_a_key_of_a_nested_part_may_be_typed_without_the_part(nested):
    data = nested("data.batch_size=8", "data.loading.workers=2", "data.change=none", "data.strength=0.5")
    assert data["loading"] == {"batch_size": 8, "workers": 2}
    assert data["change"] == {"kind": "none", "strength": 0.5}
    assert nested("data.change=null")["change"] is None
    assert nested("data.loading={batch_size: 5}")["loading"] == {"batch_size": 5, "workers": 0}


WRONG = {
    "data.batch_size=0": "data.loading.batch_size is out of range",
    "data.change=lite": "no option 'lite'",
    "data.seed=1": "there is no key 'data.seed'",  # two parts have it
    "data.loading.batchsize=1": "data.loading.batch_size=1",
    "data.batchsize=1": "do:      data.batch_size=1",
    "data.loading=null": "wrong type",
    "data.count=0": "1 to 1,024",
}


@pytest.mark.parametrize("typed", WRONG)
def test_what_is_wrong_in_a_nested_part_is_said(typed, nested):
    with pytest.raises(UserError) as error:
        nested(typed)
    assert WRONG[typed] in str(error.value)


def test_a_flat_configuration_from_before_is_read_with_its_nested_parts(nested):
    flat = {
        "_target_": "nested_data.Data",
        "name": "parted",
        "batch_size": 4,
        "workers": 1,
        "change": "none",
        "root": None,
    }
    assert lifted({"data": flat, "seed": 1}) == {
        "seed": 1,
        "data": {"_target_": "nested_data.Data", "name": "parted", "loading": {"batch_size": 4, "workers": 1},
                 "change": {"kind": "none"}, "root": None},
    }  # fmt: skip
    now = nested()
    assert lifted({"data": now}) == {"data": now}
    values = compose([]).plain()
    assert check({**values, "data": flat}, ["nested_data"]).data["loading"] == {"batch_size": 4, "workers": 1}


def test_comments_of_a_shared_file_stand_at_its_keys(nested, tmp_path):
    place = tmp_path / "configs"
    said = option_comments(place / USUAL / "data" / "parted.yaml", [place])
    assert said["loading.batch_size"] == "samples on each device"


PREDICT = """
from typing import Annotated, Literal
from polymamba.core.ranges import Count, Range

def predict(run, text: str = "", input: str | None = None, top: Count = 5, share: Annotated[float, Range(0, 1, above=True)] = 0.9,
            explain: Literal["rollout", "raw"] | None = None): ...
"""


@pytest.fixture
def predicted(tmp_path, monkeypatch):
    (tmp_path / "own_predict.py").write_text(PREDICT)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = (
        "card: {rest: text}\n_target_: own_predict.predict\ntext: ''\ninput: null\ntop: 5\nshare: 0.9\nexplain: null\n"
    )
    own = {"own/domain.yaml": "card: {title: Own}\n", "own/predict.yaml": text}
    groups = Groups([written(tmp_path / "configs", own)])
    return lambda *typed: compose_part("predict", "own", typed, groups, ["own_predict"])


def test_a_part_is_its_file_with_what_is_typed(predicted):
    usual = {"_target_": "own_predict.predict", "text": "", "input": None, "top": 5, "share": 0.9, "explain": None}
    assert predicted() == usual
    assert predicted("text=def f(x): [a=1", "top=3") == {**usual, "text": "def f(x): [a=1", "top": 3}
    assert predicted("once upon") == predicted("once", "upon") == {**usual, "text": "once upon"}
    assert predicted("input=null", "explain=raw") == {**usual, "explain": "raw"}
    assert predicted("text=null")["text"] == "null"


@pytest.mark.parametrize(
    ("typed", "said"),
    [("tpo=3", "do:      top=3"), ("top=-1", "top is out of range"), ("share=0", "above 0, at most 1"), ("top=x", "wrong type"),
     ("explain=rew", "do:      explain=raw"), ("run=1", "there is no key 'run'"), ("card=1", "no key")],
)  # fmt: skip
def test_a_part_says_what_is_wrong_without_its_name(predicted, typed, said):
    with pytest.raises(UserError) as error:
        predicted(typed)
    assert said in str(error.value)
    assert "predict." not in str(error.value)


def test_a_text_that_a_space_tore_is_put_together_again_in_the_message(predicted):
    with pytest.raises(UserError) as error:
        predicted("text=once", "upon")
    assert error.value.do == 'text="once upon"'


def test_a_domain_without_the_part_says_so(tmp_path):
    groups = Groups([written(tmp_path, {"bare/domain.yaml": "card: {title: Bare}\n"})])
    with pytest.raises(UserError, match="bare has no predict"):
        compose_part("predict", "bare", [], groups)


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
