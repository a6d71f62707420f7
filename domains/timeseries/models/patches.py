"""Series cut into patches, and heads that read all patches of a series (PatchTST, arXiv 2211.14730)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ....core.errors import UserError


def check_patches(lookback: int, patch_len: int) -> None:
    """Raise a UserError where not one patch fits into the look-back."""
    if patch_len > lookback:
        raise UserError(
            "a patch must fit into the look-back", given=f"patch_len={patch_len}, look-back {lookback}",
            allowed=f"1 to {lookback}", do=f"model.patch_len={lookback}",
        )  # fmt: skip


def patch_count(lookback: int, patch_len: int, stride: int) -> int:
    """Patches of a series that is so long with what was added to it."""
    return (lookback - patch_len) // stride + 1


def patched(x: Tensor, patch_len: int, stride: int, before: int = 0, behind: int = 0) -> Tensor:
    """(batch, length, variables) to (batch, variables, patches, patch_len), what is too short for a last patch left out.

    Args:
        before, behind: how often the first and the last value are repeated beyond the ends.
    """
    x = x.transpose(1, 2)
    if before or behind:
        x = torch.cat([x[..., :1].expand(-1, -1, before), x, x[..., -1:].expand(-1, -1, behind)], -1)
    return x.unfold(-1, patch_len, stride)


class FlattenHead(nn.Module):
    """A linear layer from all that is known of a series to its answer; parameter names of PatchTST: linear, linears.

    Args:
        inputs: numbers a series. horizon: steps of the answer.
        variables: a layer of its own for each of so many series; 0: one for all.
        dropout: of the answer.
    """

    def __init__(self, inputs: int, horizon: int, variables: int = 0, dropout: float = 0.0):
        super().__init__()
        if variables:
            self.linears = nn.ModuleList(nn.Linear(inputs, horizon) for _ in range(variables))
        else:
            self.linear = nn.Linear(inputs, horizon)
        self.dropout, self.individual = nn.Dropout(dropout), bool(variables)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, variables, a, b), read in this order, to (batch, variables, horizon)."""
        return self.dropout(by_variable(self.linears if self.individual else self.linear, x.flatten(2)))


def by_variable(layer: nn.Module, x: Tensor) -> Tensor:
    """One layer for all series of (batch, variables, inputs), or of a ModuleList each for its own."""
    if not isinstance(layer, nn.ModuleList):
        return layer(x)
    return torch.stack([each(series) for each, series in zip(layer, x.unbind(1), strict=True)], 1)
