import os

import golden_records
import pytest
from hypothesis import HealthCheck, Phase, settings

# Examples are drawn from the test's own text: a failure repeats. `--hypothesis-profile=long` tries many more.
settings.register_profile(
    "short", max_examples=25, stateful_step_count=8, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
)  # fmt: skip
settings.register_profile("long", settings.get_profile("short"), max_examples=5000, derandomize=False, print_blob=True)
settings.load_profile("short")


@pytest.fixture(scope="session")
def golden():
    """The module that fills a model from its tensors' names and compares its answers with the original code's records."""
    return golden_records


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Runs a command line that must end with code 2 and one message, and leave nothing behind; returns the message."""
    from polymamba.engine.command_line.main import main

    monkeypatch.chdir(tmp_path)

    def run(*words, job="train"):
        before = sorted(os.listdir(tmp_path))
        assert main(list(words), job) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "Traceback" not in printed.err
        assert printed.err.count("given:") <= 1
        assert sorted(os.listdir(tmp_path)) == before
        return printed.err

    return run
