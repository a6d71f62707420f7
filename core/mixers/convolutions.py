"""The depthwise convolution of a Mamba mixer, SiLU behind it: along each path, over the grid, or none.

A mixer is made with one of these classes, which adds the layers to the mixer itself, under the names of published checkpoints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from ..linear import CONVOLUTION
from .path_layers import convolved, convolved_on_grid, readable

if TYPE_CHECKING:
    from .mamba import Mamba
    from .mixer import Call

GRID_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class PathConvolution:
    """Causal, along each path; a layer for each set of parameters: conv1d, conv1d_b, ...

    Args:
        width: of the kernel; None: 4.
        axes: of the grid. Not used: a path is a line.
        ends: what the layers' names end with.

    Attributes:
        along_path: whether what it says of a token depends on the path. taps: of the kernel, in all. decoded: whether
            ops/mamba_decode computes the same.
    """

    name, along_path, decoded = "path", True, True

    def __init__(self, width: int | None, axes: int, ends: list[str]):
        self.width = self.taps = 4 if width is None else width
        self.names = [f"conv1d{end}" for end in ends]

    def add(self, mixer: Mamba, bias: bool, factory: dict) -> None:
        """Add the layers to a mixer."""
        for name in self.names:
            mixer.add_module(name, _depthwise(nn.Conv1d, mixer.d_inner, self.width, bias, factory))

    def parts(self, mixer: Mamba) -> tuple[list[Tensor], list[Tensor] | None] | None:
        """Each layer's weight (channels, 1, width) and bias, where calling it does no more than compute with them."""
        layers = [getattr(mixer, name) for name in self.names]
        if not readable(layers, CONVOLUTION):
            return None
        return [layer.weight for layer in layers], None if layers[0].bias is None else [layer.bias for layer in layers]

    def __call__(self, mixer: Mamba, x: Tensor, call: Call, order: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(batch, [paths,] length, channels) of the same or of (batch, length, channels), and the state to continue from."""
        layers, before = [getattr(mixer, name) for name in self.names], None if call.state is None else call.state.conv
        return convolved(layers, x, self.width, "silu", order, call.seq_idx, before, mixer.backend)


class GridConvolution:
    """Over the grid, not causal, one layer for all paths: conv1d, conv2d or conv3d. Extra tokens take the centre tap.

    Args:
        width: of the kernel along each axis, odd; None: 3.
        axes: of the grid.
        ends: not used.
        layer: its name, other than that.
    """

    name, along_path = "grid", False

    def __init__(self, width: int | None, axes: int, ends: list[str] | None = None, layer: str | None = None):
        self.width, self.axes = 3 if width is None else width, axes
        self.taps, self.layer = self.width**axes, f"conv{axes}d" if layer is None else layer
        if self.width % 2 == 0:
            raise UserError(
                "a convolution on the grid needs an odd kernel", given=f"d_conv={width}", allowed="3, 5, 7, ..."
            )

    def add(self, mixer: Mamba, bias: bool, factory: dict) -> None:
        mixer.add_module(self.layer, _depthwise(GRID_LAYERS[self.axes - 1], mixer.d_inner, self.width, bias, factory))

    def __call__(self, mixer: Mamba, x: Tensor, call: Call, order: Tensor | None) -> tuple[Tensor, None]:
        if call.seq_idx is not None:
            raise UserError(
                "packed sequences cannot be convolved on a grid",
                given="conv=grid with seq_idx",
                allowed="conv=path, conv=none",
            )
        if len(call.sizes) != self.axes:
            raise UserError(
                f"this mixer was made for grids of {self.axes} axes", given=f"grid {call.sizes}",
                allowed=f"{self.axes} axes", do=f"Mamba(..., axes={len(call.sizes)})",
            )  # fmt: skip
        return F.silu(convolved_on_grid(getattr(mixer, self.layer), x, self.width, call.sizes, call.extra)), None


class NoConvolution:
    """SiLU alone."""

    name, along_path, width, taps = "none", False, 0, 0

    def __init__(self, width: int | None, axes: int, ends: list[str]):
        pass

    def add(self, mixer: Mamba, bias: bool, factory: dict) -> None:
        pass

    def __call__(self, mixer: Mamba, x: Tensor, call: Call, order: Tensor | None) -> tuple[Tensor, None]:
        return F.silu(x), None


CONVOLUTIONS = {kind.name: kind for kind in (PathConvolution, GridConvolution, NoConvolution)}


def _depthwise(kind: type[nn.Module], channels: int, width: int, bias: bool, factory: dict) -> nn.Module:
    return kind(channels, channels, width, groups=channels, bias=bias, **factory)
