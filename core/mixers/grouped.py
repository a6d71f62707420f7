"""Group-wise scans: each path of a scan is walked by channels of its own (GroupMamba, arXiv 2407.13772, section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UserError
from ..ops.selective_scan import selective_scan
from ..ranges import Size
from ..scans import Grid, Scan
from .mamba import Selection
from .mixer import Call, PathMixer
from .ss2d import SS2D


class Groups(NamedTuple):
    """What each group of channels gives to the scan, and the order of each."""

    parts: tuple[Selection, ...]
    order: Tensor | None


class GroupedSS2D(PathMixer):
    """Divides the channels into as many groups as the scan has paths; each has an SS2D of its own that walks one of the paths.

    All groups go through one call of the scan.

    Args:
        d_model: channels of the tokens, a multiple of the number of paths.
        scan, axes: see PathMixer.
        name: of the groups' mixers, with their numbers from 1: `<name>1`, `<name>2`, ...
        options: of SS2D.
    """

    causal = False

    def __init__(
        self, d_model: Size, scan: str | Scan = "cross", axes: int = 2, name: str = "group", device=None, dtype=None, **options
    ):  # fmt: skip
        super().__init__(scan, axes, "none")
        if d_model % self.paths:
            raise UserError(
                "every path needs as many channels", given=f"{d_model} channels, {self.paths} paths of {self.scan}",
                allowed=f"a multiple of {self.paths}",
            )  # fmt: skip
        self.d_model, self.name = d_model, name
        for mixer in range(self.paths):
            # Its own order is none: what it says of a token does not depend on the path.
            made = SS2D(d_model // self.paths, scan="raster", axes=axes, device=device, dtype=dtype, **options)
            made.unrolls = False
            self.add_module(f"{name}{mixer + 1}", made)
        self.backend = made.backend

    @property
    def groups(self) -> list[SS2D]:
        """The groups' mixers."""
        return [getattr(self, f"{self.name}{number + 1}") for number in range(self.paths)]

    def project(self, call: Call) -> Groups:
        pairs = zip(self.groups, call.x.chunk(self.paths, -1), strict=True)
        grid = Grid(call.sizes, call.extra)
        return Groups(tuple(mixer.project(mixer.call(x, grid, None, call.seq_idx)) for mixer, x in pairs), call.order)

    def mix_tokens(self, given: Groups, call: Call) -> tuple[Tensor, None]:
        x, delta, B, C = (
            torch.stack([getattr(part, name) for part in given.parts], 1) for name in ("x", "delta", "B", "C")
        )
        A, D, bias = (torch.stack([getattr(part, name) for part in given.parts]) for name in ("A", "D", "delta_bias"))
        y = selective_scan(
            x, delta, A, B, C, D, None, bias, True, given.order, call.seq_idx, None, False, "none", self.backend
        )
        return y, None

    def finish(self, y: Tensor, given: Groups) -> Tensor:
        said = zip(self.groups, y.unbind(1), given.parts, strict=True)
        return torch.cat([mixer.finish(each, part) for mixer, each, part in said], -1)

    def flops(self, grid: Grid | tuple[int, ...]) -> int:
        """Floating point operations of a forward pass over one sequence, as of Mamba; every path is taken to visit all tokens."""
        return sum(mixer.flops(grid) for mixer in self.groups)
