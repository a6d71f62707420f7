"""Sums over tokens that become means, perplexity and bits per byte, over any number of batches and processes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics import Metric

NATS_PER_BIT = math.log(2)


class Ratio(Metric):
    """Total of one quantity over the total of another, like nats over tokens.

    Args:
        exponential: e to the power of the ratio: nats over tokens become perplexity.
        scale: factor of the ratio.
    """

    full_state_update = False
    is_differentiable = False

    def __init__(self, exponential: bool = False, scale: float = 1.0):
        super().__init__()
        self.exponential, self.scale = exponential, scale
        for name in ("above", "below"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, above: Tensor, below: Tensor) -> None:
        """Adds a batch's two totals, scalars."""
        self.above += above.double()
        self.below += below.double()

    def compute(self) -> Tensor:
        """The ratio so far, float32; NaN where the lower total is 0."""
        ratio = self.above / self.below * self.scale
        return (ratio.exp() if self.exponential else ratio).float()
