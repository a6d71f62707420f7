"""Starting quickly: what a start leaves out."""

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
def quick_start() -> Iterator[None]:
    """The block imports Hydra and composes: without looking for garbage again and again (25 of the 430 ms that --help takes), and
    without attrs (14 ms), which OmegaConf imports where it is installed and of whose classes no config here is made."""
    was_on, absent = gc.isenabled(), "attr" not in sys.modules
    gc.disable()
    if absent:
        sys.modules["attr"] = None
    try:
        yield
    finally:
        if absent:
            del sys.modules["attr"]
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
