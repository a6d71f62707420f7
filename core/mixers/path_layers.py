"""The layers of a mixer's paths: the weights of all paths at once where they are plain, else each layer called.

A layer that something stands in for, or that hooks listen to, counts with what it says. A convolution is then called on each
path's tokens in visiting order, (batch, channels, width - 1 + steps): what came before the path (zeros or a state) stands in front,
and so many zeros before each further sequence of a packed row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..linear import CONVOLUTION, is_plain
from ..ops.arguments import count_paths, with_paths
from ..ops.causal_conv1d import causal_conv1d
from ..ops.linear import linear
from ..ops.paths import along_paths, onto_tokens, restart_of_step, token_of_step
from .grid_conv import grid_conv, grid_conv_called


def product(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """What the paths' linear layers make of x, without what `bias_left_out` says.

    Args:
        layers: one for all paths, or one a path.
        x: (batch, [paths,] length, inputs).

    Returns:
        (batch, [paths,] length, outputs): with the paths axis where x has it or there are several layers.
    """
    return multiplied(stacked(layers, "weight"), x) if readable(layers) else called(layers, x)


def multiplied(weight: Tensor, x: Tensor) -> Tensor:
    """x weight^T for one weight, (outputs, inputs), or the paths' own, (paths, outputs, inputs); shapes as of `product`."""
    if weight.dim() == 2:
        return linear(x, weight)
    if x.dim() == 3:
        return F.linear(x, weight.flatten(0, 1)).unflatten(-1, weight.shape[:2]).transpose(1, 2)
    # Of (batch, paths, length, inputs) no copy where the paths lie outermost in memory.
    rows = x.transpose(0, 1)
    y = torch.bmm(rows.flatten(1, 2), weight.transpose(1, 2))
    return y.unflatten(1, rows.shape[1:3]).transpose(0, 1)


def bias_left_out(layers: Sequence[nn.Module]) -> Tensor | None:
    """The biases that a `product` lacks, ([paths,] outputs); None where there are none, or it has them: layers were called."""
    return stacked(layers, "bias") if readable(layers) else None


def called(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Every path's layer called on its part of x, (batch, [paths,] length, inputs), or on all of it where it has no paths."""
    if len(layers) == 1:
        return layers[0](x)
    parts = [x] * len(layers) if x.dim() == 3 else x.unbind(1)
    return torch.stack([layer(part) for layer, part in zip(layers, parts, strict=True)], 1)


def normed(layers: Sequence[nn.Module], x: Tensor, eps: float) -> Tensor:
    """x through the paths' RMS norms; shapes as of `product`."""
    if not _all_plain(layers, (nn.RMSNorm,)):
        return called(layers, x)
    weight = stacked(layers, "weight")
    return F.rms_norm(x, x.shape[-1:], eps=eps) * (weight if weight.dim() == 1 else weight[:, None])


def convolved(
    layers: Sequence[nn.Module], x: Tensor, width: int, activation: str | None = "silu", order: Tensor | None = None,
    seq_idx: Tensor | None = None, state: Tensor | None = None, backend: str = "auto",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """causal_conv1d with the weights of depthwise convolutions: what it returns, and its final state.

    Args:
        layers: one for all paths, or one a path; without padding of their own.
        x, activation, order, seq_idx, state, backend: as there. width: of the convolutions.
    """
    if _all_plain(layers, CONVOLUTION):
        weight = stacked(layers, "weight").squeeze(-2)
        return causal_conv1d(x, weight, stacked(layers, "bias"), activation, order, seq_idx, state, True, backend)
    y = _called_along(layers, x, width, order, seq_idx, state)
    # What is kept of the inputs does not depend on the weights.
    weight = x.new_zeros(len(layers), x.shape[-1], width)
    weight = weight[0] if len(layers) == 1 else weight
    _, kept = causal_conv1d(x, weight, None, None, order, seq_idx, state, True, backend)
    return F.silu(y) if activation == "silu" else y, kept


def convolved_on_grid(layer: nn.Module, x: Tensor, width: int, sizes, extra) -> Tensor:
    """grid_conv with the weights of a depthwise convolution of that kernel size, or with the convolution called."""
    if is_plain(layer, CONVOLUTION):
        return grid_conv(x, layer.weight, layer.bias, sizes, extra)
    return grid_conv_called(x, layer, width, sizes, extra)


def stacked(layers: Sequence[nn.Module], kind: str) -> Tensor | None:
    """A parameter of the one layer there is, or those of the paths stacked: ([paths,] ...)."""
    parts = [getattr(layer, kind) for layer in layers]
    return parts[0] if len(parts) == 1 or parts[0] is None else torch.stack(parts)


def readable(layers: Sequence[nn.Module], *kinds) -> bool:
    """Whether the weights may be read past the layers, and all have biases, or none has."""
    return _all_plain(layers, *kinds) and len({layer.bias is None for layer in layers}) == 1


def _all_plain(layers: Sequence[nn.Module], *kinds) -> bool:
    return all(is_plain(layer, *kinds) for layer in layers)


def _called_along(layers, x: Tensor, width: int, order, seq_idx, state) -> Tensor:
    paths, has_paths = count_paths(order, {"x": (x, 3), "state": (state, 3)})
    paths, has_paths = max(paths, len(layers)), has_paths or len(layers) > 1
    order = order[None] if order is not None and order.dim() == 2 else order
    token, visited = token_of_step(order, x.shape[0], paths, x.shape[-2], x.device)
    rows = along_paths(with_paths(x, 4), token).masked_fill(~visited[..., None], 0)
    (batch, _, steps, channels), gap = rows.shape, width - 1
    restart = restart_of_step(seq_idx, token, visited)
    begun = torch.ones_like(token) if restart is None else 1 + restart.cumsum(-1)
    most = 1 if restart is None or not steps else int(begun.max())
    place = (torch.arange(steps, device=x.device) + gap * (begun - 1))[..., None].expand_as(rows)
    wide = rows.new_zeros(batch, paths, steps + gap * most, channels).scatter(2, place + gap, rows)
    if state is not None and gap:
        before = with_paths(state, 4).expand(-1, paths, -1, -1).transpose(2, 3)
        wide = torch.cat([before.to(wide.dtype), wide[:, :, gap:]], 2)
    parts = wide.transpose(2, 3).unbind(1)
    # A convolution refuses less than its width.
    said = [layers[min(path, len(layers) - 1)](part) if steps else part[..., :0] for path, part in enumerate(parts)]
    y = onto_tokens(torch.stack(said, 1).transpose(2, 3).gather(2, place), token, visited, x.shape[-2]).to(x.dtype)
    return y if has_paths else y.squeeze(1)
