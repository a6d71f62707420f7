"""What a test has shown: histories with what came and what was offered, NDCG@10 by the length of histories and by popularity."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.pictures import FAINT, INK, RIGHT
from .top_k import Best

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EDGES = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000, 100_000)
SHOWN = 8  # events of a history in words


class Tested:
    """What a test leaves: `histories`, (events,) lengths of them, `targets` and their `ranks`; lists of a tensor a batch."""

    def __init__(self):
        self.histories: list[Tensor] = []
        self.targets: list[Tensor] = []
        self.ranks: list[Tensor] = []
        self.first: list[tuple[list[int], int, int, list[int]]] = []

    def add(self, items: Tensor, targets: Tensor, best: Best, cases: int) -> None:
        """items: (batch, length), targets: (batch,); cases: how many histories are kept with what was offered."""
        for row in range(min(cases - len(self.first), len(items))):
            history = items[row][items[row] > 0].tolist()
            self.first.append((history, int(targets[row]), int(best.ranks[row]), best.items[row].tolist()))
        for kept, each in ((self.histories, (items > 0).sum(1)), (self.targets, targets), (self.ranks, best.ranks)):
            kept.append(each.cpu())

    def cases(self, name: Callable[[int], str]) -> str:
        """The kept histories, what came next and what was offered, in words."""
        found = []
        for history, target, rank, offered in self.first:
            found += [
                f"history  {_listed(history, name)}", f"next     {name(target)}, ranked {rank:,}",
                f"offered  {', '.join(name(each) for each in offered if each)}", "",
            ]  # fmt: skip
        return "\n".join(found[:-1])


def in_words(items: Tensor, targets: Tensor, name: Callable[[int], str]) -> str:
    """Histories of a training batch, (batch, length), each with its last target."""
    rows = zip(items.tolist(), targets.tolist(), strict=True)
    lines = []
    for history, target in rows:
        events = [each for each in history if each]
        lines.append(f"{_listed(events, name)} -> {name([each for each in target if each][-1])}")
    return "\n".join(lines)


def _listed(history: list[int], name: Callable[[int], str]) -> str:
    before = f"… {len(history) - SHOWN:,} more, " if len(history) > SHOWN else ""
    return before + ", ".join(name(each) for each in history[-SHOWN:])


def draw_tested(tested: Tested, counts: Tensor) -> Figure:
    """NDCG@10 by the length of histories and by the training events of what came; counts: (items + 1,)."""
    from matplotlib.figure import Figure

    histories, targets, ranks = (torch.cat(each) for each in (tested.histories, tested.targets, tested.ranks))
    gains = (ranks <= 10) / torch.log2(ranks.double() + 1)
    figure = Figure(figsize=(9, 3.2), layout="constrained", dpi=150)
    axes = figure.subplots(1, 2, sharey=True)
    values = (histories, counts[targets])
    for each, value, title in zip(axes, values, ("events before", "training events of what came"), strict=True):
        labels, means, sizes = binned(value, gains)
        each.bar(range(len(means)), means, color=RIGHT, width=0.7)
        for place, (mean, size) in enumerate(zip(means, sizes, strict=True)):
            each.annotate(f"{size:,}", (place, mean), ha="center", va="bottom", fontsize=7, color=FAINT)
        each.set_xticks(range(len(labels)), labels, fontsize=7)
        each.set_xlabel(title, color=INK)
    axes[0].set_ylabel("NDCG@10", color=INK)
    figure.suptitle(f"{len(ranks):,} events asked; grey: how many", fontsize=9, color=FAINT)
    return figure


def binned(values: Tensor, gains: Tensor) -> tuple[list[str], list[float], list[int]]:
    """Labels, means of `gains` and sizes of the bins of `values` that hold any; both (events,)."""
    edges = torch.tensor(EDGES)
    place = torch.bucketize(values, edges, right=True)
    labels, means, sizes = [], [], []
    for each in place.unique().tolist():
        low = EDGES[each - 1] if each else 0
        high = EDGES[each] - 1 if each < len(EDGES) else None
        labels.append(f"{low:,}+" if high is None else f"{low:,}" if high == low else f"{low:,} to {high:,}")
        means.append(float(gains[place == each].mean()))
        sizes.append(int((place == each).sum()))
    return labels, means, sizes
