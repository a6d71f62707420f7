"""The gated MLP of Mamba's hybrids (GLU variants, arXiv 2002.05202); parameter names of mamba_ssm's GatedMLP: fc1, fc2."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import check_choice
from .linear import applied
from .ranges import Size, checked

ACTIVATIONS = {"silu": F.silu, "gelu": F.gelu, "relu": F.relu, "sigmoid": torch.sigmoid}


class GatedMLP(nn.Module):
    """fc2(a * activation(b)) with a, b the halves of fc1(x).

    Args:
        d_model: channels of the tokens.
        d_hidden: channels between the layers; None: 8/3 of d_model.
        multiple_of: d_hidden is rounded up to a multiple of it.
        activation: of the gate: "silu", "gelu", "relu" or "sigmoid".
        bias: of both layers.
        device, dtype: of the parameters.
    """

    @checked
    def __init__(
        self,
        d_model: Size,
        d_hidden: Size | None = None,
        multiple_of: Size = 128,
        activation: str = "silu",
        bias: bool = False,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        check_activation(activation)
        wanted = 8 * d_model // 3 if d_hidden is None else d_hidden
        self.d_hidden = -(-wanted // multiple_of) * multiple_of
        self.d_model, self.activation = d_model, activation
        self.fc1 = nn.Linear(d_model, 2 * self.d_hidden, bias=bias, device=device, dtype=dtype)
        self.fc2 = nn.Linear(self.d_hidden, d_model, bias=bias, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_model) -> (..., d_model), every token by itself."""
        value, gate = applied(self.fc1, x).chunk(2, -1)
        return applied(self.fc2, value * ACTIVATIONS[self.activation](gate))

    def flops(self, length: int) -> int:
        """Floating point operations of a forward pass over so many tokens."""
        return 2 * length * 3 * self.d_model * self.d_hidden


def check_activation(name: str) -> None:
    """Raise a UserError for an activation that is not in the table."""
    check_choice("activation", name, ACTIVATIONS)
