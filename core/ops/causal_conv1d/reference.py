"""The causal depthwise convolution in plain PyTorch: the definition that every other backend is held to.

Along each path, with steps s, per channel:  y_s = activation(bias + sum_w weight_w x_{s - (width - 1) + w}).
Steps before the first one are the initial state's; where seq_idx changes, those before the change count as zero.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..paths import along_paths, restart_of_step, token_of_step


def causal_conv1d_reference(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, order: Tensor | None, seq_idx: Tensor | None,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One tap after the other, on any device and dtype, differentiable by PyTorch itself (twice too).

    Args:
        x: (batch, paths or 1, length, channels).
        weight: (paths, channels, width).
        bias: (paths, channels) or None.
        activation: "silu" or None.
        order: (batch or 1, paths, steps) or None for the raster order.
        seq_idx: (batch, length) or None.
        initial_state: (batch, paths, channels, width - 1) or None: what came before the first step, oldest first.

    Returns:
        (batch, paths, length, channels) in x's dtype, zero where no step lands; final state, like initial_state.
    """
    (batch, _, length, channels), (paths, _, width) = x.shape, weight.shape
    real = torch.promote_types(x.dtype, torch.float32)
    token, visited = token_of_step(order, batch, paths, length, x.device)
    steps = token.shape[2]
    index = token[..., None].expand(-1, -1, -1, channels)
    rows = along_paths(x.to(real), token, visited)
    if initial_state is None:
        before = rows.new_zeros(batch, paths, width - 1, channels)
    else:
        before = initial_state.to(real).transpose(2, 3)
    history = torch.cat([before, rows], 2)

    restart = restart_of_step(seq_idx, token, visited)
    y = rows.new_zeros(batch, paths, steps, channels)
    for tap in range(width):
        lag = width - 1 - tap
        part = history[:, :, tap : tap + steps] * weight.to(real)[None, :, None, :, tap]
        if restart is not None and lag:
            part = part.masked_fill(_restarted_within(restart, lag)[..., None], 0)
        y = y + part
    if bias is not None:
        y = y + bias.to(real)[None, :, None]
    if activation == "silu":
        y = F.silu(y)
    y = y.masked_fill(~visited[..., None], 0)
    out = y.new_zeros(batch, paths, length, channels).scatter_add(2, index, y)
    return out.to(x.dtype), _last_rows(history, visited, restart, width)


def _restarted_within(restart: Tensor, lag: int) -> Tensor:
    """Whether a sequence began in the last `lag` steps, this one included: then the tap that far back is cut off."""
    padded = F.pad(restart, (lag - 1, 0))
    return torch.stack([padded[..., i : i + restart.shape[-1]] for i in range(lag)]).any(0)


def _last_rows(history: Tensor, visited: Tensor, restart: Tensor | None, width: int) -> Tensor:
    """The last width - 1 inputs of each path, oldest first: (batch, paths, channels, width - 1)."""
    steps = visited.sum(-1)
    rows = steps[..., None] + torch.arange(width - 1, device=steps.device)
    last = history.gather(2, rows[..., None].expand(-1, -1, -1, history.shape[-1]))
    if restart is not None and restart.shape[-1]:
        begin = torch.where(restart, torch.arange(restart.shape[-1], device=steps.device), 0).amax(-1, keepdim=True)
        begin = torch.where(restart.any(-1, keepdim=True), begin + width - 1, 0)
        last = last.masked_fill((rows < begin)[..., None], 0)
    return last.transpose(2, 3)
