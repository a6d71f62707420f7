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
from .linear import is_bare, is_plain
from .ops.one_token import few_rows_at_once
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
        residual = self._add(hidden, residual)
        hidden, state = self.mixer(normalised(self.norm, residual), grid, state, seq_idx)
        if self.has_mlp:
            residual = self._add(hidden, residual)
            given = (seq_idx,) if getattr(self.mlp, "takes_seq_idx", False) else ()
            hidden = self.mlp(normalised(self.norm2, residual), *given)
        return hidden, residual, state

    def _add(self, hidden: Tensor, residual: Tensor | None) -> Tensor:
        residual = hidden if residual is None else residual + self.drop_path(hidden)
        return residual.to(torch.promote_types(residual.dtype, torch.float32)) if self.residual_in_fp32 else residual


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
        found = step_through(layers, hidden, states)
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


def step_through(layers: Sequence[nn.Module], hidden: Tensor, states: Sequence | None) -> tuple | None:
    """One token through all layers in one call, where their mixers are of one kind that has one; else None.

    Such a mixer has step_through(mixers, hidden, norms, states) -> (hidden, residual, states) or None. norms: a weight and
    what is added to the mean square, for each layer.
    """
    if not (layers and few_rows_at_once(hidden)):
        return None
    kind = type(getattr(layers[0], "mixer", None))
    # A class's own, not inherited: a subclass may mix otherwise.
    if "step_through" not in vars(kind) or not all(_only_mixes(layer, kind, hidden.dtype) for layer in layers):
        return None
    norms = [(layer.norm.weight, layer.norm.eps) for layer in layers]
    return kind.step_through([layer.mixer for layer in layers], hidden, norms, states or [None] * len(layers))


def _only_mixes(layer: nn.Module, kind: type, dtype: torch.dtype) -> bool:
    """Whether calling the layer adds, normalises and mixes, and nothing more."""
    if type(layer) is not ResidualBlock or layer.has_mlp or type(layer.drop_path) is not nn.Identity:
        return False
    norm, mixer = layer.norm, layer.mixer
    return (
        is_plain(norm, (nn.RMSNorm,))
        and type(mixer) is kind
        and norm.eps is not None
        and (layer.residual_in_fp32 or dtype == torch.float32)
        and is_bare(layer)
        and is_bare(mixer)
        and is_bare(layer.drop_path)
    )


def final_norm(result: StackResult, norm: nn.Module, drop_path: nn.Module | None = None) -> Tensor:
    """The normalised end of the residual stream, (batch, length, channels)."""
    hidden = result.hidden if drop_path is None else drop_path(result.hidden)
    return normalised(norm, result.residual + hidden)


def normalised(norm: nn.Module, x: Tensor) -> Tensor:
    """norm(x), computed in the norm's own dtype; an Identity in a norm's place changes nothing."""
    weight = getattr(norm, "weight", None)
    if not isinstance(weight, Tensor):
        weight = next(norm.parameters(), None)  # of what something stands around
    return norm(x if weight is None else x.to(weight.dtype))
