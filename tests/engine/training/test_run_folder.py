import os
import subprocess
import sys
from pathlib import Path

import pytest

from polymamba.core.errors import UserError
from polymamba.engine.training import run_folder
from polymamba.engine.training.run_folder import locked, read_config, write_text

NOT_MADE = {
    "no such place": "/proc/x",
    "below a file": "file/x",
    "a name of 300 letters": "a" * 300,
    "such a name below a new folder": "new/" + "a" * 300,
    "a device": "/dev/null",
}


@pytest.mark.parametrize("case", NOT_MADE)
def test_a_folder_that_cannot_be_made(case, command, tmp_path):
    (tmp_path / "file").touch()
    code, _, message = command("domain=toy", f"run_dir={NOT_MADE[case]}")
    assert code == 2
    assert message.startswith("\nthis folder cannot be made or written: ")
    assert f"given:   run_dir={NOT_MADE[case]}" in message
    assert os.listdir(tmp_path) == ["file"]


def test_a_read_only_place(command, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    code, _, message = command("domain=toy", "run_dir=new/run")
    assert code == 2
    assert "cannot be made or written: Read-only file system" in message
    assert os.listdir(tmp_path) == []


NOT_A_CONFIG = {
    "not YAML": b"a: [1\nb: :",
    "a tab": b"a:\n\tb: 1",
    "a key twice": b"schema_version: 1\nschema_version: 1",
    "empty": b"",
    "a list": b"- 1\n- 2",
    "a word": b"hello",
    "another version": b"schema_version: 9",
    "no version": b"domain: toy",
    "not UTF-8": b"schema_version: 1\nx: \xff\xfe",
    "zeros": b"\0\0\0",
}


@pytest.mark.parametrize("case", NOT_A_CONFIG)
def test_a_configuration_that_cannot_be_read(case, tmp_path):
    (tmp_path / "config.yaml").write_bytes(NOT_A_CONFIG[case])
    with pytest.raises(UserError, match=r"is not a run's configuration|was written by another version"):
        read_config(tmp_path)


HOLDER = "import sys, time; from pathlib import Path; from polymamba.engine.training.run_folder import locked\n" + (
    "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


def test_one_process_a_folder_and_a_killed_one_holds_nothing(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            message = f"another process is training[\\s\\S]*process {holder.pid} on "
            with pytest.raises(UserError, match=message), locked(tmp_path):
                pass
        finally:
            holder.kill()
            holder.wait()
    with locked(tmp_path):
        assert (tmp_path / run_folder.LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_a_text_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    write_text(path, "before")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "after")
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["config.yaml"]
