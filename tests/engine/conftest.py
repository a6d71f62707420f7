import pytest
import torch
from domains_under_test import TOY
from domains_under_test import toy as toy_domain

OPTIONS = toy_domain().options


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def groups(monkeypatch):
    """The config groups with those of the toy domain, whose package can be imported."""
    from polymamba.engine.command_line.groups import Groups

    monkeypatch.syspath_prepend(str(TOY))
    return Groups([TOY / "configs"])


@pytest.fixture
def toy(groups, tmp_path, monkeypatch):
    """Trains the toy domain in `tmp_path`: toy("data.samples=20", resume=..., callbacks=[...]) -> Result."""
    from polymamba.engine.command_line.compose import check, compose
    from polymamba.engine.training.run import train
    from polymamba.engine.training.run_folder import read_config, run_of

    monkeypatch.chdir(tmp_path)

    def run(*arguments, resume=None, callbacks=(), say=lambda text: None):
        if resume is not None:
            config = check(read_config(run_of(resume)), ["toy"])
        else:
            usual = ("domain=toy", "trainer.progress=none", "data.samples=20", "trainer.epochs=3")
            config = compose([*usual, *arguments], groups, ["toy"])
        return train(config, allow=["toy"], resume=resume, callbacks=callbacks, say=say, arguments=arguments)

    return run


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Runs a command line in this process: command("domain=toy", job="train") -> (exit code, stdout, stderr)."""
    from polymamba.engine.command_line.main import main

    monkeypatch.syspath_prepend(str(TOY))
    monkeypatch.chdir(tmp_path)

    def run(*arguments, job="train"):
        code = main([*OPTIONS, *arguments], job=job)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
