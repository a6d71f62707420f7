"""Item-based nearest neighbours (Sarwar et al. 2001, Deshpande and Karypis 2004): items that the same users had, by cosine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ....core.ops.arguments import check_shape
from ....core.ranges import Size, Weight, checked
from .rows import Rows
from .sequential import Events, Recommender, fitted, from_describe

CELLS = 2**25  # of the dense part of users by items that is counted at once: 128 MiB


class ItemKNN(Recommender):
    """An item's score is the sum of its similarities to the latest items of the history, over their nearest neighbours.

    similarity(i, j) = users of both / (sqrt(users of i * users of j) + shrink).

    Args:
        items, length, behaviours, features: see Recommender; only the items count. The latest `length` are asked.
        neighbours: of each item that are kept. shrink: makes little evidence count less.

    `fit` is what there is to learn; besides, a factor above 0 of the scores, the sharpness, begins at 1, changes no ranking, and
    makes their softmax fit. neighbours, similarities: (items + 1, neighbours), int64 and float32. The hidden state at an event
    is the scores themselves, (batch, length, items + 1).
    """

    def __init__(self, items: Size, length: Size, neighbours: Size = 100, shrink: Weight = 0.0, **inputs: Any):
        super().__init__(items, length, **inputs)
        self.shrink, kept = shrink, min(neighbours, items)
        self.register_buffer("neighbours", torch.zeros(items + 1, kept, dtype=torch.int64))
        self.register_buffer("similarities", torch.zeros(items + 1, kept))
        self.log_sharpness = nn.Parameter(torch.zeros(()))

    @torch.no_grad()
    def fit(self, users: Tensor, items: Tensor) -> ItemKNN:
        """Learn from events.

        Args:
            users, items: (events,) int64, in any order; items counted from 1. A user counts once for an item.
        """
        check_shape("items", items, tuple(users.shape), integer=True, note="")
        self._check_items(items)
        _, users = users.unique(return_inverse=True)
        pairs = torch.stack([items, users]).unique(dim=1)
        pairs = pairs[:, pairs[0] > 0]
        many, size = int(users.max()) + 1 if users.numel() else 1, self.items + 1
        ones = torch.ones(pairs.shape[1], device=pairs.device)
        with torch.sparse.check_sparse_tensor_invariants(True):  # PyTorch warns where nobody has said
            had = torch.sparse_coo_tensor(pairs, ones, (size, many)).coalesce()
        norm = torch.bincount(pairs[0], minlength=size).sqrt().float()
        self.similarities[0], self.neighbours[0] = 0, 0
        wide = max(1, CELLS // many)
        for begin in range(1, size, wide):
            end = min(begin + wide, size)
            block = pairs[:, (pairs[0] >= begin) & (pairs[0] < end)]
            dense = torch.zeros(many, end - begin, device=pairs.device)
            dense[block[1], block[0] - begin] = 1
            both = torch.sparse.mm(had, dense).T
            found = both / (norm[begin:end, None] * norm + self.shrink).clamp_min(1)
            found[torch.arange(end - begin), torch.arange(begin, end)] = 0
            best = found.topk(self.neighbours.shape[1], 1)
            self.similarities[begin:end], self.neighbours[begin:end] = best.values, best.indices
        return self

    def run(self, events: Events, states: tuple | None) -> tuple[Tensor, tuple]:
        """The one state: (batch, `length`) int64, the latest items."""
        batch = len(events.items)
        before = events.items.new_zeros(batch, self.length) if states is None else states[0]
        rows = Rows(events.number)
        if not len(rows.lengths):
            return self._scored(events.items.new_zeros(*events.items.shape, self.length)), (before,)
        some = ~rows.empty
        begin = before.new_zeros(len(rows.lengths), self.length)
        begin[rows.first[some]] = before[some]
        windows = torch.cat([begin, rows.apart(events.items)], 1).unfold(1, self.length, 1)[:, 1:]
        after = before.clone()
        after[some] = windows[rows.last[some], rows.lengths[rows.last[some]] - 1]
        return self._scored(rows.together(windows)), (after,)

    def encode(self, items: Tensor, seq_idx: Tensor | None = None, *args: Any, **options: Any) -> Tensor:
        """As of Recommender: (batch, items + 1)."""
        rows = Rows(self.events(items, seq_idx, *args, **options).number)
        latest, some = items.new_zeros(len(items), self.length), ~rows.empty
        if some.any():
            last = rows.last[some]
            place = rows.lengths[last][:, None] - self.length + torch.arange(self.length, device=items.device)
            latest[some] = rows.apart(items)[last].gather(1, place.clamp_min(0)) * (place >= 0)
        return self._scored(latest)

    def _scored(self, latest: Tensor) -> Tensor:
        """The latest items (..., `length`), 0 where there are fewer, to scores (..., items + 1)."""
        near, similar = self.neighbours[latest].flatten(-2), self.similarities[latest].flatten(-2)
        scores = similar.new_zeros(*latest.shape[:-1], self.items + 1).scatter_add(-1, near, similar)
        return scores * self.log_sharpness.exp()

    def scores(self, hidden: Tensor, items: Tensor | None = None) -> Tensor:
        return hidden if items is None else hidden[..., items]


@checked(group="model")
def build(describe: Mapping[str, Any], neighbours: Size = 100, shrink: Weight = 0.0) -> ItemKNN:
    """An ItemKNN for a data set; describe as of popularity.build, the rest as of the class."""
    return fitted(ItemKNN(**from_describe(describe), neighbours=neighbours, shrink=shrink), describe)
