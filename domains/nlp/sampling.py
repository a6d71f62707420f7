"""Choosing the next token from a language model's scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.errors import UserError

# Where only the most probable tokens matter, so many are looked at first, and eight times more until they suffice.
FIRST_LOOK = 256


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn; the limits apply one after the other, in this order.

    Args:
        repetition_penalty: scores of tokens that stand in the text so far are divided by it where positive, multiplied where
            negative (CTRL, arXiv 1909.05858); 1: none.
        temperature: scores are divided by it; 0: always the most probable token.
        top_k: draw from this many of the most probable tokens; 0: no limit.
        top_p: draw from the fewest most probable tokens whose probabilities sum to it (arXiv 1904.09751); 1: no limit.
        min_p: leave out tokens less probable than this share of the most probable one's probability; 0: none.

    Raises:
        UserError: a value out of its range.
    """

    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self):
        for name, low, high, meaning in (
            ("repetition_penalty", 1e-6, 1e6, "above 0"),
            ("temperature", 0.0, 1e6, "0 or more"),
            ("top_k", 0, 1 << 40, "0 or more"),
            ("top_p", 1e-9, 1.0, "above 0, at most 1"),
            ("min_p", 0.0, 1.0, "0 to 1"),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise UserError(f"{name} is out of range", given=f"{name}={value}", allowed=meaning)

    def choose(self, scores: Tensor, seen: Tensor | None, draws: Tensor) -> Tensor:
        """The next token of each row.

        Args:
            scores: (batch, vocabulary).
            seen: (batch, vocabulary) bool, tokens that stand in the text; None: no penalty.
            draws: (batch,) float64, uniform in [0, 1).

        Returns:
            (batch,) int64.
        """
        scores = scores.float()
        if seen is not None and self.repetition_penalty != 1.0:
            penalty = self.repetition_penalty
            scores = torch.where(seen, torch.where(scores > 0, scores / penalty, scores * penalty), scores)
        if self.temperature == 0 or self.top_k == 1:
            return scores.argmax(-1)
        # The largest score goes to 0 first: dividing by a tiny temperature then overflows for no token that counts.
        scores = (scores - scores.amax(-1, keepdim=True)) / max(self.temperature, 1e-6)
        ids = None
        if self.top_k or self.top_p < 1:
            scores, ids, probabilities = self._most_probable(scores)
        else:
            probabilities = scores.softmax(-1)
        if self.min_p:
            floor = self.min_p * probabilities.amax(-1, keepdim=True)
            probabilities = torch.where(probabilities < floor, 0, probabilities)
        cumulative = probabilities.double().cumsum(-1)
        target = draws.to(cumulative.device)[:, None] * cumulative[:, -1:] * (1 - 1e-15)
        chosen = torch.searchsorted(cumulative, target, right=True)
        return (chosen if ids is None else ids.gather(-1, chosen)).squeeze(-1)

    def _most_probable(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, token numbers and probabilities of the candidates, most probable first, 0 for what top_p leaves out."""
        size = scores.shape[-1]
        if self.top_k:
            values, ids = scores.topk(min(self.top_k, size))
            probabilities = values.softmax(-1)
        else:
            total, count = scores.logsumexp(-1, keepdim=True), FIRST_LOOK
            while True:
                values, ids = scores.topk(min(count, size))
                probabilities = (values - total).exp()
                if count >= size or (probabilities.sum(-1) >= self.top_p).all():
                    break
                count *= 8
        before = probabilities.cumsum(-1) - probabilities
        before[:, 0] = 0  # the most probable token always stays
        return values, ids, torch.where(before < self.top_p, probabilities, 0)
