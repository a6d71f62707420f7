"""Depthwise convolution over a grid of tokens among which class tokens may stand."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .extra_tokens import extra_alone, with_extra, without_extra


def grid_conv(x: Tensor, weight: Tensor, bias: Tensor | None, sizes: tuple[int, ...], extra: tuple[int, ...]) -> Tensor:
    """Depthwise "same" convolution on the grid; a token outside the grid is multiplied by the centre tap.

    Args:
        x: (batch, length, channels).
        weight: (channels, 1, kernel, ...), a kernel axis for each of `sizes`, odd.
        bias: (channels,).
        sizes: the grid's, in tokens.
        extra: ascending positions in the sequence of the tokens that are not on the grid.

    Returns:
        (batch, length, channels).
    """
    convolve = (F.conv1d, F.conv2d, F.conv3d)[len(sizes) - 1]
    tokens = without_extra(x, extra)
    if 0 not in sizes:  # of an empty image PyTorch's convolution says that the kernel is too large
        padding = [size // 2 for size in weight.shape[2:]]
        image = convolve(
            tokens.unflatten(1, sizes).movedim(-1, 1), weight, bias, padding=padding, groups=weight.shape[0]
        )
        tokens = image.movedim(1, -1).flatten(1, -2)
    if not extra:
        return tokens
    centre = weight.flatten(1)[:, weight[0].numel() // 2]
    others = extra_alone(x, extra) * centre
    others = others if bias is None else others + bias
    return with_extra(tokens, others.to(tokens.dtype), extra)


def grid_conv_called(x: Tensor, layer: nn.Module, width: int, sizes: tuple[int, ...], extra: tuple[int, ...]) -> Tensor:
    """grid_conv by calling a convolution without padding of its own: on the padded grid, and on each token outside alone.

    Args:
        width: of the kernel along each axis.
    """
    around, tokens = [width // 2] * (2 * len(sizes)), without_extra(x, extra)
    if 0 not in sizes:
        image = tokens.unflatten(1, sizes).movedim(-1, 1)
        tokens = layer(F.pad(image, around)).movedim(1, -1).flatten(1, -2).to(x.dtype)
    if not extra:
        return tokens
    alone = extra_alone(x, extra).flatten(0, 1)[(..., *[None] * len(sizes))]
    others = layer(F.pad(alone, around)).flatten(1).unflatten(0, (x.shape[0], -1))
    return with_extra(tokens, others.to(tokens.dtype), extra)
