"""The table of scan modes. A new one is a function from sizes to paths, a line here, and a file in configs/scan."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

from . import continuous, diagonal, hilbert, local, raster, skip, stereo
from .path import Path


@dataclass(frozen=True)
class Mode:
    """What is known about a scan mode.

    Args:
        function: sizes and the mode's parameters (annotated, with defaults) to its paths; it must accept empty grids.
        paper: where the mode comes from.
        ndims: the numbers of axes it makes sense for.
        per_layer: whether a layer walks one of the paths, the next layer the next one.
        disjoint: whether each grid token is on exactly one path.
        steps: sizes, which may be symbolic, and the mode's parameters to the grid tokens on the longest path, where that is
            not all of them.
        divides: the parameter that says the sides of the pieces into which it divides the grid, where it does.
    """

    function: Callable[..., list[Path]]
    paper: str
    ndims: tuple[int, ...] = (1, 2, 3)
    per_layer: bool = False
    disjoint: bool = False
    steps: Callable[..., int] | None = None
    divides: str | None = None

    @functools.cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The mode's parameters by name."""
        signature = inspect.signature(self.function, eval_str=True)
        return dict(list(signature.parameters.items())[1:])

    @functools.cached_property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return inspect.getdoc(self.function).splitlines()[0]

    def count(self, ndim: int, **parameters) -> int:
        """Number of paths over a grid of `ndim` axes; it does not depend on the sizes."""
        return len(self.function((0,) * ndim, **parameters))

    @functools.cached_property
    def period(self) -> int:
        """Number of layers after which the paths repeat, whatever the grid."""
        return math.lcm(*(self.count(ndim) for ndim in self.ndims)) if self.per_layer else 1


MAMBA = "Gu and Dao 2023, Mamba (arXiv:2312.00752)"
VIM = "Zhu et al. 2024, Vision Mamba (arXiv:2401.09417)"
VMAMBA = "Liu et al. 2024, VMamba (arXiv:2401.10166)"
PLAIN_MAMBA = "Yang et al. 2024, PlainMamba (arXiv:2403.17695)"
ZIGMA = "Hu et al. 2024, ZigMa (arXiv:2403.13802)"
HILBERT = (
    "Hilbert 1891; any sizes as in Červený's gilbert; in Mamba: ZigMa (arXiv:2403.13802), PointMamba (arXiv:2402.10739)"
)
EFFICIENT_VMAMBA = "Pei et al. 2024, EfficientVMamba (arXiv:2403.09977)"
LOCAL_MAMBA = "Huang et al. 2024, LocalMamba (arXiv:2403.09338)"
RS_MAMBA = "Zhao et al. 2024, RS-Mamba (arXiv:2404.02668)"
MAMBA_ND = "Li et al. 2024, Mamba-ND (arXiv:2402.05892)"
VIDEO_MAMBA = "Li et al. 2024, VideoMamba (arXiv:2403.06977)"
SEG_MAMBA = "Xing et al. 2024, SegMamba (arXiv:2401.13560); Yang et al. 2024, Vivim (arXiv:2401.14168)"
MOTION_MAMBA = (
    "windows as in LocalMamba (arXiv:2403.09338), from fine to whole as in Motion Mamba's hierarchy (arXiv:2403.07487)"
)
MULTI_SCALE = "several scales in one layer as in MSVMamba (arXiv:2405.14174), here by steps between tokens"
MSV_MAMBA = "Shi et al. 2024, MSVMamba (arXiv:2405.14174)"
HYBRID = "hybrid scanning (survey arXiv:2408.01129, section 4.2): two inputs in one sequence"
PAN_MAMBA = "He et al. 2024, Pan-Mamba (arXiv:2402.12192): two inputs, each read with parameters of its own"

MODES: dict[str, Mode] = {
    "raster": Mode(raster.raster, MAMBA),
    "reverse": Mode(raster.reverse, VIM),
    "bidirectional": Mode(raster.bidirectional, VIM),
    "column": Mode(raster.column, VMAMBA, ndims=(2, 3)),
    "column_reverse": Mode(raster.column_reverse, VMAMBA, ndims=(2, 3)),
    "cross": Mode(raster.cross, VMAMBA, ndims=(2, 3)),
    "cross_uni": Mode(raster.cross_uni, VMAMBA),
    "cross_bidi": Mode(raster.cross_bidi, VMAMBA),
    "cross_rot90": Mode(raster.cross_rot90, VMAMBA, ndims=(2,)),
    "continuous": Mode(continuous.continuous, PLAIN_MAMBA, ndims=(2, 3)),
    "zigzag": Mode(continuous.zigzag, ZIGMA, ndims=(2, 3), per_layer=True),
    "hilbert": Mode(hilbert.hilbert, HILBERT, ndims=(2, 3)),
    "skip": Mode(skip.skip, EFFICIENT_VMAMBA, disjoint=True, steps=skip.steps, divides="step"),
    "local": Mode(local.local, LOCAL_MAMBA, ndims=(2, 3), divides="window"),
    "local_flip": Mode(local.local_flip, LOCAL_MAMBA, ndims=(2, 3), divides="window"),
    "local_vim": Mode(local.local_vim, LOCAL_MAMBA, ndims=(2, 3)),
    "diagonal": Mode(diagonal.diagonal, RS_MAMBA, ndims=(2,)),
    "mamba_nd": Mode(raster.mamba_nd, MAMBA_ND, per_layer=True),
    "spatial_first": Mode(raster.spatial_first, VIDEO_MAMBA, ndims=(3,)),
    "temporal_first": Mode(raster.temporal_first, VIDEO_MAMBA, ndims=(3,)),
    "spatiotemporal": Mode(raster.spatiotemporal, VIDEO_MAMBA, ndims=(3,)),
    "slices": Mode(raster.slices, SEG_MAMBA, ndims=(3,)),
    "hierarchical": Mode(stereo.hierarchical, MOTION_MAMBA, ndims=(2, 3)),
    "dilated": Mode(stereo.dilated, MULTI_SCALE),
    "multi_scale": Mode(stereo.multi_scale, MSV_MAMBA, ndims=(2,)),
    "interleaved": Mode(stereo.interleaved, HYBRID, ndims=(2, 3)),
    "side_by_side": Mode(stereo.side_by_side, PAN_MAMBA, disjoint=True, steps=stereo.side_by_side_steps),
}
