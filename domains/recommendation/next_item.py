"""The next item of each user: losses, full ranking, metrics by group, and what a test has shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from ...core.errors import check_choice
from ...core.ranges import Count, Share, Size, Weight, checked
from ..task import Task
from . import losses
from .packed import Packed, encode
from .pictures import Tested, draw_tested, in_words
from .ranking import Coverage, OfGroup, of_offers, of_ranks
from .top_k import Best, best_items, sampled_ranks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OFFERED = 10
WATCHED = ("hr@10", "ndcg@10", "mrr", "ndcg@10_of_best")  # while training


class NextItem(Task):
    """Which item comes next.

    Batches are dicts, as data.recommendation's Histories makes them. In training a causal model learns at every event at once;
    one that fills in masked items learns at masks; any other at `prefixes` places of each history, drawn anew each time. Tests
    rank all items.

    Args:
        model: a Recommender.
        describe: of the data: items, groups, group_names, catalogue, and best, the NDCG@10 that can be reached, where it is known.
        loss: "full": cross-entropy over all items. "sampled": over the target and `negatives` drawn items, corrected. "bce":
            binary, with `negatives` drawn items for each event.
        negatives: of the losses that have any.
        popularity: of "sampled": an item is drawn as its training events to this power; 0: evenly.
        prefixes: see above.
        mask_share, mask_last: share of a history's events that are masked, and of the histories where only the last is.
        filter_seen: items of the history are not offered; RecBole's numbers are without, those of S3-Rec and its followers with.
        sampled: items that the user has not had, drawn for each test event, among which the target is also ranked, in metrics
            called sampled_...; 0: none. Such numbers are not to be compared with those of full rankings.
        cases: histories in case_study.txt; 0: none.
        auxiliary: see Task.
    """

    monitor: ClassVar[tuple[str, str]] = ("val/ndcg@10", "max")

    @checked(group="task")
    def __init__(
        self,
        model: nn.Module,
        describe: Mapping[str, Any],
        loss: Literal["full", "sampled", "bce"] = "full",
        negatives: Size = 1,
        popularity: Weight = 0.0,
        prefixes: Size = 1,
        mask_share: Share = 0.2,
        mask_last: Share = 0.5,
        filter_seen: bool = False,
        sampled: Count = 0,
        cases: Count = 8,
        auxiliary: Weight = 1.0,
    ):
        super().__init__(model, describe, auxiliary)
        check_choice("task.loss", loss, losses.LossName.__args__, "loss")
        self.loss, self.negatives, self.prefixes = loss, negatives, prefixes
        self.mask_share, self.mask_last = mask_share, mask_last
        self.filter_seen, self.sampled, self.cases = filter_seen, sampled, cases
        self.tested: Tested | None = None
        counts = torch.from_numpy(describe["catalogue"].counts)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("shares", losses.shares_of(counts, popularity), persistent=False)
        self.coverage = Coverage(model.items)
        groups = describe["groups"].get("test", ())
        self.groups = nn.ModuleDict({f"{each}@10_{name}": OfGroup(each) for each in ("hr", "ndcg") for name in groups})

    def inputs(self, batch: Mapping[str, Any]) -> tuple:
        """Items, no seq_idx (a history a row), times, features."""
        return batch["items"], None, batch.get("times"), batch.get("features")

    def step(self, batch: Mapping[str, Any], stage: str) -> tuple[Tensor, dict[str, Tensor | Metric]]:
        if stage != "train":
            return self._ranked(batch, stage)
        hidden, targets = self.places_to_learn(batch)
        if self.loss == "full":
            return losses.full(self.model, hidden, targets), {}
        if self.loss == "sampled":
            return losses.sampled(self.model, hidden, targets, self.negatives, self.shares), {}
        return losses.bce(self.model, hidden, targets, self.negatives), {}

    def places_to_learn(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Where the model learns: hidden states (events, channels) and the items (events,) that they are to name."""
        items, targets = batch["items"], batch["targets"]
        if hasattr(self.model, "mask"):
            return self._masked(items if batch.get("features") else targets, batch.get("features"))
        if self.model.carries_state:  # it reads on from any event, so several histories of a row as well
            packed = Packed((items > 0).sum(1))
            _, _, *beside = map(packed.together, self.inputs(batch))
            hidden, _ = self.model(packed.together(items), packed.seq_idx, *beside)
            hidden, targets = packed.apart(hidden), targets[items > 0]
            return hidden[targets > 0], targets[targets > 0]
        if self.model.causal:
            hidden, _ = self.model(*self.inputs(batch))
            return hidden[targets > 0], targets[targets > 0]
        rows, last = self._prefixes(targets)
        place = torch.arange(items.shape[1], device=items.device)
        taken = items[rows].masked_fill(place > last[:, None], 0)
        _, _, times, features = self.inputs(batch)
        hidden = encode(
            self.model,
            taken,
            None if times is None else times[rows],
            None if features is None else {name: each[rows] for name, each in features.items()},
        )
        return hidden, targets[rows, last]

    def _prefixes(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and places (rows * prefixes,) of events that have a target, drawn evenly for each row."""
        drawn = torch.multinomial((targets > 0).float(), self.prefixes, replacement=True)
        rows = torch.arange(len(targets), device=targets.device).repeat_interleave(self.prefixes)
        return rows, drawn.flatten()

    def _masked(self, items: Tensor, features: Mapping[str, Tensor] | None) -> tuple[Tensor, Tensor]:
        real = items > 0
        place = torch.arange(items.shape[1], device=items.device)
        final = place == torch.where(real, place, -1).amax(1, keepdim=True)
        drawn = real & (torch.rand(items.shape, device=items.device) < self.mask_share)
        only = (torch.rand(len(items), 1, device=items.device) < self.mask_last) | ~drawn.any(1, keepdim=True)
        hidden_away = torch.where(only, final, drawn)
        hidden, _ = self.model(items.masked_fill(hidden_away, self.model.mask), features=features)
        return hidden[hidden_away], items[hidden_away]

    def _ranked(self, batch: Mapping[str, Any], stage: str) -> tuple[Tensor, dict[str, Tensor | Metric]]:
        items, _, times, features = self.inputs(batch)
        hidden = encode(self.model, items, times, features)
        targets = batch["targets"].amax(1)
        loss = losses.full(self.model, hidden, targets)
        hide = items.masked_fill(items == targets[:, None], 0) if self.filter_seen else None
        testing = stage == "test"
        seen = items if testing else None
        best = best_items(self.model, hidden, OFFERED if testing else 0, targets, hide, seen=seen)
        found: dict[str, Any] = of_ranks(best.ranks)
        if known := self.describe.get("best"):
            found["ndcg@10_of_best"] = found["ndcg@10"] / known[stage]
        if stage == "val":
            found = {name: each for name, each in found.items() if name in WATCHED}
        else:
            found |= self._of_test(batch, targets, best)
            if self.sampled:
                ranks = sampled_ranks(self.model, hidden, targets, items, self.sampled, self.drawing)
                found |= {f"sampled_{name}": each for name, each in of_ranks(ranks).items() if name in WATCHED}
        return loss, {name: each.float() if isinstance(each, Tensor) else each for name, each in found.items()}

    def _of_test(self, batch: Mapping[str, Any], targets: Tensor, best: Best) -> dict[str, Tensor | Metric]:
        """What only a test says: ties, metrics without the items seen, coverage, novelty, popularity, and metrics of groups."""
        self.coverage.update(best.items)
        found = {f"coverage@{OFFERED}": self.coverage, **of_offers(best.items, self.counts)}
        found["tied"] = (best.tied > 0).double().mean()
        found |= {f"{name}_unseen": each for name, each in of_ranks(best.unseen).items() if name in WATCHED}
        for name, metric in self.groups.items():
            group = self.describe["group_names"].index(name.rpartition("_")[2])
            metric.update(best.ranks, batch["group"] == group)
            found[name] = metric
        if self.tested is not None:
            self.tested.add(batch["items"], targets, best, self.cases)
        return found

    def on_test_epoch_start(self) -> None:
        self.tested = Tested()
        self.drawing = torch.Generator().manual_seed(0)  # every run draws the same

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        """first_batch.txt: histories and their targets; case_study.txt and by_history.png of a test."""
        name = self.describe["catalogue"].name
        if stage == "train":
            return {"first_batch": in_words(batch["items"][:8], batch["targets"][:8], name)}
        if stage != "test" or self.tested is None or not self.tested.ranks:
            return {}
        tested, self.tested = self.tested, None
        cases = {"case_study": tested.cases(name)} if self.cases else {}
        return {**cases, "by_history": draw_tested(tested, self.counts.cpu())}
