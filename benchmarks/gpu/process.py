"""One step of `make gpu` in a process of its own, with a time limit; what it found is in a file as soon as it is found.

A step hangs, crashes or is killed: the rows it wrote until then remain, and its whole process group ends with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LAST_LINES = 12  # of a failed step's output, as its message


@dataclass
class Outcome:
    """What became of a step: "done", "failed" or "timed out"; rows it wrote; the end of its output where it is not done."""

    step: str
    outcome: str
    seconds: float
    rows: list[dict] = field(default_factory=list)
    message: str = ""


class Running:
    """A step that has been started.

    Args:
        step: its name.
        command: program and arguments; the file for its rows is in the environment, ROWS_FILE.
        limit: seconds, from now on.
        environment: variables besides those of this process.
    """

    def __init__(self, step: str, command: Sequence[str], limit: float, environment: Mapping[str, str] | None = None):
        self.step, self.begin, self.limit = step, time.monotonic(), limit
        self.folder = tempfile.TemporaryDirectory()
        self.rows = Path(self.folder.name) / "rows.jsonl"
        self.log = open(Path(self.folder.name) / "log", "w+b")  # noqa: SIM115 - closed by wait
        environment = os.environ | {"ROWS_FILE": str(self.rows), **(environment or {})}
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )  # fmt: skip

    def wait(self) -> Outcome:
        """Until it ends or its time is over."""
        try:
            code = self.process.wait(max(0.0, self.begin + self.limit - time.monotonic()))
            outcome = "failed" if code else "done"
        except subprocess.TimeoutExpired:
            code, outcome = None, "timed out"
        seconds = time.monotonic() - self.begin
        self.stop()
        self.log.seek(0)
        last = self.log.read().decode(errors="replace").splitlines()[-LAST_LINES:]
        self.log.close()
        rows = read_rows(self.rows)
        self.folder.cleanup()
        head = {"failed": f"exit code {code}", "timed out": f"killed after {self.limit:.0f} s"}.get(outcome)
        message = "\n".join([head, *last]) if head else ""
        return Outcome(self.step, outcome, round(seconds, 1), rows, message)

    def stop(self) -> None:
        """End what is left of its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def write_row(row: dict) -> None:
    """From within a step: one finding, on disk when this returns."""
    with open(os.environ["ROWS_FILE"], "a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()


def read_rows(file: Path) -> list[dict]:
    """Rows of a file whose last line may be cut off."""
    rows = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def write_whole(file: Path, content: dict) -> None:
    """JSON that is either the old or the new one, whenever the machine is switched off."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(f".{os.getpid()}.tmp")
    with open(new, "w") as stream:
        json.dump(content, stream, indent=1)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)
