"""Standard output and error as people have them: a terminal that knows ASCII only, a pipe whose reader has gone away."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


def write_whatever_the_terminal_takes(job: str) -> None:
    """A letter that the terminal lacks is written as a question mark; where training's output is no longer read, it goes on."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if job == "train" and sys.stdout is not None:
        sys.stdout = _Output(sys.stdout)


class _Output:
    """Standard output of a run that does not end because nobody reads it any more (`| head`)."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        return self._do(self._stream.write, text) or len(text)

    def flush(self) -> None:
        self._do(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _do(self, act: Any, *arguments: Any) -> Any:
        try:
            return act(*arguments)
        except BrokenPipeError:
            to_nowhere()
            return None


def to_nowhere() -> None:
    """Whatever is still written to standard output is lost, also what Python flushes at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
