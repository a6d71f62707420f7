"""What people type wrongly: many command lines in one process, which must end with code 2, one message and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

PROGRAM = """
import contextlib, io, json, os, sys
from polymamba.engine.command_line.main import main

_, before, *words = sys.argv
found = {}
for word in words:
    sys.argv = ["train.py", *json.loads(before), word]
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()) as message:
        code = main(sys.argv[1:])
    found[word] = [code, printed.getvalue(), message.getvalue(), os.listdir(), "torch" in sys.modules]
print(json.dumps(found))
"""


def each(cases: Iterable[str], said: Sequence[str]) -> dict[str, Sequence[str]]:
    """The same words of the message for each case."""
    return dict.fromkeys(cases, said)


def messages(words: Iterable[str], before: Sequence[str], folder: Path, path: str = "") -> dict[str, str]:
    """The message of each word typed behind those that go before, none of which may need torch.

    Args:
        words: what is typed, one command line each.
        before: what is typed in front of each.
        folder: an empty folder to run in.
        path: where further packages can be imported from.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(list(before)), *words], cwd=folder,
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    wrong = [
        word
        for word, (code, printed, _, left, torch) in found.items()
        if (code, printed, left, torch) != (2, "", [], False)
    ]
    assert wrong == []
    assert [word for word, answer in found.items() if "Traceback" in answer[2] or answer[2].count("given:") > 1] == []
    return {word: answer[2] for word, answer in found.items()}
