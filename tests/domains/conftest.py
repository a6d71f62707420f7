import pytest

from polymamba.engine.command_line.compose import compose
from polymamba.engine.command_line.main import main
from polymamba.engine.training.run import train

QUICK = (
    "trainer.steps=1",
    "trainer.progress=none",
    "trainer.pictures=false",
    "trainer.threads=1",
    "trainer.accelerator=cpu",
)


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
    """Trains a run of one step: make_run("data=digits") -> its folder; the same words, the same run."""
    known = {}

    def make(*typed):
        if typed not in known:
            folder = tmp_path_factory.mktemp("runs") / "run"
            typed_too = [*typed, *QUICK, f"run_dir={folder}"]
            train(compose(typed_too), typed=typed_too, say=lambda text: None)
            known[typed] = folder
        return known[typed]

    return make


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Runs a command line in this process, in an empty folder: command("ckpt=run") -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, job="predict"):
        code = main(list(arguments), job=job)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
