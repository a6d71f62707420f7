"""The encoder layer of the Transformer family, which mixes and then normalises, and its attention."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError, check_choice

ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu}


class Attention(nn.Module):
    """Softmax attention; parameter names of the Informer family: query_projection, ..., out_projection.

    Args:
        d_model: channels of the tokens. heads: each of d_model // heads channels.
        dropout: of the attention weights.
        causal: tokens see those before them and themselves.
    """

    def __init__(self, d_model: int, heads: int, dropout: float = 0.0, causal: bool = False):
        super().__init__()
        if heads > d_model:
            raise UserError("a head needs a channel", given=f"{heads} heads", allowed=f"1 to {d_model}")
        inner = d_model // heads * heads
        for name in ("query", "key", "value"):
            self.add_module(f"{name}_projection", nn.Linear(d_model, inner))
        self.out_projection = nn.Linear(inner, d_model)
        self.heads, self.dropout, self.causal = heads, dropout, causal

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, d_model) -> (batch, length, d_model)."""
        projections = (self.query_projection, self.key_projection, self.value_projection)
        query, key, value = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in projections)
        rate = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(query, key, value, dropout_p=rate, is_causal=self.causal)
        return self.out_projection(y.transpose(1, 2).flatten(2))


class Pointwise(nn.Conv1d):
    """A linear layer over the channels of (batch, length, channels), kept as the convolution of width 1 that checkpoints hold."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, inputs) -> (batch, length, outputs)."""
        return F.linear(x, self.weight.squeeze(-1), self.bias)


class PostNormLayer(nn.Module):
    """x = norm1(x + mix(x)); x = norm2(x + feed-forward(x)); what mixes is a subclass's.

    Args:
        d_model, d_ff: channels of the tokens, and within the feed-forward network.
        dropout: within and behind the feed-forward network.
        activation: "gelu" or "relu".
    """

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0, activation: str = "gelu"):
        super().__init__()
        check_choice("activation", activation, ACTIVATIONS)
        self.conv1, self.conv2 = Pointwise(d_model, d_ff), Pointwise(d_ff, d_model)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.dropout, self.activation = nn.Dropout(dropout), activation

    def mix(self, x: Tensor) -> Tensor:
        """What is added to the tokens (batch, length, d_model)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, d_model) -> (batch, length, d_model)."""
        x = self.norm1(x + self.mix(x))
        inner = self.dropout(ACTIVATIONS[self.activation](self.conv1(x)))
        return self.norm2(x + self.dropout(self.conv2(inner)))


class Encoder(nn.Module):
    """Layers one after the other and a norm at their end; parameter names of iTransformer: attn_layers, norm."""

    def __init__(self, layers: list[nn.Module], d_model: int):
        super().__init__()
        self.attn_layers, self.norm = nn.ModuleList(layers), nn.LayerNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, d_model) -> (batch, length, d_model)."""
        for layer in self.attn_layers:
            x = layer(x)
        return self.norm(x)
