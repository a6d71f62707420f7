"""Whole command lines in forked processes, which start in no time, with the phase that each is in."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time
import traceback
from pathlib import Path

PHASES = ("start", "train", "accumulate", "val", "save", "test", "end")


class Forked:
    """python train.py <arguments> in a process of its own, slowed down so that every phase can be hit.

    Args:
        arguments: the command line.
        output: file that what it prints goes to.
        seconds: how long a batch takes longer, and a checkpoint four times as long.
    """

    def __init__(self, *arguments: str, output: Path, seconds: float = 0.004):
        self.output, self._phase = output, mmap.mmap(-1, 1)
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 99
            try:
                code = self._run(arguments, seconds)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)

    def _run(self, arguments: tuple[str, ...], seconds: float) -> int:
        os.setsid()
        # Until main listens, Ctrl-C ends it as it ends a Python that is just starting: without a word.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for number in (1, 2):
            os.dup2(os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        from toy.task import Classify

        from polymamba.engine.checkpoints import folder as checkpoint
        from polymamba.engine.command_line.main import main

        step, sum_of = Classify.step, checkpoint.sha256

        def slow_step(task, batch, stage):
            waits = stage == "train" and task.trainer.accumulate_grad_batches > 1
            with self._in("accumulate" if waits else stage):
                time.sleep(seconds)
                return step(task, batch, stage)

        def slow_sum(path):
            with self._in("save"):
                time.sleep(2 * seconds)
                return sum_of(path)

        Classify.step, checkpoint.sha256 = slow_step, slow_sum
        code = main(arguments)
        self._phase[0] = PHASES.index("end")
        return code

    def _in(self, phase: str):
        from contextlib import contextmanager

        @contextmanager
        def noted():
            before = self._phase[0]
            self._phase[0] = PHASES.index(phase)
            yield
            self._phase[0] = before if phase == "save" else self._phase[0]

        return noted()

    @property
    def phase(self) -> str:
        """What it is doing."""
        return PHASES[self._phase[0]]

    def send(self, number: int) -> None:
        """Sends it a signal."""
        os.kill(self.pid, number)

    def wait(self, seconds: float = 60.0) -> int:
        """Its exit code, once it has ended; minus the number of the signal that killed it."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise TimeoutError(f"{self.output} has not ended:\n{self.output.read_text()}")
