"""Sums over tokens that become means, perplexity and bits per byte, over any number of batches and processes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics import Metric

from .text_stream import Tokenizer

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


def byte_counts(tokenizer: Tokenizer) -> Tensor:
    """The bytes that each token adds to a text, int64 (2, vocabulary): in its midst, and where the token is the first.

    They differ where a word's token brings the space before it: at the beginning of a text there is none.
    """
    alone = [tokenizer.bytes_of([token]) for token in range(tokenizer.vocab_size)]
    before = (
        [next(token for token, text in enumerate(alone) if text.isalnum())] if any(map(bytes.isalnum, alone)) else []
    )
    known = len(tokenizer.bytes_of(before))
    within = [len(tokenizer.bytes_of([*before, token])) - known for token in range(tokenizer.vocab_size)]
    return torch.tensor([within, list(map(len, alone))])
