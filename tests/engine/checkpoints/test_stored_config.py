"""Going on with a run whose folder has been changed or damaged: one message, exit code 2, nothing written; or it is said."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from polymamba.engine.checkpoints import folder as files

ARGUMENTS = ("domain=toy", "trainer.progress=none", "data.samples=20", "trainer.epochs=2", "run_dir=run")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder to keep one finished run in, which every test gets a copy of."""
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def run(command, finished, tmp_path):
    """A copy of a finished run, ./run."""
    if not finished.exists():
        assert command(*ARGUMENTS)[0] == 0
        shutil.move(tmp_path / "run", finished)
    shutil.copytree(finished, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def edit(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"}


CHANGED = {
    "another scan": ("scan: null", "scan:\n  name: raster", "given:   scan.name=raster", "allowed: no scan.name"),
    "another size": ("hidden: 8", "hidden: 16", "given:   model.hidden=16", "allowed: model.hidden=8"),
    "other data": (
        "batch_size: 4",
        "batch_size: 8",
        "given:   data.loading.batch_size=8",
        "allowed: data.loading.batch_size=4",
    ),
    "another optimizer": ("name: adamw", "name: sgd", "given:   optimizer.name=sgd", "allowed: optimizer.name=adamw"),
    "another task": (
        "smoothing: 0.0",
        "smoothing: 0.1",
        "given:   task.label_smoothing=0.1",
        "task.label_smoothing=0.0",
    ),
    "another domain": ("domain: toy", "domain: ${oops}", "given:   domain=${oops}", "allowed: domain=toy"),
    "not a configuration": ("schema_version", "- schema_version", "is not a run's configuration", "do:"),
}


@pytest.mark.parametrize("job", ["train", "evaluate"])
@pytest.mark.parametrize("case", CHANGED)
def test_a_configuration_of_another_run_is_refused(case, job, command, run):
    before, after, *parts = CHANGED[case]
    edit(run / "config.yaml", before, after)
    then = contents(run)
    code, _, message = command("resume=run" if job == "train" else "ckpt=run", job=job)
    assert code == 2
    assert all(part in message for part in parts)
    assert contents(run) == then


def test_a_setting_that_was_edited_is_said_and_the_checkpoint_counts(command, run):
    edit(run / "config.yaml", "lr: 0.01", "lr: 0.5")
    edit(run / "config.yaml", "epochs: 2", "epochs: 50")
    code, printed, message = command("resume=run", "trainer.epochs=3")
    assert code == 0
    assert message.strip().splitlines() == [
        "run/config.yaml has been changed to trainer.epochs=50: the checkpoint counts, which was made with trainer.epochs=2",
        "run/config.yaml has been changed to optimizer.lr=0.5: the checkpoint counts, which was made with optimizer.lr=0.01",
    ]
    assert "15 steps: 3 epochs" in printed
    assert "lr 0.01" in printed
    text = (run / "config.yaml").read_text()
    assert "epochs: 3\n" in text
    assert "lr: 0.01\n" in text


def test_other_versions_are_said(command, run):
    environment = json.loads((run / "environment.json").read_text())
    environment["versions"]["torch"] = "2.10.0"
    environment["commit"] = {"sha": "0123456789abcdef", "dirty": False}
    (run / "environment.json").write_text(json.dumps(environment))
    code, _, message = command("resume=run", "trainer.epochs=3")
    assert code == 0
    torch_line, commit_line = message.strip().splitlines()
    assert torch_line.startswith(f"torch was 2.10.0 when this run started, it is {torch.__version__.partition('+')[0]}")
    assert commit_line.startswith("this run started at commit 0123456789, the source is at ")


@pytest.mark.parametrize("name", ["metrics.csv", "environment.json", "overrides.txt"])
@pytest.mark.parametrize("damage", ["missing", "not a table"])
def test_what_a_run_can_do_without(name, damage, command, run):
    (run / name).unlink()
    if damage != "missing":
        (run / name).write_bytes(b"\xff\xfe,step,\0\nx,y\n")
    code, _, message = command("resume=run", "trainer.epochs=3")
    assert code == 0
    assert ("cannot be read" in message) == (name == "environment.json")


class Hostile:
    def __reduce__(self):
        return os.system, ("touch was_here",)


def rewrite(path, change):
    """Changes a state and makes its checksum right again."""
    state = files.read_state(path)
    change(state)
    torch.save(state, path / files.STATE)
    resign(path)


def resign(path):
    manifest = json.loads((path / files.MANIFEST).read_text())
    manifest["sha256"][files.STATE] = files.sha256(path / files.STATE)
    (path / files.MANIFEST).write_text(json.dumps(manifest))


def overwrite(path, content):
    (path / files.STATE).write_bytes(content)
    resign(path)


STATES = {
    "a pickle": lambda path: overwrite(path, pickle.dumps(Hostile())),
    "a pickle in torch's form": lambda path: rewrite(path, lambda state: state.update(more=Hostile())),
    "cut off": lambda path: overwrite(path, (path / files.STATE).read_bytes()[:-500]),
    "empty": lambda path: overwrite(path, b""),
    **{
        f"without {key}": lambda path, key=key: rewrite(path, lambda state: state.pop(key))
        for key in ("config", "loops", "optimizer_states", "trained")
    },
    "an optimizer of another model": lambda path: rewrite(
        path, lambda s: s["optimizer_states"][0]["param_groups"].pop()
    ),
    "moments of another shape": lambda path: rewrite(
        path, lambda state: state["optimizer_states"][0]["state"][0].update(exp_avg=torch.zeros(3))
    ),
    "loops of nothing": lambda path: rewrite(path, lambda state: state.update(loops={})),
}


@pytest.mark.parametrize("case", STATES)
def test_a_state_that_cannot_be_gone_on_from(case, command, run, tmp_path):
    STATES[case]((run / "checkpoints" / "last").resolve())
    then = contents(run)
    code, _, message = command("resume=run", "trainer.epochs=3")
    assert code == 2
    assert "do:      resume=<an earlier checkpoint of the run>, or start a new run" in message
    assert contents(run) == then
    assert not (tmp_path / "was_here").exists()


def test_a_wrong_checksum_falls_back_to_the_checkpoint_before(command, run):
    (run / "checkpoints" / "step-00000010" / files.STATE).write_bytes(b"damaged")
    code, _, message = command("resume=run")
    assert code == 0
    assert "wrong sha256" in message
    assert "Using " in message
    assert "step-00000005 instead" in message


@pytest.mark.parametrize("target", ["step-00000099", "last", "../../elsewhere/checkpoints/step-00000010"])
def test_links_that_lead_nowhere_or_elsewhere(target, command, run, tmp_path):
    shutil.copytree(run, tmp_path / "elsewhere", symlinks=True)
    for name in ("last", "best"):
        (run / "checkpoints" / name).unlink()
        (run / "checkpoints" / name).symlink_to(target)
    code, _, message = command("resume=run", "trainer.epochs=3")
    assert code == 0
    assert "last of " in message
    assert "leads to no checkpoint. Using " in message
    assert (run / "checkpoints" / "last").resolve() == run / "checkpoints" / "step-00000015"
    assert (tmp_path / "elsewhere" / "checkpoints" / "last").resolve().name == "step-00000010"


@pytest.mark.parametrize("lost", [(), ("step-00000005", "step-00000010")])
def test_a_run_copied_without_its_links_goes_on(lost, command, run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    for name in lost:
        shutil.rmtree(tmp_path / "copy" / "checkpoints" / name)
    for job, argument in (("evaluate", "ckpt=copy"), ("train", "resume=copy")):
        code, _, message = command(argument, *(["trainer.epochs=4"] if job == "train" else []), job=job)
        assert (code, message) == (0, "")
    folder = tmp_path / "copy" / "checkpoints"
    assert (folder / "last").readlink() == Path("step-00000020")
    assert (folder / "best").is_symlink()
    assert files.verify(folder / "best")
