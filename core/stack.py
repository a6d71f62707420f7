"""The residual stack that all models share: Add -> Norm -> Mixer [-> Add -> Norm -> MLP], layer after layer.

As in Mamba's reference models, a layer hands on what its mixer said (`hidden`) beside the sum of all that came before
(`residual`); the sum may be kept in float32 where the layers compute in less.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .errors import check_choice
from .linear import is_plain, normalised, runs
from .mixers.mixer import Mixer
from .ops.decoding import decodes
from .packing import without_padding

NORMS = {"rms": nn.RMSNorm, "layer": nn.LayerNorm}


def make_norm(kind: str, channels: int, eps: float = 1e-5, device=None, dtype=None) -> nn.Module:
    """A normalisation over channels: "rms" or "layer"."""
    check_choice("norm", kind, NORMS)
    return NORMS[kind](channels, eps=eps, device=device, dtype=dtype)


class ResidualBlock(nn.Module):
    """Adds what the layer before said to the residual, normalises, mixes.

    Args:
        mixer: called as mixer(x, grid, state, seq_idx), returns (y, state).
        norm: over channels, before the mixer.
        mlp, norm2: a further pair that does the same after the mixer; called as mlp(x, seq_idx) where it says
            `takes_seq_idx`, else as mlp(x).
        drop_path: applied to what is added to the residual (stochastic depth).
        residual_in_fp32: keep the residual in float32 at least.
    """

    def __init__(
        self,
        mixer: nn.Module,
        norm: nn.Module,
        mlp: nn.Module | None = None,
        norm2: nn.Module | None = None,
        drop_path: nn.Module | None = None,
        residual_in_fp32: bool = True,
    ):
        super().__init__()
        self.norm, self.mixer = norm, mixer
        if mlp is not None:
            self.norm2, self.mlp = norm2, mlp
        self.has_mlp = mlp is not None
        self.drop_path = drop_path if drop_path is not None else nn.Identity()
        self.residual_in_fp32 = residual_in_fp32

    def forward(
        self, hidden: Tensor, residual: Tensor | None = None, grid=None, state=None, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, Tensor, object]:
        """(hidden, residual, state), the first two (batch, length, channels); residual None: nothing came before."""
        backend = getattr(self.mixer, "backend", "auto")
        residual = _added(residual, hidden, self.drop_path, self.residual_in_fp32)
        hidden, state = self.mixer(normalised(self.norm, residual, backend), grid, state, seq_idx)
        if self.has_mlp:
            residual = _added(residual, hidden, self.drop_path, self.residual_in_fp32)
            given = (seq_idx,) if getattr(self.mlp, "takes_seq_idx", False) else ()
            hidden = self.mlp(normalised(self.norm2, residual, backend), *given)
        return hidden, residual, state

    def only_mixes(self, dtype: torch.dtype) -> bool:
        """Whether `forward` of tokens of that dtype adds, normalises and mixes as a decoder of mixers does, and nothing more."""
        return (
            not self.has_mlp
            and runs(self.drop_path, nn.Identity.forward)
            and is_plain(self.norm, (nn.RMSNorm,))
            and self.norm.eps is not None
            and (self.residual_in_fp32 or dtype == torch.float32)
            and runs(self.mixer, Mixer.forward)
            and self.mixer.decoder is not None
        )


def _added(residual: Tensor | None, hidden: Tensor, drop_path: nn.Module, in_fp32: bool) -> Tensor:
    residual = hidden if residual is None else residual + drop_path(hidden)
    return residual.to(torch.promote_types(residual.dtype, torch.float32)) if in_fp32 else residual


class StackResult(NamedTuple):
    """hidden, residual: what the last layer handed on; states: one a layer; taken: layer -> residual + hidden after it."""

    hidden: Tensor
    residual: Tensor
    states: list
    taken: dict[int, Tensor]


def run_stack(
    layers: Sequence[nn.Module],
    hidden: Tensor,
    grid=None,
    states: Sequence | None = None,
    seq_idx: Tensor | None = None,
    checkpointing: bool = False,
    take: Collection[int] = (),
) -> StackResult:
    """Run the blocks one after the other.

    Args:
        hidden: (batch, length, channels).
        grid: the tokens' grid.
        states: one a layer, from the call on the piece before this one.
        seq_idx: (batch, length), packing; what stands at padding, where it is negative, is taken for zero.
        checkpointing: compute the layers a second time in the backward pass instead of keeping what it needs.
        take: layers whose result is wanted.
    """
    if grid is None and seq_idx is None and not take:
        found = decode(layers, hidden, states)
        if found is not None:
            return StackResult(*found, {})
    hidden, residual, after, taken = without_padding(hidden, seq_idx), None, [], {}
    for number, layer in enumerate(layers):
        state = None if states is None else states[number]
        if checkpointing and torch.is_grad_enabled():
            hidden, residual, state = checkpoint(layer, hidden, residual, grid, state, seq_idx, use_reentrant=False)
        else:
            hidden, residual, state = layer(hidden, residual, grid, state, seq_idx)
        after.append(state)
        if number in take:
            taken[number] = residual + hidden
    return StackResult(hidden, residual, after, taken)


def decode(layers: Sequence[nn.Module], hidden: Tensor, states: Sequence | None) -> tuple | None:
    """One token through all layers in one call of their mixers' decoder; None where a layer does more than that computes."""
    if not (layers and decodes(hidden)):
        return None
    if not all(runs(layer, ResidualBlock.forward) and layer.only_mixes(hidden.dtype) for layer in layers):
        return None
    norms = [(layer.norm.weight, layer.norm.eps) for layer in layers]
    mixers = [layer.mixer for layer in layers]
    return mixers[0].decode_layers(mixers, hidden, norms, states or [None] * len(layers))


def final_norm(result: StackResult, norm: nn.Module, drop_path: nn.Module | None = None) -> Tensor:
    """The normalised end of the residual stream, (batch, length, channels)."""
    hidden = result.hidden if drop_path is None else drop_path(result.hidden)
    return normalised(norm, result.residual + hidden)
