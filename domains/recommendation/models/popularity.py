"""Popularity: every user is offered what most events were of. The least that a recommender has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.ops.arguments import check_shape
from .sequential import Events, Recommender, fitted, from_describe


class Popularity(Recommender):
    """Scores are the logarithms of the items' shares of the events that `fit` saw, each of them counted once more; they are the
    same for everybody, users without events too.

    Args:
        items, length, behaviours, features: see Recommender; only the items count.

    `fit` is what there is to learn; besides, a factor above 0 of the scores, the sharpness, begins at 1, changes no ranking, and
    makes their softmax fit. counts: (items + 1,) float64, events of each item.
    """

    def __init__(self, items: int, length: int, **inputs: Any):
        super().__init__(items, length, **inputs)
        self.register_buffer("counts", torch.zeros(items + 1, dtype=torch.float64))
        self.log_sharpness = nn.Parameter(torch.zeros(()))

    @torch.no_grad()
    def fit(self, users: Tensor, items: Tensor) -> Popularity:
        """Learn from events.

        Args:
            users, items: (events,) int64, in any order; items counted from 1. Users do not matter here.
        """
        check_shape("items", items, tuple(users.shape), integer=True, note="")
        self._check_items(items)
        self.counts.copy_(torch.bincount(items, minlength=self.items + 1))
        self.counts[0] = 0
        return self

    def run(self, events: Events, states: tuple | None) -> tuple[Tensor, tuple]:
        """(batch, length, 1): the sharpness."""
        return self.log_sharpness.exp().expand(*events.items.shape, 1), ()

    def encode(self, items: Tensor, *args: Any, **options: Any) -> Tensor:
        """(batch, 1): the sharpness, whatever the history."""
        return self.log_sharpness.exp().expand(len(items), 1)

    def scores(self, hidden: Tensor, items: Tensor | None = None) -> Tensor:
        counts = (self.counts + 1)[1:]
        logarithms = F.pad((counts / counts.sum()).log(), (1, 0)).to(hidden.dtype)
        return hidden * (logarithms if items is None else logarithms[items])


def build(describe: Mapping[str, Any]) -> Popularity:
    """A Popularity for a data set; describe as of mamba4rec.build, and "events", (events,) users and items to learn from."""
    return fitted(Popularity(**from_describe(describe)), describe)
