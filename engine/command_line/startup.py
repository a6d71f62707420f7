"""Starting quickly: without collecting garbage, and without the slowest import that training does not use."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

SIGNAL = "scipy.signal"


@contextmanager
def no_collecting() -> Iterator[None]:
    """Leaves Python's garbage collector out within the block: what is imported and composed stays, and looking through it again
    and again is 30 of the 430 ms that --help takes."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def import_torchmetrics() -> None:
    """Imports torchmetrics without scipy.signal, which Lightning would otherwise pull in with it.

    torchmetrics imports scipy.signal for the one purpose of adding the name `hamming` to it where that is missing, for the
    sake of a package that is not used here; with the statistics it pulls in that is a sixth of the time a start takes.
    Whoever imports scipy.signal afterwards gets the real one.
    """
    if "torchmetrics" in sys.modules or SIGNAL in sys.modules or find_spec("scipy") is None:
        return
    standing_in = ModuleType(SIGNAL)
    standing_in.hamming = None
    sys.modules[SIGNAL] = standing_in
    try:
        import_module("torchmetrics")
    finally:
        del sys.modules[SIGNAL]
        vars(sys.modules["scipy"]).pop("signal", None)
