"""Ending a run early in good order: SIGTERM and Ctrl-C ask, training answers at the next step.

By hand, because Lightning ends a run that gets SIGTERM without a checkpoint and with exit code 0, and one that gets Ctrl-C at once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}
# Launchers (torchrun, uv, docker's init) pass a signal on that the terminal sent to the whole group already.
ECHO_SECONDS = 0.5


class Failed(RuntimeError):
    """Training broke down for a reason that its message tells the user; exit code 1."""


class Stopped(BaseException):
    """A signal ended the work. Not an Exception: code that catches those must not keep the process going.

    Attributes:
        exit_code: 128 + the signal's number: 143 for SIGTERM, 130 for Ctrl-C.
        at_once: a second signal came; what was going on was given up.
        folder: the run folder, where it holds a checkpoint to go on from; otherwise None.
        step: optimizer steps done in that checkpoint.
        saved: that checkpoint was written since this process started.
    """

    def __init__(self, signal_number: int, at_once: bool = False):
        super().__init__(signal_number)
        self.name, self.exit_code, self.at_once = NAMES.get(signal_number, signal_number), 128 + signal_number, at_once
        self.folder: Path | None = None
        self.step, self.saved = 0, False
        self.training = False

    def in_run(self, folder: Path, step: int | None, saved: bool) -> None:
        """Notes what the run in `folder` has come to; step: of its last checkpoint, None where it has none."""
        self.training, self.saved = True, saved
        if step is not None:
            self.folder, self.step = folder, step

    def __str__(self) -> str:
        if not self.training:
            return f"{self.name}: stopped."
        if self.folder is None:
            return f"{self.name}: stopped before the first step was done; there was nothing to save."
        if self.at_once:
            return f"{self.name} twice: stopped at once; the last checkpoint is of step {self.step}."
        if not self.saved:
            return f"{self.name}: stopped; the checkpoint of step {self.step} is as it was."
        return f"{self.name}: stopped after step {self.step}, the checkpoint is written."


class StopRequest:
    """What a signal does: it raises `Stopped` at once or, within `deferred`, is noted for the next good moment.

    Attributes:
        received: the signal's number, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._noted_at = 0.0
        self._deferred = False
        self._process = os.getpid()

    def ask(self, signal_number: int, frame: FrameType | None = None) -> None:
        """The signal handler. Within `deferred`, a second signal raises at once."""
        if os.getpid() != self._process:
            # A forked process: Ctrl-C is the parent's business, SIGTERM ends it.
            if signal_number != signal.SIGINT:
                os._exit(128 + signal_number)
            return
        first, now = self.received is None, time.monotonic()
        if first:
            self.received, self._noted_at = signal_number, now
        if not self._deferred:
            raise Stopped(signal_number)
        if first:
            # Not print: the signal may have come in the middle of one.
            os.write(2, f"\n{NAMES.get(signal_number)}: stopping after this step; once more stops at once\n".encode())
        elif now - self._noted_at > ECHO_SECONDS:
            raise Stopped(signal_number, at_once=True)

    def listen(self) -> None:
        """Handles signals from now on, whatever has taken them over; elsewhere than in the main thread nobody can."""
        if threading.current_thread() is threading.main_thread():
            for number in NAMES:
                signal.signal(number, self.ask)

    def check(self) -> None:
        """Raises `Stopped` where a signal has come."""
        if self.received is not None:
            raise Stopped(self.received)

    @contextmanager
    def unmasked(self) -> Iterator[None]:
        """Within the block, what a signal raised stays that: a library that cleans up after it may raise an error of its own."""
        try:
            yield
        except Failed:
            raise
        except Exception:
            self.check()
            raise

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Signals are noted within the block, which must look at `received` or `check` often."""
        self.check()
        self._deferred = True
        try:
            yield
            self.check()
        finally:
            self._deferred = False


_listening: StopRequest | None = None


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Handles SIGTERM and SIGINT within the block; inside another such block it is that one's request again."""
    global _listening
    if _listening is not None:
        yield _listening
        return
    request, before = StopRequest(), {number: signal.getsignal(number) for number in NAMES}
    request.listen()
    _listening = request
    try:
        yield request
    finally:
        _listening = None
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)
