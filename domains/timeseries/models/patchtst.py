"""PatchTST (arXiv 2211.14730): each series by itself, cut into patches, attention between them.

Parameter names are those of the published supervised code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from ....core.errors import UserError
from ....core.ranges import Depth, Rate, Size, checked
from .decomposition import decompose
from .forecaster import Forecaster, described, sized
from .instance_norm import InstanceNorm, NoNorm
from .patches import FlattenHead, check_patches, patch_count, patched

SIZES = {
    "micro": {"d_model": 16, "d_ff": 64, "n_layer": 2, "n_heads": 4, "dropout": 0.2},
    "etth": {"d_model": 16, "d_ff": 128, "n_layer": 3, "n_heads": 4, "dropout": 0.3},
    "base": {"d_model": 128, "d_ff": 256, "n_layer": 3, "n_heads": 16, "dropout": 0.2},  # ETTm, Weather
}


class TokenNorm(nn.BatchNorm1d):
    """Batch normalisation over the channels of (batch, length, channels), each token a sample.

    Not of the transposed tokens, as the published code has it and which is the same: torch.compile takes the strides of what
    comes out of that for others than they are.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, channels) -> (batch, length, channels)."""
        return super().forward(x.flatten(0, 1)).view_as(x)


def batch_norm(d_model: int) -> nn.Sequential:
    """A TokenNorm at the place that checkpoints have it."""
    return nn.Sequential(nn.Identity(), TokenNorm(d_model), nn.Identity())


class ResidualAttention(nn.Module):
    """Attention whose scores are added to those of the layer before (RealFormer, arXiv 2012.11747).

    Args:
        d_model: channels of the tokens. heads: each of d_model // heads channels.
        dropout: of what it says.
    """

    def __init__(self, d_model: int, heads: int, dropout: float):
        super().__init__()
        if heads > d_model:
            raise UserError("a head needs a channel", given=f"{heads} heads", allowed=f"1 to {d_model}")
        self.heads, size = heads, d_model // heads
        for name in ("W_Q", "W_K", "W_V"):
            self.add_module(name, nn.Linear(d_model, size * heads))
        # A tensor in checkpoints, which nothing trains.
        self.sdp_attn = nn.Module()
        self.sdp_attn.scale = nn.Parameter(torch.tensor(size**-0.5), requires_grad=False)
        self.to_out = nn.Sequential(nn.Linear(size * heads, d_model), nn.Dropout(dropout))

    def forward(self, x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """(batch, length, d_model) and the scores before to the same and the scores (batch, heads, length, length)."""
        layers = (self.W_Q, self.W_K, self.W_V)
        query, key, value = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in layers)
        scores = query @ key.transpose(-1, -2) * self.sdp_attn.scale
        scores = scores if before is None else scores + before
        return self.to_out((scores.softmax(-1) @ value).transpose(1, 2).flatten(2)), scores


class Layer(nn.Module):
    """x = norm(x + attention(x)); x = norm(x + feed-forward(x)), normalised over the batch; arguments as of PatchTST."""

    def __init__(self, d_model: int, d_ff: int, heads: int, dropout: float):
        super().__init__()
        self.self_attn = ResidualAttention(d_model, heads, dropout)
        self.norm_attn, self.norm_ffn = batch_norm(d_model), batch_norm(d_model)
        self.ff = nn.Sequential(nn.Linear(d_model, d_ff), nn.GELU(), nn.Dropout(dropout), nn.Linear(d_ff, d_model))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """As of ResidualAttention."""
        said, scores = self.self_attn(x, before)
        x = self.norm_attn(x + self.dropout(said))
        return self.norm_ffn(x + self.dropout(self.ff(x))), scores


class PatchEncoder(nn.Module):
    """Patches to tokens with learned positions, and the layers over them; arguments as of PatchTST."""

    def __init__(self, patches: int, patch_len: int, d_model: int, d_ff: int, layers: int, heads: int, dropout: float):
        super().__init__()
        self.W_P = nn.Linear(patch_len, d_model)
        self.W_pos = nn.Parameter(torch.empty(patches, d_model).uniform_(-0.02, 0.02))
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(Layer(d_model, d_ff, heads, dropout) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, patches, patch_len) -> (batch, patches, d_model)."""
        x, scores = self.dropout(self.W_P(x) + self.W_pos), None
        for layer in self.encoder.layers:
            x, scores = layer(x, scores)
        return x


class PatchTST(Forecaster):
    """PatchTST; `features` are (batch, variables, d_model, patches), with a decomposition twice the d_model. Marks are not read.

    Args:
        lookback, horizon: steps seen and answered. variables: series of a window.
        d_model, d_ff, n_layer, n_heads: channels of a token and of the feed-forward network, layers, heads.
        patch_len, stride: steps of a patch, and between patches. padding: repeat the last value a stride long first.
        dropout: of tokens, attention and feed-forward network. head_dropout: of the answer.
        individual: a head of its own for each variable.
        revin, affine, subtract_last: see InstanceNorm.
        decomposition: a model for the moving average and one for the rest. kernel_size: of the average.
    """

    @checked
    def __init__(
        self,
        lookback: Size,
        horizon: Size,
        variables: Size,
        d_model: Size = 16,
        d_ff: Size = 128,
        n_layer: Depth = 3,
        n_heads: Size = 4,
        patch_len: Size = 16,
        stride: Size = 8,
        padding: bool = True,
        dropout: Rate = 0.3,
        head_dropout: Rate = 0.0,
        individual: bool = False,
        revin: bool = True,
        affine: bool = False,
        subtract_last: bool = False,
        decomposition: bool = False,
        kernel_size: Size = 25,
    ):
        super().__init__(lookback, horizon, variables)
        self.kernel_size = kernel_size if decomposition else 0
        check_patches(lookback, patch_len)
        for name in ("model_trend", "model_res") if decomposition else ("model",):
            norm = InstanceNorm(variables, affine, subtract_last) if revin else NoNorm()
            behind = stride if padding else 0
            patches = patch_count(lookback + behind, patch_len, stride)
            encoder = PatchEncoder(patches, patch_len, d_model, d_ff, n_layer, n_heads, dropout)
            head = FlattenHead(d_model * patches, horizon, variables if individual else 0, head_dropout)
            self.add_module(name, _Part(lookback, horizon, variables, norm, encoder, head, (patch_len, stride, behind)))

    def forward(self, x: Tensor, marks: Tensor | None = None) -> Tensor:
        """As of every Forecaster."""
        if not self.kernel_size:
            return self.model(x, marks)
        self.check(x, marks)
        rest, trend = decompose(x, self.kernel_size)
        return self.model_res(rest) + self.model_trend(trend)

    def features(self, x: Tensor, marks: Tensor | None = None) -> Tensor:
        """(batch, variables, d_model, patches); with a decomposition the rest's channels, then the trend's."""
        if not self.kernel_size:
            return self.model.features(x, marks)
        self.check(x, marks)
        rest, trend = decompose(x, self.kernel_size)
        return torch.cat([self.model_res.features(rest), self.model_trend.features(trend)], 2)


class _Part(Forecaster):
    """The model of a series, or of one of the two parts that it is taken into."""

    def __init__(
        self, lookback, horizon, variables, norm: nn.Module, encoder: PatchEncoder, head: FlattenHead, cut: tuple
    ):
        super().__init__(lookback, horizon, variables)
        self.revin_layer, self.backbone, self.head, self.cut = norm, encoder, head, cut

    def encode(self, x: Tensor, marks: Tensor | None) -> Tensor:
        patch_len, stride, behind = self.cut
        x = patched(x, patch_len, stride, behind=behind)
        return self.backbone(x.flatten(0, 1)).unflatten(0, x.shape[:2]).transpose(2, 3)

    def decode(self, features: Tensor) -> Tensor:
        return self.head(features)


@checked(group="model")
def build(
    describe: Mapping,
    size: Literal["micro", "etth", "base"] | None = None,
    d_model: Size | None = None,
    d_ff: Size | None = None,
    n_layer: Depth | None = None,
    n_heads: Size | None = None,
    dropout: Rate | None = None,
    patch_len: Size = 16,
    stride: Size = 8,
    padding: bool = True,
    individual: bool = False,
    revin: bool = True,
    affine: bool = False,
    subtract_last: bool = False,
    decomposition: bool = False,
) -> PatchTST:
    """A PatchTST for a data set.

    Args:
        describe: lookback, horizon, variables.
        size: a row of SIZES, None: what the data ask for; d_model, d_ff, n_layer, n_heads, dropout: other than the size's.
        patch_len, stride, padding, individual, revin, affine, subtract_last, decomposition: PatchTST's.
    """
    options = sized(
        SIZES, size, describe, d_model=d_model, d_ff=d_ff, n_layer=n_layer, n_heads=n_heads, dropout=dropout
    )
    return PatchTST(
        **described(describe, "variables"), **options, patch_len=patch_len, stride=stride, padding=padding,
        individual=individual, revin=revin, affine=affine, subtract_last=subtract_last, decomposition=decomposition,
    )  # fmt: skip
