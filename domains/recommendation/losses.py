"""What a recommender minimises, at events whose next item is known."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .models.sequential import Recommender
from .softmax import cross_entropy

CELLS = 2**25  # scores that are held at once
LossName = Literal["full", "sampled", "bce"]


def full(model: Recommender, hidden: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over all items, a scalar; where the table of scores is large, a part of the events at a time.

    Args:
        hidden: (events, channels). targets: (events,) int64.
    """
    if (factors := model.factors(hidden)) is not None:
        left, right = factors
        return cross_entropy(left, right[1:], targets - 1)

    def summed(hidden: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(model.scores(hidden)[:, 1:].float(), targets - 1, reduction="sum")

    tall = max(1, CELLS // (model.items + 1))
    if len(targets) <= tall:
        return summed(hidden, targets) / len(targets)
    parts = zip(hidden.split(tall), targets.split(tall), strict=True)
    return sum(checkpoint(summed, *part, use_reentrant=False) for part in parts) / len(targets)


def sampled(
    model: Recommender, hidden: Tensor, targets: Tensor, negatives: int, shares: Tensor | None = None
) -> Tensor:
    """Softmax over the target and some other items, shared by all events, with the logQ correction; arguments as of `full`.

    A drawn item stands for 1 / (negatives q) of them, q its probability of being drawn, which its score is corrected by (Bengio
    and Senécal 2008): the sum under the softmax is right on average, and with many the loss is that of all items. One that is the
    target itself does not count.

    Args:
        negatives: how many are drawn, with replacement.
        shares: (items,) float64, running totals of the items' probabilities of being drawn; None: evenly.
    """
    if shares is None:
        drawn = torch.randint(1, model.items + 1, (negatives,), device=hidden.device)
        expected = torch.full((1,), negatives / model.items, device=hidden.device)
    else:
        points = torch.rand(negatives, dtype=shares.dtype, device=shares.device)
        drawn = torch.searchsorted(shares, points, right=True).clamp_max(model.items - 1) + 1
        expected = (negatives * torch.cat([shares[:1], shares.diff()])[drawn - 1]).float()
    own = of_each(model, hidden, targets[:, None])
    others = (model.scores(hidden, drawn).float() - expected.log()).masked_fill(drawn == targets[:, None], -torch.inf)
    return (torch.logsumexp(torch.cat([own, others], 1), 1) - own[:, 0]).mean()


def shares_of(counts: Tensor, power: float) -> Tensor | None:
    """`sampled`'s shares where an item is drawn as (training events + 1) ^ power; counts: (items + 1,). None at power 0."""
    return (
        (counts[1:] + 1).double().pow(power).cumsum(0).div((counts[1:] + 1).double().pow(power).sum())
        if power
        else None
    )


def bce(model: Recommender, hidden: Tensor, targets: Tensor, negatives: int) -> Tensor:
    """Whether the target comes next, and whether each of some other items drawn for the event does (SASRec's with one).

    Args:
        hidden, targets: as of `full`. negatives: of each event.
    """
    drawn = torch.randint(1, max(model.items, 2), (len(targets), negatives), device=hidden.device)
    drawn = (drawn + (drawn >= targets[:, None])).clamp_max(model.items)
    scores = of_each(model, hidden, torch.cat([targets[:, None], drawn], 1))
    return F.softplus(-scores[:, 0]).mean() + F.softplus(scores[:, 1:]).mean()


def of_each(model: Recommender, hidden: Tensor, items: Tensor) -> Tensor:
    """(events, asked) float32 scores of each event's own items, (events, asked) int64."""
    unique, place = items.unique(return_inverse=True)
    factors = model.factors(hidden, unique)
    if factors is not None and items.shape[1] * hidden.shape[-1] <= len(unique):
        left, right = factors
        return torch.einsum("ec,eac->ea", left, F.embedding(place, right).to(left.dtype)).float()
    tall = max(1, CELLS // len(unique))
    parts = zip(hidden.split(tall), place.split(tall), strict=True)
    return torch.cat([model.scores(part, unique).float().gather(1, where) for part, where in parts])
