"""What hierarchical models of grids share: the residual block, merging of patches, gates of channels. Tokens lie on their grid,
(batch, *sizes, channels)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .linear import normalised


def mix_grid(mixer: nn.Module, x: Tensor) -> Tensor:
    """mixer(x, grid) of tokens on their grid: (batch, *sizes, channels) to the same."""
    sizes = tuple(x.shape[1:-1])
    return mixer(x.flatten(1, -2), sizes)[0].unflatten(1, sizes)


class GridBlock(nn.Module):
    """Adds what the mixer says of the normalised tokens, then, where there is one, what the MLP says of them (VMamba's VSS block).

    Args:
        norm, op: the mixer, called as mixer(x, grid), and the norm before it.
        norm2, mlp: called as mlp(x), and the norm before it.
        drop_path: applied to what is added (stochastic depth).
    """

    def __init__(
        self, norm: nn.Module, op: nn.Module, norm2: nn.Module | None = None, mlp: nn.Module | None = None,
        drop_path: nn.Module | None = None,
    ):  # fmt: skip
        super().__init__()
        self.norm, self.op = norm, op
        self.drop_path = nn.Identity() if drop_path is None else drop_path
        if mlp is not None:
            self.norm2, self.mlp = norm2, mlp
        self.has_mlp = mlp is not None

    def forward(self, x: Tensor) -> Tensor:
        """(batch, *sizes, channels) to the same."""
        x = x + self.drop_path(mix_grid(self.op, normalised(self.norm, x).to(x.dtype)))
        if self.has_mlp:
            x = x + self.drop_path(self.mlp(normalised(self.norm2, x).to(x.dtype)))
        return x


def patches_of_two(x: Tensor) -> Tensor:
    """Every 2x2 tokens side by side, those of a column first: (batch, height, width, channels) to (..., 4 channels).

    A grid of odd sides is filled up with zeros at the far end.
    """
    x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
    return torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)


class PatchMerging(nn.Module):
    """Halves a grid: every 2x2 tokens side by side, normalised, projected (Swin, arXiv 2103.14030, section 3.1).

    Args:
        channels, outputs: of a token before and after; outputs None: twice as many.
    """

    def __init__(self, channels: int, outputs: int | None = None, device=None, dtype=None):
        super().__init__()
        outputs = 2 * channels if outputs is None else outputs
        self.norm = nn.LayerNorm(4 * channels, device=device, dtype=dtype)
        self.reduction = nn.Linear(4 * channels, outputs, bias=False, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, channels) to (batch, height / 2, width / 2, outputs), rounded up."""
        x = patches_of_two(x)
        return self.reduction(normalised(self.norm, x).to(x.dtype))


class PatchExpand(nn.Module):
    """A token into factor² tokens, each normalised (Swin-Unet, arXiv 2105.05537, section 3.5).

    Args:
        inputs: channels of a token. outputs: of each of the tokens that it becomes.
    """

    def __init__(self, inputs: int, outputs: int, factor: int = 2):
        super().__init__()
        self.factor = factor
        self.expand, self.norm = nn.Linear(inputs, factor**2 * outputs, bias=False), nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, inputs) to (batch, factor * height, factor * width, outputs)."""
        parts = self.expand(x).unflatten(-1, (self.factor, self.factor, -1))
        return self.norm(parts.transpose(2, 3).flatten(3, 4).flatten(1, 2))


class ChannelGate(nn.Module):
    """Multiplies each channel by a number of 0 to 1 that the mean of all tokens says (LocalMamba's BiAttn, its channel part).

    Args:
        channels: of a token. reduction: channels of the narrow layer are so many times fewer.
    """

    def __init__(self, channels: int, reduction: int = 8, device=None, dtype=None):
        super().__init__()
        narrow = max(channels // reduction, 1)
        self.norm = nn.LayerNorm(channels, device=device, dtype=dtype)
        self.global_reduce = nn.Linear(channels, narrow, device=device, dtype=dtype)
        self.channel_select = nn.Linear(narrow, channels, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, *any, length, channels) to the same; every row of tokens, (length, channels), by itself."""
        mean = normalised(self.norm, x).to(x.dtype).mean(-2, keepdim=True)
        return x * self.channel_select(F.gelu(self.global_reduce(mean))).sigmoid()

    def flops(self, sizes: Sequence[int]) -> int:
        """Floating point operations over one grid: of one token, the mean."""
        return 2 * (self.global_reduce.weight.numel() + self.channel_select.weight.numel())


def count_flops(module: nn.Module, sizes: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """Floating point operations of what a module's layers multiply, and the sizes of the grid behind it.

    Layers are taken one after the other, each once: a convolution with a stride makes the grid smaller, rounded up. A part that has
    `flops(sizes)`, such as a mixer, says itself.
    """
    sizes = tuple(sizes)
    if isinstance(own := getattr(module, "flops", None), Callable):
        return own(sizes), sizes
    if isinstance(module, nn.Linear):
        return 2 * math.prod(sizes) * module.weight.numel(), sizes
    if isinstance(module, PatchMerging):
        sizes = tuple(-(-size // 2) for size in sizes)
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        sizes = tuple(-(-size // stride) for size, stride in zip(sizes, module.stride, strict=True))
        return 2 * math.prod(sizes) * module.weight.numel(), sizes
    total = 0
    for child in module.children():
        found, sizes = count_flops(child, sizes)
        total += found
    return total, sizes
