"""Pan-Mamba (arXiv 2402.12192): the bands of a coarse image sharpened by a fine panchromatic one, every pixel a token.

Module names are those of the published code. What it holds but never uses, and so never learns, is left out: `identity` in the
residual blocks and `norm` behind the two projections to tokens.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.mixers import CrossModalMamba, Mamba
from ....core.ranges import Depth, Size, checked
from ....core.scans import Scan
from ....core.scans import get as get_scan
from ..bands import check_pair, enlarged
from .backbone import size_for
from .position import strip_wrapping
from .registration import FILTERS

SIZES = {
    "micro": {"width": 8, "depth": 1, "swaps": 1, "fusions": 1},
    "base": {"width": 32, "depth": 8, "swaps": 2, "fusions": 5},
}
UNUSED = re.compile(r"\.identity\.|_to_token\.norm\.")
SLOPE = 0.2  # of the leaky rectifiers below zero


def _norm(width: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(body=nn.LayerNorm(width)))


def _convolution(given: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(given, width, 3, padding=1)


class ResidualBlock(nn.Module):
    """Two convolutions; of what the first says, half of the channels are normalised over the image (HINet, arXiv 2105.06086)."""

    def __init__(self, width: int):
        super().__init__()
        self.conv_1, self.conv_2 = _convolution(width, width), _convolution(width, width)
        self.norm = nn.InstanceNorm2d(width // 2, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, height, width of the image) to the same."""
        y = F.leaky_relu(self.conv_1(x), SLOPE)
        half = self.norm.num_features
        y = torch.cat([self.norm(y[:, :half]), y[:, half:]], 1)
        return x + F.leaky_relu(self.conv_2(y), SLOPE)


class SingleMambaBlock(nn.Module):
    """A Mamba over one image's tokens; what it adds to is carried beside what it says."""

    def __init__(self, width: int, **mixing):
        super().__init__()
        self.encoder, self.norm = Mamba(width, **mixing), _norm(width)

    def forward(self, x: Tensor, residual: Tensor | int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Tokens (batch, length, width) and what was carried to the same."""
        residual = x + residual
        return self.encoder(self.norm(residual), grid)[0], residual


class TokenSwapMamba(nn.Module):
    """As SingleMambaBlock for both images, which exchange the first half of their channels before (channel swapping Mamba)."""

    def __init__(self, width: int, **mixing):
        super().__init__()
        self.msencoder, self.panencoder = Mamba(width, **mixing), Mamba(width, **mixing)
        self.norm1, self.norm2 = _norm(width), _norm(width)

    def forward(
        self, ms: Tensor, pan: Tensor, residuals: tuple[Tensor, Tensor], grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Tokens of both, (batch, length, width), and what was carried of both."""
        residuals = (ms + residuals[0], pan + residuals[1])
        ms, pan, half = self.norm1(residuals[0]), self.norm2(residuals[1]), ms.shape[2] // 2
        swapped = torch.cat([pan[..., :half], ms[..., half:]], 2), torch.cat([ms[..., :half], pan[..., half:]], 2)
        return self.msencoder(swapped[0], grid)[0], self.panencoder(swapped[1], grid)[0], residuals


class CrossMamba(nn.Module):
    """Both images in one mixer, whose answer is the bands'; then a depthwise convolution (cross-modal Mamba).

    Args:
        repeated: normalise twice, as the published code does.
    """

    def __init__(self, width: int, repeated: bool, **mixing):
        super().__init__()
        self.cross_mamba = CrossModalMamba(width, **mixing)
        self.norm1, self.norm2, self.repeated = _norm(width), _norm(width), repeated
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, ms: Tensor, residual: Tensor | int, pan: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Tokens (batch, length, width) of the bands, what was carried of them, and the panchromatic image's tokens."""
        residual = ms + residual
        both = [self.norm1(residual), self.norm2(pan)]
        if self.repeated:
            both = [self.norm1(both[0]), self.norm2(both[1])]
        found = self.cross_mamba(torch.cat(both, 1), grid)[0].mT.unflatten(2, grid)
        return (self.dwconv(found) + found).flatten(2).mT, residual


class ChannelAttention(nn.Module):
    """Two convolutions whose channels are weighted by their means over the image."""

    def __init__(self, width: int):
        super().__init__()
        few = max(1, width // 4)
        self.conv_du = nn.Sequential(nn.Conv2d(width, few, 1), nn.ReLU(), nn.Conv2d(few, width, 1), nn.Sigmoid())
        self.process = nn.Sequential(_convolution(width, width), nn.ReLU(), _convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """A map to a map of the same shape."""
        y = self.process(x)
        return self.conv_du(y.mean((2, 3), keepdim=True)) * y + x


class PanMamba(nn.Module):
    """Pan-Mamba, for images of any size.

    What the layers of each part carry beside their answers ends with the part, as in the published code.

    Args:
        bands: of the coarse image. ratio: pixels of the panchromatic image per pixel of it, along each axis.
        image_size: of the panchromatic image, for pictures of the scan.
        width: channels. depth: Mambas on each image alone. swaps, fusions: the two kinds of layers for both, in this order.
        scan: of the Mambas over one image. crossing: a scan mode over the grid (2, height, width) of both.
        d_state, backend: as of core.mixers.Mamba.
        compat: "published": as the published code has it the coarse image is enlarged by repeating its pixels, and norms before
            the last kind of layers are applied twice; None: bicubic, and once.
    """

    @checked
    def __init__(
        self,
        bands: Size,
        ratio: Size = 4,
        image_size: tuple[int, int] = (128, 128),
        width: Size = 32,
        depth: Depth = 8,
        swaps: Depth = 2,
        fusions: Depth = 5,
        scan: str | Scan = "raster",
        crossing: str | Scan = "side_by_side",
        d_state: Size = 16,
        compat: Literal["published"] | None = None,
        backend: str = "auto",
    ):
        super().__init__()
        self.bands, self.ratio, self.image_size, self.compat = bands, ratio, tuple(image_size), compat
        self.scan, self.crossing = get_scan(scan), get_scan(crossing)
        mixing = {"d_state": d_state, "axes": 2, "backend": backend}

        def walking(layer: int) -> dict:
            return {**mixing, "scan": self.scan.layer(layer)}

        self.pan_encoder, self.ms_encoder = (
            nn.Sequential(_convolution(channels, width), *(ResidualBlock(width) for _ in range(3))) for channels in (1, bands)
        )  # fmt: skip
        self.shallow_fusion1, self.shallow_fusion2 = (_convolution(2 * width, width) for _ in range(2))
        self.ms_to_token, self.pan_to_token = (
            nn.Sequential(OrderedDict(proj=nn.Conv2d(width, width, 1))) for _ in range(2)
        )
        for number in range(fusions):
            crossed = {**mixing, "scan": self.crossing.layer(number)}
            self.add_module(f"deep_fusion{number + 1}", CrossMamba(width, compat == "published", **crossed))
        self.pan_feature_extraction, self.ms_feature_extraction = (
            nn.ModuleList(SingleMambaBlock(width, **walking(layer)) for layer in range(depth)) for _ in range(2)
        )
        for number in range(swaps):
            self.add_module(f"swap_mamba{number + 1}", TokenSwapMamba(width, **walking(depth + number)))
        self.swaps, self.fusions = swaps, fusions
        self.output = nn.Sequential(
            OrderedDict(
                conv_in=_convolution(width, width),
                process=nn.Sequential(ChannelAttention(width)),
                conv_last=_convolution(width, bands),
            )
        )

    @property
    def tokens(self) -> int:
        """Tokens of an image of the usual size."""
        return math.prod(self.image_size)

    @property
    def walks(self) -> list[tuple]:
        """What is walked for an image of the usual size."""
        return [(self.scan, self.image_size, "each image"), (self.crossing, (2, *self.image_size), "both images")]

    def forward(self, ms: Tensor, pan: Tensor) -> Tensor:
        """The bands at the size of the panchromatic image.

        Args:
            ms: (batch, bands, height, width). pan: (batch, 1, ratio * height, ratio * width); both about 0 to 1.

        Returns:
            (batch, bands, ratio * height, ratio * width).
        """
        check_pair(ms, pan, self.bands, self.ratio)
        large, grid = enlarged(ms, pan, "nearest" if self.compat else "bicubic"), tuple(pan.shape[2:])
        ms, pan = self._each(self.ms_encoder(large), self.pan_encoder(pan), grid)
        ms, pan = (each.mT.unflatten(2, grid) for each in (ms, pan))
        ms = self.shallow_fusion1(torch.cat([ms, pan], 1)) + ms
        pan = self.shallow_fusion2(torch.cat([pan, ms], 1)) + pan
        ms, pan, residual = _tokens(self.ms_to_token, ms), _tokens(self.pan_to_token, pan), 0
        for number in range(self.fusions):
            ms, residual = self.get_submodule(f"deep_fusion{number + 1}")(ms, residual, pan, grid)
        return self.output(ms.mT.unflatten(2, grid)) + large

    def _each(self, ms: Tensor, pan: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Maps (batch, width, height, width of the image) to tokens, each image through its own layers, then both with swaps."""
        ms, pan, residuals = _tokens(self.ms_to_token, ms), _tokens(self.pan_to_token, pan), (0, 0)
        for of_ms, of_pan in zip(self.ms_feature_extraction, self.pan_feature_extraction, strict=True):
            (ms, first), (pan, second) = of_ms(ms, residuals[0], grid), of_pan(pan, residuals[1], grid)
            residuals = (first, second)
        for number in range(self.swaps):
            ms, pan, residuals = self.get_submodule(f"swap_mamba{number + 1}")(ms, pan, residuals, grid)
        return ms, pan


def _tokens(projection: nn.Module, x: Tensor) -> Tensor:
    return projection(x).flatten(2).mT


def checkpoint_filter_fn(state_dict: Mapping, model: nn.Module) -> dict[str, Tensor]:
    """A published state dict as the models here have it: unwrapped, without what is never used."""
    state = {name.removeprefix("module."): value for name, value in strip_wrapping(dict(state_dict)).items()}
    return {name: value for name, value in state.items() if not UNUSED.search(name)}


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan = "raster",
    size: Literal["micro", "base"] | None = None,
    width: Size | None = None,
    crossing: str = "side_by_side",
    d_state: Size = 16,
    compat: Literal["published"] | None = None,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> PanMamba:
    """A Pan-Mamba for a data set.

    Args:
        describe: the data set's own description: channels (bands), ratio, image_size (height, width), model_size.
        scan: of its layers on one image. crossing: of those on both.
        size: a size of SIZES; None: what the data set asks for ("tiny": base). width: other than the size's.
    """
    sized = size_for(describe, size, {**SIZES, "tiny": SIZES["base"]}) | ({} if width is None else {"width": width})
    return PanMamba(
        describe["channels"], describe["ratio"], tuple(describe["image_size"]), scan=scan, crossing=crossing, d_state=d_state,
        compat=compat, backend=backend, **sized,
    )  # fmt: skip


FILTERS[PanMamba] = checkpoint_filter_fn
