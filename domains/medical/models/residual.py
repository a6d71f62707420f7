"""The residual blocks of nnU-Net and U-Mamba (Isensee et al. 2024, arXiv 2404.09556; Ma et al. 2024, arXiv 2401.04722).

Parameter names are those of U-Mamba's checkpoints, without the second names that these give to the same tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def convolution(inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int] | int = 1) -> nn.Module:
    """A convolution over as many axes as its kernel has, padded so that stride 1 keeps the sizes."""
    stride = stride if isinstance(stride, int) else tuple(stride)
    return CONVOLUTIONS[len(kernel)](inputs, outputs, tuple(kernel), stride, tuple(size // 2 for size in kernel))


def instance_norm(channels: int, axes: int) -> nn.Module:
    """Instance norm with weight and bias."""
    return NORMS[axes](channels, affine=True)


class WideningBlock(nn.Module):
    """Two convolutions with norms, and a convolution of one voxel around them: channels and sizes may change.

    Maps are (batch, channels, *sizes).
    """

    def __init__(self, inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int] | int = 1):
        super().__init__()
        axes = len(kernel)
        self.conv1 = convolution(inputs, outputs, kernel, stride)
        self.norm1 = instance_norm(outputs, axes)
        self.conv2 = convolution(outputs, outputs, kernel)
        self.norm2 = instance_norm(outputs, axes)
        self.conv3 = convolution(inputs, outputs, (1,) * axes, stride)
        self.activation = nn.LeakyReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(self.activation(self.norm1(self.conv1(x)))))
        return self.activation(inner + self.conv3(x))


class NormedConvolution(nn.Module):
    """A convolution and its instance norm."""

    def __init__(self, channels: int, kernel: Sequence[int]):
        super().__init__()
        self.conv, self.norm = convolution(channels, channels, kernel), instance_norm(channels, len(kernel))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class KeepingBlock(nn.Module):
    """Two convolutions with norms, and the input added: channels and sizes stay."""

    def __init__(self, channels: int, kernel: Sequence[int]):
        super().__init__()
        self.conv1, self.conv2 = NormedConvolution(channels, kernel), NormedConvolution(channels, kernel)
        self.activation = nn.LeakyReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.conv2(self.activation(self.conv1(x))) + x)


def stage(inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int] | int, blocks: int) -> nn.Sequential:
    """A block that changes channels and sizes, then blocks that keep them: `blocks` in all."""
    first = WideningBlock(inputs, outputs, kernel, stride)
    return nn.Sequential(first, *(KeepingBlock(outputs, kernel) for _ in range(blocks - 1)))
