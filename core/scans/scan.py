"""The Scan object: which paths walk over a grid, as index tensors."""

from __future__ import annotations

import functools
import json
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..errors import UserError
from .cache import OrderCache
from .grid import Grid, as_grid
from .modes import MODES, Mode
from .path import Path, table

ORDERS = OrderCache(128)


class Part(NamedTuple):
    """One mode of a scan and the values of its parameters; `layer` picks a path where a mode has one a layer."""

    mode_name: str
    values: tuple[tuple[str, object], ...] = ()
    layer: int | None = None

    @property
    def mode(self) -> Mode:
        """What the table knows about this mode."""
        return MODES[self.mode_name]

    def cell(self, ndim: int) -> tuple[int, ...]:
        """Sides of the pieces into which the mode divides a grid of `ndim` axes; 1 where it does not."""
        sides = dict(self.values).get(self.mode.divides, 1)
        return (sides,) * ndim if isinstance(sides, int) else sides

    def paths(self, sizes: Sequence[int]) -> list[Path]:
        """The paths over a grid of these sizes."""
        paths = self.mode.function(tuple(sizes), **dict(self.values))
        return paths if self.layer is None else [paths[self.layer % len(paths)]]


@dataclass(frozen=True)
class Scan:
    """A scan mode, or several joined with "+", with its parameters. Made by `get`."""

    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        """The mode's name; `get(scan.name, **scan.parameters)` is the scan again (before a layer was chosen)."""
        return "+".join(self._part_name(part) for part in self.parts)

    @property
    def parameters(self) -> dict[str, object]:
        """The parameters with their values; those on which the joined modes differ are in the name instead."""
        return {key: value for part in self.parts for key, value in part.values if key not in self._differing()}

    @property
    def paper(self) -> str:
        """Where the mode comes from."""
        return "; ".join(dict.fromkeys(part.mode.paper for part in self.parts))

    @property
    def ndims(self) -> tuple[int, ...]:
        """The numbers of grid axes the scan makes sense for."""
        return tuple(sorted(set.intersection(*(set(part.mode.ndims) for part in self.parts))))

    @property
    def layers(self) -> int:
        """Number of layers after which the paths repeat: 1 where every layer walks the same ones."""
        return math.lcm(*(part.mode.period for part in self.parts if part.layer is None))

    @property
    def is_raster(self) -> bool:
        """Whether it walks one path in raster order, on every grid."""
        modes = [(part.mode_name, part.layer or 0) for part in self.parts]
        return modes == [("raster", 0)] or (modes == [("mamba_nd", 0)] and self.parts[0].layer is not None)

    @property
    def text(self) -> str:
        """The scan in one line; `Scan.of_text` reads it."""
        return json.dumps(self.parts)

    @staticmethod
    @functools.lru_cache(maxsize=256)
    def of_text(text: str) -> Scan:
        """The scan that wrote this text."""
        parts = (
            Part(name, tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in values), layer)
            for name, values, layer in json.loads(text)
        )
        return Scan(tuple(parts))

    def most_steps(self, sizes: Sequence[int], extra: Sequence[int] = ()) -> int:
        """No path over a grid of these sizes, which may be symbolic, with such extra tokens has more steps than this."""
        if any(part.mode.steps is None for part in self.parts):
            return math.prod(sizes) + len(extra)
        longest = (part.mode.steps(sizes, **dict(part.values)) for part in self.parts)
        # One more: a size that is never 1 puts no limit on the sizes of a graph.
        return functools.reduce(torch.sym_max, longest) + len(extra) + 1

    def layer(self, index: int) -> Scan:
        """The scan of layer `index` of a model: one path of zigzag or mamba_nd, the scan itself for other modes."""
        parts = (
            part._replace(layer=index % part.mode.period) if part.mode.per_layer and part.layer is None else part
            for part in self.parts
        )
        return Scan(tuple(parts))

    def paths(self, ndim: int) -> int:
        """Number of paths over a grid of `ndim` axes, whatever its sizes."""
        self._check_ndim(ndim, f"{ndim}-D")
        return sum(len(part.paths((0,) * ndim)) for part in self.parts)

    def disjoint(self, ndim: int) -> bool:
        """Whether each grid token is on exactly one path."""
        return self.paths(ndim) == 1 or (len(self.parts) == 1 and self.parts[0].mode.disjoint)

    def order(self, grid: Grid | int | Sequence[int], device: torch.device | str | None = None) -> torch.Tensor:
        """The token visited at each step.

        Args:
            grid: a Grid, or its sizes.
            device: where the tensor shall be.

        Returns:
            int32 (paths, steps): positions in the sequence; -1 fills the end of paths that are shorter than others.
            It is kept and given to every caller: do not write to it.

        Raises:
            UserError: where the scan makes no sense on this grid.
        """
        device = torch.device("cpu" if device is None else device)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        grid = as_grid(grid)
        # In a graph that is being made: a graph for these sizes, whose order is a constant of it.
        sizes, extra = (tuple(map(operator.index, numbers)) for numbers in (grid.sizes, grid.extra))
        return _order(self.parts, sizes, extra, device)

    def describe(self) -> str:
        """What the scan does, its paper, parameters and grids, as text."""
        lines = []
        for part in self.parts:
            values = ", ".join(f"{key}={value}" for key, value in part.values) or "none"
            walked = f"here only that of layer {part.layer} (of {part.mode.period})" if part.layer is not None else None
            every = "one path a layer" if part.mode.per_layer else "all paths in every layer"
            lines += [
                f"{part.mode_name}: {part.mode.summary}",
                f"  paper:      {part.mode.paper}",
                f"  parameters: {values}",
                f"  grids:      {', '.join(f'{ndim}-D' for ndim in part.mode.ndims)}",
                f"  paths:      {_path_counts(part)}; {walked or every}",
            ]
        return "\n".join(lines)

    def __str__(self) -> str:
        values = ", ".join(f"{key}={value}" for key, value in self.parameters.items())
        layers = [str(part.layer) for part in self.parts if part.layer is not None]
        return self.name + (f" ({values})" if values else "") + (f", layer {layers[0]}" if layers else "")

    def _differing(self) -> set[str]:
        """Names of parameters that joined modes share and hold different values for."""
        seen: dict[str, object] = {}
        pairs = [pair for part in self.parts for pair in part.values]
        return {key for key, value in pairs if seen.setdefault(key, value) != value}

    def _part_name(self, part: Part) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in part.values if key in self._differing())
        return f"{part.mode_name}({inside})" if inside else part.mode_name

    def _check_ndim(self, ndim: int, given: str) -> None:
        if ndim in self.ndims:
            return
        others = [name for name, mode in MODES.items() if ndim in mode.ndims]
        raise UserError(
            f"The scan '{self.name}' makes no sense on a {ndim}-D grid.",
            given=f"scan={self.name}, grid {given}",
            allowed=" and ".join(f"{allowed}-D" for allowed in self.ndims) + " grids"
            if self.ndims
            else "no grid: its parts share none",
            do=f"Choose another scan: {', '.join(others)}." if others else None,
        )


def _path_counts(part: Part) -> str:
    return ", ".join(f"{len(part.paths((0,) * ndim))} in {ndim}-D" for ndim in part.mode.ndims)


def _order(
    parts: tuple[Part, ...], sizes: tuple[int, ...], extra: tuple[int, ...], device: torch.device
) -> torch.Tensor:
    """The order, from the cache. Compilers trace it as a constant, which needs plain tuples as arguments."""
    return ORDERS.get((parts, sizes, extra, device), lambda: _build(Scan(parts), Grid(sizes, extra)).to(device))


# What torch.compiler.assume_constant_result does, without its import of the whole compiler (seconds).
_order._dynamo_marked_constant = True


def _build(scan: Scan, grid: Grid) -> torch.Tensor:
    scan._check_ndim(grid.ndim, "×".join(map(str, grid.sizes)))
    if grid.length >= 2**31:
        raise UserError("The sequence is too long for 32-bit positions.", given=grid.length, allowed="less than 2**31")
    paths = [path for part in scan.parts for path in part.paths(grid.sizes)]
    return torch.from_numpy(table(paths, grid))
