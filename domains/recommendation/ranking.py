"""How good rankings are: metrics from the places of the targets and from what was offered.

A target comes behind all items that are as good as it, so ties never help; `tied` says how many events have any.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

CUTS = (5, 10, 20)


def of_ranks(ranks: Tensor, cuts: Sequence[int] = CUTS) -> dict[str, Tensor]:
    """Means over events with one right item each: hr@k (recall@k is the same), ndcg@k, mrr@k and mrr, scalars.

    Args:
        ranks: (events,) int64, places of the right items, from 1.
    """
    found = {}
    place = ranks.double()
    for cut in cuts:
        inside = ranks <= cut
        found[f"hr@{cut}"] = inside.double().mean()
        found[f"ndcg@{cut}"] = (inside / torch.log2(place + 1)).mean()
        found[f"mrr@{cut}"] = (inside / place).mean()
    return {**found, "mrr": (1 / place).mean()}


class OfGroup(Metric):
    """The mean of a metric over some of the events.

    Args:
        metric: "hr" or "ndcg", at 10.
    """

    def __init__(self, metric: str):
        super().__init__()
        self.metric = metric
        for name in ("total", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, ranks: Tensor, inside: Tensor) -> None:
        """ranks, inside: (events,), places of the right items and which events are meant."""
        chosen = ranks[inside]
        if len(chosen):
            self.total += of_ranks(chosen, (10,))[f"{self.metric}@10"] * len(chosen)
        self.count += len(chosen)

    def compute(self) -> Tensor:
        return self.total / self.count


class Coverage(Metric):
    """The share of all items that anybody was offered."""

    def __init__(self, items: int):
        super().__init__()
        self.add_state("offered", torch.zeros(items + 1, dtype=torch.bool), dist_reduce_fx="max")

    def update(self, items: Tensor) -> None:
        """items: (batch, k), numbers from 1."""
        self.offered[items.flatten()] = True

    def compute(self) -> Tensor:
        return self.offered[1:].float().mean()


def of_offers(items: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """What is offered, whether right or not: novelty@k, bits of surprise in an item's share of the training events, and
    popularity@k, training events of an offered item over those of the mean item.

    Args:
        items: (batch, k), numbers from 1. counts: (items + 1,), training events of each.
    """
    k, counts = items.shape[1], counts.double()
    taken = counts[items]
    share = (taken + 1) / (counts[1:] + 1).sum()
    return {f"novelty@{k}": -share.log2().mean(), f"popularity@{k}": (taken / counts[1:].mean().clamp_min(1e-9)).mean()}
