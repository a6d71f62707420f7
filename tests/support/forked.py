"""Whole command lines in forked processes, which start in no time, with the phase that each is in."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from contextlib import contextmanager
from ctypes import c_byte
from pathlib import Path

PHASES = ("start", "train", "accumulate", "val", "save", "test", "end")

# Forked from a process that has only imported: autograd refuses to work in the fork of one that has trained.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["polymamba.engine.command_line.main", "polymamba.engine.training.run"])


class Forked:
    """python train.py <arguments> in a process of its own, slowed down so that every phase can be hit.

    Args:
        arguments: the command line.
        output: file that what it prints goes to.
        seconds: how long a batch takes longer, and a checkpoint four times as long.
    """

    def __init__(self, *arguments: str, output: Path, seconds: float = 0.004):
        self.output, self._phase = output, SERVER.RawValue(c_byte)
        folder = os.getcwd()  # the server's children start in its own
        self._process = SERVER.Process(target=_run, args=(arguments, folder, output, seconds, self._phase))
        self._process.start()
        while self._process.is_alive() and not output.exists():  # what it does before is the server's work
            time.sleep(0.0005)

    @property
    def phase(self) -> str:
        """What it is doing."""
        return PHASES[self._phase.value]

    def send(self, number: int) -> None:
        """Sends it a signal."""
        os.kill(self._process.pid, number)

    def wait(self, seconds: float = 60.0) -> int:
        """Its exit code, once it has ended; minus the number of the signal that killed it."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            raise TimeoutError(f"{self.output} has not ended:\n{self.output.read_text()}")
        return self._process.exitcode


def _run(arguments: tuple[str, ...], folder: str, output: Path, seconds: float, phase: c_byte) -> None:
    os.setsid()
    os.chdir(folder)
    # Until main listens, Ctrl-C ends it as it ends a Python that is just starting: without a word.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for number in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    code = 99
    try:
        code = _slowly(arguments, seconds, phase)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _slowly(arguments: tuple[str, ...], seconds: float, phase: c_byte) -> int:
    from toy.task import Classify

    from polymamba.engine.checkpoints import folder as checkpoint
    from polymamba.engine.command_line.main import main

    step, sum_of = Classify.step, checkpoint.sha256

    @contextmanager
    def noted(now: str):
        before = phase.value
        phase.value = PHASES.index(now)
        yield
        phase.value = before if now == "save" else phase.value

    def slow_step(task, batch, stage):
        waits = stage == "train" and task.trainer.accumulate_grad_batches > 1
        with noted("accumulate" if waits else stage):
            time.sleep(seconds)
            return step(task, batch, stage)

    def slow_sum(path):
        with noted("save"):
            time.sleep(2 * seconds)
            return sum_of(path)

    Classify.step, checkpoint.sha256 = slow_step, slow_sum
    code = main(arguments)
    phase.value = PHASES.index("end")
    return code
