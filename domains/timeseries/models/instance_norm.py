"""Reversible instance normalisation (RevIN, ICLR 2022; without parameters: Non-stationary Transformers, arXiv 2205.14415)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Scale(NamedTuple):
    """What was taken out of a window: centre and spread, each (batch, 1, variables)."""

    centre: Tensor
    spread: Tensor


class InstanceNorm(nn.Module):
    """Takes each window's own mean and standard deviation out of it, and puts them into the forecast.

    Parameter names are those of RevIN: affine_weight, affine_bias.

    Args:
        variables: number of series, which only an affine one needs.
        affine: multiply by a weight and add a bias, one a series, after the division.
        subtract_last: take out the last value instead of the mean.
        eps: added to the variance.
    """

    def __init__(self, variables: int = 0, affine: bool = False, subtract_last: bool = False, eps: float = 1e-5):
        super().__init__()
        self.affine, self.subtract_last, self.eps = affine, subtract_last, eps
        if affine:
            self.affine_weight = nn.Parameter(torch.ones(variables))
            self.affine_bias = nn.Parameter(torch.zeros(variables))

    def normalise(self, x: Tensor) -> tuple[Tensor, Scale]:
        """(batch, length, variables) to the same, normalised, and what was taken out."""
        mean = x.mean(1, keepdim=True)
        spread = ((x - mean).square().mean(1, keepdim=True) + self.eps).sqrt()
        scale = Scale(x[:, -1:] if self.subtract_last else mean, spread)
        x = (x - scale.centre) / scale.spread
        return (x * self.affine_weight + self.affine_bias if self.affine else x), scale

    def undo(self, y: Tensor, scale: Scale) -> Tensor:
        """The inverse for a forecast (batch, horizon, variables) of a window with this scale."""
        if self.affine:
            # RevIN's own guard: a weight of 0 gives no infinity.
            y = (y - self.affine_bias) / (self.affine_weight + self.eps**2)
        return y * scale.spread + scale.centre


class NoNorm(nn.Module):
    """In an InstanceNorm's place: changes nothing."""

    def normalise(self, x: Tensor) -> tuple[Tensor, None]:
        """x as it is."""
        return x, None

    def undo(self, y: Tensor, scale: None) -> Tensor:
        """y as it is."""
        return y
