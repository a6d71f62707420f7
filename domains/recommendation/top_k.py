"""The best items of all, and the place of one among them, however many items there are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...core.errors import UserError
from .losses import of_each
from .models.sequential import Recommender

# Scores held at once. On a CPU few enough that their memory is used again and stays near the cache.
CELLS = {"cpu": 2**22, "cuda": 2**25}
GROUP = 64  # columns whose largest is looked at before they are


class Best(NamedTuple):
    """items, scores: (batch, k), the best first; fewer where there are fewer items, item 0 where even those are hidden.
    ranks: (batch,) int64, the places of the targets, from 1; tied: (batch,) int64, other items exactly as good as the target; None
    where no targets were given. unseen: (batch,) int64, the places without the items seen; None where none were given."""

    items: Tensor
    scores: Tensor
    ranks: Tensor | None = None
    tied: Tensor | None = None
    unseen: Tensor | None = None


@torch.no_grad()
def best_items(
    model: Recommender,
    hidden: Tensor,
    k: int,
    targets: Tensor | None = None,
    hide: Tensor | None = None,
    candidates: Tensor | None = None,
    seen: Tensor | None = None,
) -> Best:
    """Ranks items for each row.

    Among equal scores the smaller number comes first in the list, but a target comes behind all that are as good as it: a model
    that says the same of all items has no hits.

    Args:
        hidden: (batch, channels), what the model makes of the histories.
        k: items to list; 0: none, only the ranks are wanted.
        targets: (batch,) int64, items to find the ranks of.
        hide: (batch, events) int64, items of each row that are left out, 0: none; a target is never.
        candidates: (candidates,) int64, ascending, the only items that are ranked; None: all.
        seen: as `hide`, with targets: items that are left out of `unseen` alone.
    """
    batch, every = len(hidden), model.items if candidates is None else len(candidates)
    wide = max(1, CELLS["cpu" if hidden.device.type == "cpu" else "cuda"] // max(batch, 1))
    found = (hidden.new_zeros(batch, 0, dtype=torch.int64), hidden.new_zeros(batch, 0, dtype=torch.float32))
    ranks, tied, unseen, own = None, None, None, None
    if targets is not None:
        ranks, tied = torch.ones_like(targets), torch.zeros_like(targets)
        hide, seen = (None if each is None else each.masked_fill(each == targets[:, None], 0) for each in (hide, seen))
        unseen = None if seen is None else torch.ones_like(targets)
        if wide < every or candidates is not None:
            unique, place = targets.unique(return_inverse=True)
            own = model.scores(hidden, unique).float().gather(1, place[:, None])
    for begin in range(0, every, wide):
        end = min(begin + wide, every)
        if candidates is None:
            numbers = torch.arange(begin + 1, end + 1, device=hidden.device)
        else:
            numbers = candidates[begin:end]
        scores = model.scores(hidden) if end - begin == model.items else model.scores(hidden, numbers)
        scores = (scores[:, 1:] if scores.shape[1] > len(numbers) else scores).float()
        if hide is not None:
            scores = _without(scores, numbers, hide)
        if targets is not None:
            # where all are scored at once the target's score is its own among them: another product may round it otherwise
            own = scores.gather(1, targets[:, None] - 1) if own is None else own
            ahead = ~(scores < own)
            ranks += (more := _count(ahead, numbers, targets))
            if seen is not None:
                place, inside = _columns(numbers, seen)
                unseen += more - (ahead.gather(1, place) & inside).sum(1)
            tied += _count(scores == own, numbers, targets)
        if k:
            found = _merged(found, scores, numbers, k)
    items, scores = found
    return Best(items.masked_fill(scores == -torch.inf, 0), scores, ranks, tied, unseen)


@torch.no_grad()
def sampled_ranks(
    model: Recommender, hidden: Tensor, targets: Tensor, seen: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """(batch,) int64, places of the targets among `count` items drawn for each row, evenly and with replacement.

    Args:
        seen: (batch, events) int64, items that are not drawn, as the target is not.

    Raises:
        UserError: the user has had all items.
    """
    if int((seen > 0).sum(1).max()) + 1 >= model.items:
        raise UserError(
            "sampled metrics need items that a user has not had", given=f"{model.items:,} items", do="task.sampled=0"
        )
    refused = torch.cat([seen, targets[:, None]], 1).cpu()
    drawn = torch.randint(1, model.items + 1, (len(targets), count), generator=generator)
    while (again := (drawn[..., None] == refused[:, None]).any(2)).any():
        drawn[again] = torch.randint(1, model.items + 1, (int(again.sum()),), generator=generator)
    scores = of_each(model, hidden, torch.cat([targets[:, None], drawn.to(targets.device)], 1))
    return 1 + (~(scores[:, 1:] < scores[:, :1])).sum(1)


def _columns(numbers: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Columns of items, (batch, events) each, and whether they are among `numbers`, (columns,), and there for the first time."""
    items = items.sort(1).values
    again = torch.cat([torch.zeros_like(items[:, :1], dtype=torch.bool), items[:, 1:] == items[:, :-1]], 1)
    place = torch.searchsorted(numbers, items).clamp_max(len(numbers) - 1)
    return place, (numbers[place] == items) & ~again


def _count(which: Tensor, numbers: Tensor, targets: Tensor) -> Tensor:
    """(batch,) int64, items with `which`, (batch, columns) bool, the target's own not counted; numbers: (columns,), ascending."""
    place = torch.searchsorted(numbers, targets).clamp_max(len(numbers) - 1)
    own = which.gather(1, place[:, None])[:, 0] & (numbers[place] == targets)
    return which.sum(1) - own.long()


def _without(scores: Tensor, numbers: Tensor, hide: Tensor) -> Tensor:
    """The scores with hidden items at minus infinity; numbers: (columns,), ascending."""
    place, inside = _columns(numbers, hide)
    row, event = inside.nonzero(as_tuple=True)
    return torch.index_put(scores, (row, place[row, event]), scores.new_tensor(-torch.inf))


def _merged(found: tuple[Tensor, Tensor], scores: Tensor, numbers: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best so far, items and scores, with those of further columns, whose numbers are larger."""
    scores, place = _first_best(scores, k)
    items = numbers[place]
    if not found[0].shape[1]:
        return items, scores
    scores, place = _first_best(torch.cat([found[1], scores], 1), k)
    return torch.cat([found[0], items], 1).gather(1, place), scores


def _first_best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row with their columns; of equal ones the first column first.

    They lie in the k groups of columns whose largest are largest (of equal ones the first groups): every other group has k others
    before it. So most scores are read once.
    """
    wide = scores.shape[1]
    count = wide // GROUP
    if count <= 2 * k:
        return _sorted_best(scores, k)
    _, groups = _sorted_best(scores[:, : count * GROUP].unflatten(1, (count, GROUP)).amax(2), k)
    inside = (groups.sort(1).values[..., None] * GROUP + torch.arange(GROUP, device=scores.device)).flatten(1)
    rest = torch.arange(count * GROUP, wide, device=scores.device).expand(len(scores), -1)
    columns = torch.cat([inside, rest], 1)
    values, place = _sorted_best(scores.gather(1, columns), k)
    return values, columns.gather(1, place)


def _sorted_best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `_first_best`, by looking at all."""
    k = min(k, scores.shape[1])
    values, place = scores.topk(k, 1)
    last = values[:, -1:]
    if bool(((scores == last).sum(1) > (values == last).sum(1)).any()) or bool((values.diff(dim=1) == 0).any()):
        # topk takes any of those that are equal
        values, place = scores.sort(dim=1, descending=True, stable=True)
        return values[:, :k], place[:, :k]
    return values, place
