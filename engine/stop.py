"""Ending a run early in good order: SIGTERM and Ctrl-C ask, training answers at the next step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class Stopped(Exception):
    """Training ended because a signal asked for it; the checkpoint has been written.

    Attributes:
        exit_code: 128 + the signal's number: 143 for SIGTERM, 130 for Ctrl-C.
        folder: the run folder.
    """

    def __init__(self, signal_number: int, step: int, folder: Path):
        self.exit_code, self.step, self.folder = 128 + signal_number, step, folder
        super().__init__(
            f"{NAMES.get(signal_number, signal_number)}: stopped after step {step}, the checkpoint is written."
        )


class StopRequest:
    """Whether a signal has asked the run to end. `received` is its number, or None."""

    def __init__(self) -> None:
        self.received: int | None = None

    def ask(self, signal_number: int, frame: FrameType | None = None) -> None:
        """The signal handler: the first time it only takes note; a second Ctrl-C interrupts at once."""
        if self.received is not None and signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal_number

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles SIGTERM and SIGINT within the block; elsewhere than in the main thread it changes nothing."""
        try:
            before = {number: signal.signal(number, self.ask) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
