"""What the frame promises to every domain and asks of it: train, go on, test, predict, draw, explain, keep."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from domains_under_test import NAMES, packaged, toy
from safetensors import safe_open
from safetensors.torch import load_file

from polymamba.engine.command_line.main import main

QUIET = ("trainer.progress=none", "trainer.threads=1", "trainer.accelerator=cpu")
STEADY = ("optimizer.schedule=constant", "optimizer.warmup=0", "trainer.val_every_steps=2")


@pytest.fixture(scope="module", params=[*NAMES, "toy"])
def domain(request, tmp_path_factory):
    """A domain; the working directory is a folder of its own for all tests of it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp(request.param)
        patch.chdir(folder)
        patch.setenv("POLYMAMBA_CACHE", str(folder / "cache"))
        patch.syspath_prepend(str(folder))
        found = toy(folder) if request.param == "toy" else packaged(request.param)
        getattr(found.crossing, "prepare", lambda folder: None)(folder)
        yield found


@pytest.fixture(scope="module")
def train(domain):
    def run(folder, *arguments):
        assert (
            main(
                [
                    *domain.chosen,
                    *QUIET,
                    *domain.crossing.SHORT,
                    *domain.crossing.DEFAULT,
                    *STEADY,
                    f"run_dir={folder}",
                    *arguments,
                ]
            )
            == 0
        )
        return Path(folder)

    return run


@pytest.fixture(scope="module")
def trained(train):
    """A run of four steps."""
    return train("whole", "trainer.steps=4")


def weights(run, link="last"):
    return load_file((run / "checkpoints" / link / "weights.safetensors").resolve())


def rows_of(run):
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_what_a_person_looks_for(trained, domain):
    for name in (
        "config.yaml",
        "environment.json",
        "overrides.txt",
        "metrics.csv",
        "progress.png",
        *domain.crossing.PICTURES,
    ):
        assert (trained / name).stat().st_size > 0, name
    assert all(torch.isfinite(each).all() for each in weights(trained).values())
    assert {"train", "val", "test"} <= {row["stage"] for row in rows_of(trained)}


def test_a_run_stopped_and_resumed_is_bit_for_bit_one_that_was_not(train, trained, domain):
    stopped = train("parts", "trainer.steps=2")
    assert main([*domain.options, f"resume={stopped}", "trainer.steps=4"]) == 0
    whole, parts = weights(trained), weights(stopped)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_testing_again_says_what_the_run_has_said(trained, domain):
    assert main([*domain.options, f"ckpt={trained}"], job="evaluate") == 0
    [found] = json.loads((trained / "metrics.json").read_text()).values()
    *_, last = rows_of(trained)
    for name, value in found["metrics"].items():
        assert value == pytest.approx(float(last[name]), rel=1e-5), name


def test_predict_answers_from_the_run_folder_alone(trained, domain, capsys, monkeypatch):
    for arguments in domain.crossing.predict(Path.cwd()):
        assert main([*domain.options, f"ckpt={trained}", *arguments], job="predict") == 0
        assert capsys.readouterr().out.strip()


def test_predict_explains(trained, domain):
    if domain.crossing.EXPLAIN is None:
        pytest.skip("this domain has no such picture")
    domain.crossing.predict(Path.cwd())
    assert main([*domain.options, f"ckpt={trained}", *domain.crossing.EXPLAIN], job="predict") == 0


def test_what_was_kept_travels_with_the_weights(train, trained, domain):
    begun = train("begun", f"init={trained}", "trainer.steps=1", "optimizer.lr=0")
    names = sorted(path.relative_to(trained) for path in (trained / "data").rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(begun) for path in (begun / "data").rglob("*") if path.is_file())
    assert all((trained / name).read_bytes() == (begun / name).read_bytes() for name in names)
    before, after = weights(trained, "best"), weights(begun)
    parameters = [name for name in before if before[name].is_floating_point()]
    assert all(torch.equal(before[name], after[name]) for name in parameters)


def test_the_weights_file_says_what_it_is(trained):
    with safe_open((trained / "checkpoints" / "last" / "weights.safetensors").resolve(), "pt") as file:
        about = {key: json.loads(value) for key, value in file.metadata().items() if key != "format"}
    assert about["description"]["counts"].keys() >= {"train", "val", "test"}
    assert about["model"]["name"]


@pytest.mark.parametrize("job", ["train", "evaluate", "predict"])
def test_help_names_every_option_of_the_domain(domain, job, capsys):
    assert main([*domain.chosen, "--help"], job=job) == 0
    said = capsys.readouterr().out
    assert said.isascii() or said
    assert "Traceback" not in said


def test_data_of_odd_forms_can_be_trained_on(train, domain):
    for number, arguments in enumerate(domain.crossing.ODD):
        train(f"odd{number}", "trainer.steps=1", "trainer.pictures=false", *arguments)
