"""How state space parameters begin: step sizes, decays, and the projection back into the residual stream.

Sources: Mamba (arXiv 2312.00752, section 3.6: S4D-real decays, log-uniform steps), GPT-2 (residual layers scaled by depth).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .errors import UserError


def log_decay(channels: int, states: int, device: torch.device | None = None) -> Tensor:
    """S4D-real decays A = -1, -2, ..., -states for every channel, as log(-A): float32 (channels, states)."""
    return torch.arange(1, states + 1, dtype=torch.float32, device=device).log().repeat(channels, 1)


@torch.no_grad()
def init_step_bias(bias: Tensor, smallest: float, largest: float, floor: float) -> None:
    """Fill biases (channels,) whose softplus is a step size drawn log-uniformly, and mark them to be left as they are.

    Args:
        smallest, largest: range of the step sizes.
        floor: steps below it are raised to it.
    """
    low, high = math.log(smallest), math.log(largest)
    draw = torch.rand(bias.shape, dtype=torch.float32, device=bias.device)
    step = torch.exp(draw * (high - low) + low).clamp(min=floor)
    bias.copy_(step + torch.log(-torch.expm1(-step)))
    bias._no_reinit = bias._no_weight_decay = True


@torch.no_grad()
def init_step_projection(weight: Tensor, kind: str, scale: float) -> None:
    """Fill the projection from step rank to channels, (channels, rank), so that the step's variance survives it.

    Args:
        kind: "random" (uniform in ± scale / sqrt(rank)) or "constant".
        scale: multiplies the bound.
    """
    bound = weight.shape[1] ** -0.5 * scale
    if kind == "random":
        weight.uniform_(-bound, bound)
    elif kind == "constant":
        weight.fill_(bound)
    else:
        raise UserError(f"unknown dt_init {kind!r}", given=kind, allowed=("random", "constant"))


@torch.no_grad()
def scale_output_projections(model: nn.Module, layers: int, per_layer: int = 1) -> None:
    """Draw every `out_proj.weight` and `fc2.weight` anew, over sqrt(residual additions): depth does not grow the stream.

    Args:
        layers: blocks in the model.
        per_layer: residual additions of a block (2 with an MLP).
    """
    for name, parameter in model.named_parameters():
        if name.endswith(("out_proj.weight", "fc2.weight")) and parameter.dim() == 2:
            nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
            parameter.div_(math.sqrt(per_layer * layers))
