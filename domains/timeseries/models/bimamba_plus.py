"""Bi-Mamba+ (arXiv 2404.15772): patches, and in each layer a Mamba+ forwards and one backwards over patches or variables.

Parameter names are those of the published code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import check_choice
from ....core.ranges import Count, Depth, Positive, Rate, Share, Size, checked
from ....core.scans import Scan
from .embedding import sinusoids
from .encoder import Pointwise
from .forecaster import Backend, Compat, Forecaster, described, is_published, sized
from .instance_norm import InstanceNorm, NoNorm
from .mixing import of_layer, ways
from .patches import FlattenHead, check_patches, patch_count, patched
from .selective_mixer import SelectiveMixer

SIZES = {
    "micro": {"d_model": 32, "d_ff": 64, "n_layer": 1, "d_state": 8, "patch_len": 8, "stride": 4},
    "ett": {"d_model": 64, "d_ff": 128, "n_layer": 1, "d_state": 8, "patch_len": 4, "stride": 2},
    "etth2": {"d_model": 64, "d_ff": 128, "n_layer": 1, "d_state": 8, "patch_len": 24, "stride": 12},
    "weather": {"d_model": 64, "d_ff": 128, "n_layer": 3, "d_state": 8, "patch_len": 4, "stride": 2},
}
BLOCKS = (("mamba_forward", "addnorm_for"), ("mamba_backward", "addnorm_back"))
ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU}
GATES = ("forget", "plain")


class MambaPlus(SelectiveMixer):
    """Mamba with a forget gate: y silu(z) + D u (1 - sigmoid(z)), where Mamba has (y + D u) silu(z).

    Args:
        gate: "forget" or "plain", which is Mamba. Others as of SelectiveMixer.
    """

    def __init__(self, *arguments, gate: str = "forget", **options):
        check_choice("gate", gate, GATES)
        super().__init__(*arguments, **options)
        self.kind = gate

    def joined(self, y: Tensor, skip: Tensor, gate: Tensor) -> Tensor:
        """As of SelectiveMixer."""
        if self.kind == "plain":
            return super().joined(y, skip, gate)
        return y * F.silu(gate) + skip * torch.sigmoid(-gate)


class AddNorm(nn.Module):
    """norm(old + new), without a residual norm(new)."""

    def __init__(self, d_model: int, residual: bool):
        super().__init__()
        self.norm, self.residual = nn.LayerNorm(d_model), residual

    def forward(self, new: Tensor, old: Tensor) -> Tensor:
        """Both (batch, length, d_model)."""
        return self.norm(old + new if self.residual else new)


class Layer(nn.Module):
    """The sum of the directions' norm(x + M x), and a feed-forward network; arguments as of BiMambaPlus."""

    def __init__(
        self, d_model: int, d_ff: int, dropout: float, activation: str, residual: bool, twice: bool, scan: str | Scan,
        **mixing,
    ):  # fmt: skip
        super().__init__()
        check_choice("activation", activation, ACTIVATIONS)
        self.blocks = BLOCKS[: len(ways(scan))]
        for (mixer, norm), way in zip(self.blocks, ways(scan), strict=True):
            self.add_module(mixer, MambaPlus(d_model, scan=way, **mixing))
            self.add_module(norm, AddNorm(d_model, residual))
        self.ffn = nn.Sequential(
            Pointwise(d_model, d_ff), ACTIVATIONS[activation](), nn.Dropout(dropout), Pointwise(d_ff, d_model)
        )
        self.addnorm_ffn, self.dropout = AddNorm(d_model, residual), nn.Dropout(dropout)
        self.twice = twice and len(self.blocks) == 1

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, d_model) -> (batch, length, d_model)."""
        said = sum(getattr(self, norm)(getattr(self, mixer)(x)[0], x) for mixer, norm in self.blocks)
        if self.twice:
            said = self.addnorm_for(said, x)
        return self.addnorm_ffn(self.dropout(self.ffn(said)), said)


class PatchTokens(nn.Module):
    """Patches of every series to tokens with positions; arguments as of BiMambaPlus."""

    def __init__(self, patch_len: int, d_model: int, positions: int, learned: bool, dropout: float):
        super().__init__()
        self.value_embedding = nn.Linear(patch_len, d_model)
        if positions:
            table = sinusoids(positions, d_model)
            table = ((table - table.mean()) / (10 * table.std()))[None]
            self.position_embedding = nn.Module()
            if learned:
                self.position_embedding.pos = nn.Parameter(table)
            else:
                self.position_embedding.register_buffer("pos", table)
        self.positions, self.dropout = positions, nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, series, patches, patch_len) -> (batch, series, patches, d_model)."""
        tokens = self.value_embedding(x)
        if self.positions:
            tokens = tokens + self.position_embedding.pos[:, : tokens.shape[2]]
        return self.dropout(tokens)


class BiMambaPlus(Forecaster):
    """Bi-Mamba+; `features` are (batch, variables, patches, d_model).

    Args:
        lookback, horizon: steps seen and answered. variables: series of a window; None: any number.
        mark_features: calendar features a step, which only `mark_tokens` read.
        d_model, d_ff, n_layer, d_state: channels of a token and of the feed-forward network, layers, states a channel.
        d_conv, expand: of the mixers.
        patch_len, stride: steps of a patch, and between patches. padding: repeat the last value until the last patch is full;
            else what is left over at the end is not seen.
        channel_mixing: layers read the variables of each patch; else the patches of each variable. `mixes_channels` decides it
            as the paper does.
        mark_tokens: with channel mixing, the calendar's features are series beside the variables.
        positions: add positions to patches. learned_positions: and train them.
        scan: the way over patches or variables. "bidirectional" is the paper's, one mixer from each end; along any other scan
            one mixer walks all paths.
        residual: add what a mixer and the feed-forward network were given.
        dropout: of tokens and feed-forward network. activation: "gelu" or "relu".
        use_norm: take each window's mean and deviation out first.
        gate: "forget", the paper's; "plain", Mamba's; None: by compat.
        compat: "corrected": the paper's gate; padding wherever a patch would not be full; one norm behind one direction.
            "published": Mamba's plain gate, for the repository has the paper's in its CUDA kernel alone and computes without
            it in Python; padding by the look-back's remainder by the stride, whatever the patch length; a lone direction is
            added and normalised twice.
        backend: of the scans.
    """

    @checked
    def __init__(
        self,
        lookback: Size,
        horizon: Size,
        variables: Size | None = None,
        mark_features: Count = 0,
        d_model: Size = 64,
        d_ff: Size = 128,
        n_layer: Depth = 1,
        d_state: Size = 8,
        d_conv: Size = 2,
        expand: Positive = 1,
        patch_len: Size = 4,
        stride: Size = 2,
        padding: bool = True,
        channel_mixing: bool = False,
        mark_tokens: bool = False,
        positions: bool = True,
        learned_positions: bool = False,
        scan: str | Scan = "bidirectional",
        residual: bool = True,
        dropout: Rate = 0.2,
        activation: str = "gelu",
        use_norm: bool = True,
        gate: Literal["forget", "plain"] | None = None,
        compat: Compat = "corrected",
        backend: Backend = "auto",
    ):
        super().__init__(lookback, horizon, variables, mark_features)
        check_patches(lookback, patch_len)
        published = is_published(compat)
        over = lookback % stride if published else (lookback - patch_len) % stride
        self.patch_len, self.stride, self.behind = patch_len, stride, (stride - over) % stride if padding else 0
        self.channel_mixing, self.reads_marks = channel_mixing, mark_tokens and channel_mixing
        self.tokens_are = "variables" if channel_mixing else "patches"
        self.revin_layer = InstanceNorm() if use_norm else NoNorm()
        count = patch_count(lookback + self.behind, patch_len, stride)
        self.local_token_layer = PatchTokens(
            patch_len, d_model, max(lookback, count) if positions else 0, learned_positions, dropout
        )
        mixing = {"d_inner": int(expand * d_model), "d_state": d_state, "d_conv": d_conv, "backend": backend}
        mixing["gate"] = ("plain" if published else "forget") if gate is None else gate
        options = {"dropout": dropout, "activation": activation, "residual": residual, "twice": published, **mixing}
        layers = [Layer(d_model, d_ff, **options, scan=of_layer(scan, index)) for index in range(n_layer)]
        self.encoder = nn.Module()
        self.encoder.mamba_layers, self.encoder.norm = nn.ModuleList(layers), nn.LayerNorm(d_model)
        self.head = FlattenHead(d_model * count, horizon)

    def encode(self, x: Tensor, marks: Tensor | None) -> Tensor:
        """(batch, variables, patches, d_model)."""
        variables = x.shape[2]
        if marks is not None:
            x = torch.cat([x, marks.to(x.dtype)], 2)
        tokens = self.local_token_layer(patched(x, self.patch_len, self.stride, behind=self.behind))
        tokens = tokens.transpose(1, 2) if self.channel_mixing else tokens
        said = tokens.flatten(0, 1)
        for layer in self.encoder.mamba_layers:
            said = layer(said)
        said = self.encoder.norm(said).unflatten(0, tokens.shape[:2])
        return said.transpose(1, 2)[:, :variables] if self.channel_mixing else said

    def decode(self, features: Tensor) -> Tensor:
        """(batch, variables, patches, d_model) -> (batch, variables, horizon)."""
        return self.head(features)


def rank_correlation(values: np.ndarray) -> np.ndarray:
    """Spearman's correlation between the columns of (steps, variables), (variables, variables); 0 with a constant one."""
    ranks = np.stack([_ranks(column) for column in values.T], 1)
    ranks = ranks - ranks.mean(0)
    length = np.sqrt((ranks**2).sum(0))
    ranks = ranks / np.where(length > 0, length, 1)
    return ranks.T @ ranks


def _ranks(column: np.ndarray) -> np.ndarray:
    """The place of each value in order, equal ones at the mean of their places."""
    _, group, counts = np.unique(column, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[group]


def mixes_channels(correlation: np.ndarray, threshold: float = 0.6) -> bool:
    """The paper's decider: whether variables hang together so much that layers should read them rather than patches.

    Over the variables, the largest number of others with a correlation of at least the threshold, as a share of the largest
    number of others with none below 0, must be at least 1 - threshold.

    Args:
        correlation: (variables, variables), Spearman's, of the training part.
    """
    high, positive = ((correlation >= least).sum(1).max() - 1 for least in (threshold, 0.0))
    return bool(positive > 0 and high / positive >= 1 - threshold)


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan | None = None,
    size: Literal["micro", "ett", "etth2", "weather"] | None = None,
    d_model: Size | None = None,
    d_ff: Size | None = None,
    n_layer: Depth | None = None,
    d_state: Size | None = None,
    patch_len: Size | None = None,
    stride: Size | None = None,
    channel_mixing: bool | None = None,
    threshold: Share = 0.6,
    mark_tokens: bool = False,
    dropout: Rate = 0.2,
    use_norm: bool = True,
    gate: Literal["forget", "plain"] | None = None,
    compat: Compat = "corrected",
    backend: Backend = "auto",
) -> BiMambaPlus:
    """A Bi-Mamba+ for a data set.

    Args:
        describe: lookback, horizon, variables, mark_features (left out: none), rank_correlation where it is known.
        size: a row of SIZES, None: what the data ask for; d_model, d_ff, n_layer, d_state, patch_len, stride: not
            the size's.
        channel_mixing: BiMambaPlus's; None: by the paper's decider at this threshold where the data set says its
            rank_correlation, else not.
        scan, mark_tokens, dropout, use_norm, gate, compat, backend: BiMambaPlus's.
    """
    chosen = {"d_model": d_model, "d_ff": d_ff, "n_layer": n_layer, "d_state": d_state}
    options = sized(SIZES, size, describe, **chosen, patch_len=patch_len, stride=stride)
    if channel_mixing is None:
        known = describe.get("rank_correlation")
        channel_mixing = known is not None and mixes_channels(np.asarray(known), threshold)
    return BiMambaPlus(
        **described(describe, "variables", "mark_features"), **options, channel_mixing=channel_mixing,
        mark_tokens=mark_tokens, scan=scan or "bidirectional", dropout=dropout, use_norm=use_norm, gate=gate, compat=compat,
        backend=backend,
    )  # fmt: skip
