"""Mixers of two inputs (hybrid scanning, arXiv 2408.01129, section 4.2): Pan-Mamba's (arXiv 2402.12192) and FusionMamba's (arXiv
2404.07932).

Their tokens are (batch, 2 * length, d_model), those of the first input and behind them as many of the second; the grid is that of
one input, and the answer is (batch, length, d_model). Parameter names are those of the published code.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..linear import applied, normalised
from ..ops.arguments import check_shape
from ..ranges import Positive, Size
from ..scans import Grid, Scan
from ..scans import get as get_scan
from .mamba import Mamba, Selection
from .mixer import Call
from .path_parameters import PathParameters
from .walk import sizes_of

# FusionMamba's names of the paths of `cross`, which it counts in another order: forward, backward, then both down the columns.
CROSS_SUFFIXES = ("", "c", "b", "d")


class CrossModalMamba(Mamba):
    """Each input projected, convolved, scanned and gated by parameters of its own, their sum projected back (bimamba_type "v3").

    Args:
        d_model, d_state: see Mamba.
        scan: over the grid (2, *sizes), one axis more than that of one input. side_by_side: each input alone, which is
            Pan-Mamba's; interleaved: both in one sequence.
        axes: of the grid of one input.
        options: as of Mamba.
    """

    unrolls = False

    def __init__(
        self, d_model: Size, d_state: Size = 16, scan: str | Scan = "side_by_side", axes: int = 1, bias: bool = False,
        device: torch.device | None = None, dtype: torch.dtype | None = None, **options,
    ):  # fmt: skip
        factory = {"device": device, "dtype": dtype}
        super().__init__(d_model, d_state, scan=scan, axes=1 + axes, bias=bias, **factory, **options)
        self.in_proj_extra = nn.Linear(d_model, self.in_proj.out_features, bias=bias, **factory)

    def call(self, x: Tensor, grid, state: tuple | None, seq_idx: Tensor | None, share: bool = True) -> Call:
        half = _half(self, x, seq_idx)
        return super().call(x, _both(grid, half), state, None, share)

    def project_in(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        half = x.shape[1] // 2
        x = torch.cat([applied(self.in_proj, x[:, :half]), applied(self.in_proj_extra, x[:, half:])], 1)
        return x.chunk(2, dim=-1) if self.gate else (x, None)

    def finish(self, y: Tensor, given: Selection) -> Tensor:
        y = self.gated(y, given)
        half = y.shape[-2] // 2
        return applied(self.out_proj, y[..., :half, :] + y[..., half:, :])

    def flops(self, grid: Grid | tuple[int, ...]) -> int:
        length, _ = self._visits(_both(grid, 0))
        return super().flops(_both(grid, 0)) - length * self.d_model * self.d_inner


class NormedMamba(Mamba):
    """A Mamba whose gated mean over the paths is normalised before it is projected back (FusionMamba's, bimamba_type "v6").

    Args:
        d_model, d_state, expand, scan, axes, merge: see Mamba; the values of FusionMamba are those that are usual here.
        options: as of Mamba.
    """

    def __init__(
        self, d_model: Size, d_state: Size = 8, expand: Positive = 1, scan: str | Scan = "cross", axes: int = 2,
        merge: str = "mean", parameters="separate", device: torch.device | None = None, dtype: torch.dtype | None = None,
        **options,
    ):  # fmt: skip
        factory = {"device": device, "dtype": dtype}
        if parameters == "separate" and get_scan(scan).name == "cross" and axes == 2:
            parameters = partial(PathParameters, suffixes=CROSS_SUFFIXES)
        options = {"expand": expand, "scan": scan, "axes": axes, "merge": merge, "parameters": parameters, **options}
        super().__init__(d_model, d_state, **factory, **options)
        self.norm = nn.LayerNorm(self.d_inner, **factory)

    def finish(self, y: Tensor, given: Selection) -> Tensor:
        return applied(self.out_proj, normalised(self.norm, self.gated(y, given)).to(y.dtype))


class GuidedMamba(NormedMamba):
    """What is scanned, and the gate, are of the first input; step, B and C, which select, of the second ("v7", and over the scans
    raster and bidirectional "v0" and "v3"). The second input is neither convolved nor activated.
    """

    unrolls = False

    def __init__(self, d_model: Size, bias: bool = False, **options):
        super().__init__(d_model, bias=bias, **options)
        factory = {name: options.get(name) for name in ("device", "dtype")}
        self.in_proj_b = nn.Linear(d_model, self.d_inner, bias=bias, **factory)

    def call(self, x: Tensor, grid, state: tuple | None, seq_idx: Tensor | None, share: bool = True) -> Call:
        half = _half(self, x, seq_idx)
        return super().call(x[:, :half], grid, state, None, share)._replace(x=x)

    def project_in(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return super().project_in(x[:, : x.shape[1] // 2])

    def selection(self, x: Tensor, call: Call) -> tuple[Tensor, Tensor, Tensor]:
        guide = applied(self.in_proj_b, call.x[:, call.x.shape[1] // 2 :])
        return super().selection(guide if call.shares is None else call.shares.take(guide), call)

    def flops(self, grid: Grid | tuple[int, ...]) -> int:
        length, _ = self._visits(grid)
        return super().flops(grid) + 2 * length * self.d_model * self.d_inner


def _half(mixer: Mamba, x: Tensor, seq_idx: Tensor | None) -> int:
    """Tokens of one input."""
    check_shape("x", x, (None, None, mixer.d_model), note="")
    if x.shape[1] % 2:
        raise UserError(
            "two inputs have equally many tokens", given=f"{x.shape[1]} tokens",
            allowed="(batch, 2 * length, channels): the first input's and behind them the second's",
        )  # fmt: skip
    if seq_idx is not None:
        raise UserError("two inputs cannot be packed", given="seq_idx", allowed="seq_idx=None")
    return x.shape[1] // 2


def _both(grid: Grid | tuple[int, ...] | None, length: int) -> tuple[int, ...]:
    """The grid of both inputs, one behind the other."""
    sizes, extra = sizes_of(grid, length)
    if extra:
        raise UserError("two inputs have no class tokens", given=f"{len(extra)} tokens that are not on the grid")
    return (2, *sizes)
