"""The position-wise network of the sequential recommenders: two linear layers, a residual and a norm behind it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import check_choice
from ....core.linear import applied

EPS = 1e-12  # of the papers' norms
ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu, "swish": F.silu, "hardswish": F.hardswish}
MAMBA4REC, RECBOLE, TIM4REC = (
    ("w_1", "w_2", "LayerNorm"),
    ("dense_1", "dense_2", "LayerNorm"),
    ("fc1", "fc2", "layer_norm"),
)


class FeedForward(nn.Module):
    """norm(x + dropout(second(activation(first(x))))), (..., channels) to (..., channels).

    Args:
        channels, inner: of the events, and between the layers.
        dropout: before the residual; drop_inner: also between the layers.
        activation: "gelu", "relu", "swish" or "hardswish".
        names: of the layers and the norm in the paper's checkpoints. eps: of the norm.
    """

    def __init__(
        self, channels: int, inner: int, dropout: float, activation: str = "gelu",
        names: tuple[str, str, str] = MAMBA4REC, drop_inner: bool = True, eps: float = EPS,
    ):  # fmt: skip
        super().__init__()
        check_choice("activation", activation, ACTIVATIONS)
        self.activation, self.drop_inner, self.names = activation, drop_inner, names
        self.add_module(names[0], nn.Linear(channels, inner))
        self.add_module(names[1], nn.Linear(inner, channels))
        self.add_module(names[2], nn.LayerNorm(channels, eps))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        first, second, norm = (getattr(self, name) for name in self.names)
        inner = ACTIVATIONS[self.activation](applied(first, x))
        return norm(x + self.dropout(applied(second, self.dropout(inner) if self.drop_inner else inner)))
