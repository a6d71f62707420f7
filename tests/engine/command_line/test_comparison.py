import csv
import json

import pytest
import yaml

from polymamba.core.errors import UserError
from polymamba.engine.command_line import comparison
from polymamba.engine.command_line.comparison import Comparison, figures

TABLE = {
    "rows": {"Wide net": "model.hidden=8", "Narrow": "model.hidden=2"},
    "columns": {"Loss": "loss", "Steps": "steps"},
}


@pytest.fixture
def experiment(tmp_path):
    """Writes an experiment of the toy domain with a table: experiment(rows=...) -> what is typed."""

    def write(**table):
        folder = tmp_path / "mine" / "toy" / "experiments"
        folder.mkdir(parents=True, exist_ok=True)
        card = {"title": "Two nets", "table": {**TABLE, **table}}
        body = {
            "card": card,
            "defaults": [{"override /model": "toy_net"}],
            "trainer": {"epochs": 1, "progress": "none"},
        }
        (folder / "two.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(body, sort_keys=False)}")
        return (f"--config-dir={tmp_path / 'mine'}", "-m", "domain=toy", "experiments=two", "data.samples=20")

    return write


def made(folder, seed, loss, steps=4):
    """A folder as a finished run leaves it."""
    run = folder / f"wide-net-{seed}"
    run.mkdir(parents=True)
    rows = [
        {"step": 2, "stage": "train", "cpu_seconds": 1.0, "memory_gb": 0.5},
        {"step": steps, "stage": "train", "cpu_seconds": 2.5, "memory_gb": 0.25},
        {"step": steps, "stage": "test", "cpu_seconds": 2.5, "test/loss": loss},
    ]
    with open(run / "metrics.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "stage", "cpu_seconds", "memory_gb", "test/loss"])
        writer.writeheader()
        writer.writerows(rows)
    (run / "environment.json").write_text(json.dumps({"machine": {"processor": "a chip"}, "threads": 1}))
    return run


def test_figures_of_a_finished_run(tmp_path):
    found = figures(made(tmp_path, 0, 0.25))
    assert (found["loss"], found["steps"], found["cpu_seconds"], found["memory_gb"]) == (0.25, 4, 2.5, 0.5)
    assert found["cpu_seconds_per_step"] == 0.625
    assert figures(tmp_path / "nothing") == {}


def test_a_table_has_means_and_deviations(tmp_path):
    made(tmp_path, 0, 0.25), made(tmp_path, 1, 0.75)
    [wide, narrow] = comparison.results(tmp_path, Comparison.of(TABLE), [0, 1])
    assert wide == ["Wide net", "0.5 ± 0.35", "4 ± 0"]
    assert narrow == ["Narrow", "", ""]


def test_what_has_ended_is_not_run_again(command, experiment, tmp_path, monkeypatch):
    """The processes are recorded in place of being started; each "run" leaves its result."""
    started = []

    def train(options, run, typed, quiet=False):
        started.append((run.name, [each for each in typed if each.startswith(("seed", "trainer.steps", "model"))]))
        if run.name == "narrow-1":
            return 1
        made(run.parent, run.name, 0.5).rename(run)
        return 0

    monkeypatch.setattr(comparison, "_train", train)
    code, printed, message = command(*experiment(seeds=[0, 1]), "run_dir=table")
    assert code == 1, message
    assert [name for name, _ in started] == ["wide-net-0", "wide-net-1", "narrow-0", "narrow-1"]
    assert started[1][1] == ["model.hidden=8", "seed=1"]
    assert "Wide net  0.5 ± 0" in printed
    written = yaml.safe_load((tmp_path / "table" / "table.yaml").read_text())
    assert written["rows"] == [["Wide net", "0.5 ± 0", "4 ± 0"], ["Narrow", "0.5", "4"]]
    assert written["machine"] == "a chip, 1 threads"
    started.clear()
    command(*experiment(seeds=[0, 1]), "run_dir=table")
    assert [name for name, _ in started] == ["narrow-1"]


def test_rows_alone(command, experiment, monkeypatch):
    started = []
    monkeypatch.setattr(comparison, "_train", lambda options, run, typed, quiet=False: started.append(run.name) or 0)
    assert command(*experiment(seeds=[0, 1]), "rows=N*")[0] == 0
    assert started == ["narrow-0", "narrow-1"]
    code, _, message = command(*experiment(), "rows=deep")
    assert code == 2
    assert "Wide net; Narrow" in message


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"rows": {}}, "this table cannot be made"),
        ({"seeds": ["one"]}, "this table cannot be made"),
        ({"columms": {}}, "columns"),
        ({"budget": "long"}, "is not a time"),
        ({"rows": {"a": "model.hiden=3"}}, "model.hidden"),
    ],
)
def test_a_wrong_table_is_refused_before_anything_runs(command, experiment, tmp_path, table, words):
    code, _, message = command(*experiment(**table))
    assert code == 2
    assert words in message
    assert not (tmp_path / "runs").exists()


def test_wrong_words_beside_a_table(command, experiment):
    assert "the rows of a table stand in its card" in command(*experiment(), "model.hidden=1,2")[2]
    assert "these are no seeds" in command(*experiment(), "seed=a")[2]


def test_a_card_without_rows():
    with pytest.raises(UserError, match="cannot be made"):
        Comparison.of(["rows"])


def test_runs_are_a_rows_own(tmp_path):
    """`Wide` does not take the runs of `Wide net` for its own."""
    for name in ("wide-0", "wide-12", "wide-net-0"):
        (tmp_path / name).mkdir()
    assert [run.name for run in comparison._runs(tmp_path, "Wide")] == ["wide-0", "wide-12"]


@pytest.mark.slow
def test_rows_within_a_budget(command, experiment, tmp_path, monkeypatch):
    from domains_under_test import TOY

    monkeypatch.setenv("PYTHONPATH", str(TOY))
    monkeypatch.setattr("sys.argv", [str(TOY.parents[2] / "train.py")])
    code, _, message = command(*experiment(seeds=[0, 1], budget="1s"), "data.samples=2000", "trainer.log_every=1")
    assert code == 0, message
    folders = sorted(path.name for path in (tmp_path / "runs" / "toy" / "two").iterdir())
    assert folders == ["curves.png", "narrow-0", "narrow-1", "table.yaml", "wide-net-0", "wide-net-1"]
    wide = figures(tmp_path / "runs" / "toy" / "two" / "wide-net-0")
    assert 0.2 < wide["cpu_seconds"] < 5
    assert wide["steps"] == figures(tmp_path / "runs" / "toy" / "two" / "wide-net-1")["steps"]
