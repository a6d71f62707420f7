"""Scan modes: in which order tokens of a grid are visited.

    scan = scans.get("local", window=4)
    order = scan.order((14, 14))            # int32 (paths, steps): the token visited at each step

A mode is a function from a grid's sizes to paths; modes.py lists them with their papers.
"""

from .continuous import directions
from .draw import draw, draw_stages
from .grid import CLASS_TOKENS, Grid
from .lookup import get, names
from .moves import moves
from .scan import Scan

__all__ = ["CLASS_TOKENS", "Grid", "Scan", "directions", "draw", "draw_stages", "get", "moves", "names"]
