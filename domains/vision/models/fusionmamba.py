"""FusionMamba (arXiv 2404.07932): the bands of a coarse image sharpened by a fine panchromatic one, in a U of two branches.

At every level each image is mixed by itself over four paths, then each by what the other selects. Module names are those of the
published code (there "U2Net"), its misspelling too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from ....core.errors import UserError
from ....core.mixers import GuidedMamba, NormedMamba
from ....core.ranges import Depth, Positive, Size, checked
from ....core.scans import Grid, Scan
from ....core.scans import get as get_scan
from ...padding import cropped, filled_up
from ..bands import check_pair
from .backbone import grids_of, size_for
from .panmamba import checkpoint_filter_fn
from .registration import FILTERS

SIZES = {"micro": {"dim": 8}, "base": {"dim": 32}}
COARSEST = 4  # pixels of a token of the last level, along each axis


class SingleMambaBlock(nn.Module):
    """A mixer of one image's tokens, to which it is added."""

    def __init__(self, dim: int, **mixing):
        super().__init__()
        self.norm, self.block = nn.LayerNorm(dim), NormedMamba(dim, **mixing)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """(batch, length, dim) to the same."""
        return self.block(self.norm(x), grid)[0] + x


class CrossMambaBlock(nn.Module):
    """A mixer of one image's tokens by what another's select; it is added to the first."""

    def __init__(self, dim: int, **mixing):
        super().__init__()
        self.norm0, self.norm1, self.block = nn.LayerNorm(dim), nn.LayerNorm(dim), GuidedMamba(dim, **mixing)

    def forward(self, x: Tensor, guide: Tensor, grid: tuple[int, int]) -> Tensor:
        """(batch, length, dim) each to the first's."""
        return self.block(torch.cat([self.norm0(x), self.norm1(guide)], 1), grid)[0] + x


class Fusion(nn.Module):
    """Each image alone, then each by the other; the mean of what both say is added to the bands."""

    def __init__(self, dim: int, depth: int, **mixing):
        super().__init__()
        self.spa_mamba_layers, self.spe_mamba_layers = (
            nn.ModuleList(SingleMambaBlock(dim, **mixing) for _ in range(depth)) for _ in range(2)
        )
        self.spa_cross_mamba, self.spe_cross_mamba = (CrossMambaBlock(dim, **mixing) for _ in range(2))
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, pan: Tensor, ms: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (batch, dim, height, width) of both to the same."""
        grid = tuple(pan.shape[2:])
        pan, ms = pan.flatten(2).mT, ms.flatten(2).mT
        for of_pan, of_ms in zip(self.spa_mamba_layers, self.spe_mamba_layers, strict=True):
            pan, ms = of_pan(pan, grid), of_ms(ms, grid)
        fused = self.out_proj((self.spa_cross_mamba(pan, ms, grid) + self.spe_cross_mamba(ms, pan, grid)) / 2)
        return tuple(each.mT.unflatten(2, grid) for each in (pan, ms + fused))


class Down(nn.Module):
    """Half as many rows and columns."""

    def __init__(self, given: int, dim: int):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(given, dim, 2, 2), nn.LeakyReLU())

    def forward(self, x: Tensor) -> Tensor:
        """(batch, given, height, width) to (batch, dim, height / 2, width / 2)."""
        return self.down(x)


class Up(nn.Module):
    """Twice as many rows and columns, on top of the map of that size from the way down."""

    def __init__(self, given: int, dim: int):
        super().__init__()
        self.up = nn.Sequential(nn.ConvTranspose2d(given, dim, 2, 2), nn.LeakyReLU())
        self.conv = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.LeakyReLU())

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """(batch, given, height, width) and (batch, dim, 2 * height, 2 * width) to the latter."""
        return self.conv(self.up(x) + before)


class Stage(nn.Module):
    """A fusion, then the same step up or down for both images."""

    def __init__(self, given: int, dim: int, step: type[Down] | type[Up], depth: int, **mixing):
        super().__init__()
        self.fm, self.sample = Fusion(given, depth, **mixing), step(given, dim)


class FusionMamba(nn.Module):
    """FusionMamba, for images of any size; those that do not divide by 4 are filled up.

    Args:
        bands: of the coarse image. ratio: pixels of the panchromatic image per pixel of it, along each axis.
        image_size: of the panchromatic image, for pictures of the scan.
        dim: channels of the finest level, doubled at the next two. depth: mixers of each image alone, at each level.
        scan: of all mixers. d_state, expand, backend: as of core.mixers.Mamba.
    """

    @checked
    def __init__(
        self,
        bands: Size,
        ratio: Size = 4,
        image_size: tuple[int, int] = (64, 64),
        dim: Size = 32,
        depth: Depth = 1,
        scan: str | Scan = "cross",
        d_state: Size = 8,
        expand: Positive = 1,
        backend: str = "auto",
    ):
        super().__init__()
        self.bands, self.ratio, self.image_size, self.scan = bands, ratio, tuple(image_size), get_scan(scan)
        if self.scan.layers > 1:
            raise UserError(
                "every mixer here walks the same paths", given=f"scan={self.scan.name}, whose layers take turns",
                allowed="a scan whose layers walk the same paths, such as cross, local, hilbert",
            )  # fmt: skip
        mixing = {"scan": self.scan, "axes": 2, "d_state": d_state, "expand": expand, "backend": backend}
        self.upsample = nn.Sequential(
            OrderedDict(
                upsamle=nn.Sequential(
                    nn.Conv2d(bands, bands * ratio**2, 3, padding=1, bias=False), nn.PixelShuffle(ratio)
                )
            )
        )
        self.raise_pan_dim, self.raise_ms_dim = (
            nn.Sequential(nn.Conv2d(channels, dim, 3, padding=1), nn.LeakyReLU()) for channels in (1, bands)
        )
        self.to_hrms = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1), nn.LeakyReLU(), nn.Conv2d(dim, bands, 3, padding=1)
        )
        self.stage0 = Stage(dim, 2 * dim, Down, depth, **mixing)
        self.stage1 = Stage(2 * dim, 4 * dim, Down, depth, **mixing)
        self.stage2 = Stage(4 * dim, 2 * dim, Up, depth, **mixing)
        self.stage3 = Stage(2 * dim, dim, Up, depth, **mixing)
        self.stage4 = Fusion(dim, depth, **mixing)

    @property
    def tokens(self) -> int:
        """Tokens of the finest level, for an image of the usual size."""
        return self.grids[0].tokens

    @property
    def grids(self) -> list[Grid]:
        """The tokens of the three levels, for an image of the usual size."""
        return grids_of([side + -side % COARSEST for side in self.image_size], [1, 2, COARSEST])

    def forward(self, ms: Tensor, pan: Tensor) -> Tensor:
        """The bands at the size of the panchromatic image; arguments and result as of PanMamba."""
        check_pair(ms, pan, self.bands, self.ratio)
        large, sizes = self.upsample(ms), pan.shape[2:]
        pan, ms = (
            rise(filled_up(each, COARSEST)) for rise, each in ((self.raise_pan_dim, pan), (self.raise_ms_dim, large))
        )
        passed = []
        for stage in (self.stage0, self.stage1):
            passed.append(stage.fm(pan, ms))
            pan, ms = map(stage.sample, passed[-1])
        for stage in (self.stage2, self.stage3):
            pan, ms = map(stage.sample, stage.fm(pan, ms), passed.pop())
        return cropped(self.to_hrms(self.stage4(pan, ms)[1]), sizes) + large


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan = "cross",
    size: Literal["micro", "base"] | None = None,
    dim: Size | None = None,
    depth: Depth = 1,
    d_state: Size = 8,
    expand: Positive = 1,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> FusionMamba:
    """A FusionMamba for a data set.

    Args:
        describe: the data set's own description: channels (bands), ratio, image_size (height, width), model_size.
        scan: of all its mixers.
        size: a size of SIZES; None: what the data set asks for ("tiny": base). dim: other than the size's.
    """
    sized = size_for(describe, size, {**SIZES, "tiny": SIZES["base"]}) | ({} if dim is None else {"dim": dim})
    return FusionMamba(
        describe["channels"], describe["ratio"], tuple(describe["image_size"]), scan=scan, depth=depth, d_state=d_state,
        expand=expand, backend=backend, **sized,
    )  # fmt: skip


FILTERS[FusionMamba] = checkpoint_filter_fn
