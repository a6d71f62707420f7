"""The base of the recommendation data: users' events in order, cut into what is learnt from and what is asked."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.ranges import Size, checked
from ..loading import Loading
from ..module import SPLITS, DataModule, Description
from .catalogue import Catalogue

GROUPS = ("cold", "warm", "long")  # users by the events before the one that is asked: fewer than 5, to 19, more
BOUNDS = (5, 20)
TRAIN, VAL, TEST = range(3)


@dataclass(frozen=True)
class Log:
    """Events, those of a user together and in order.

    Args:
        offsets: (users + 1,) int64, where each user's events begin, and the end.
        items: (events,) int64, numbers from 1.
        parts: (events,) int8, TRAIN, VAL or TEST; of a user never a smaller one behind a larger.
        catalogue: of the items.
        times: (events,) int64, seconds; None: not known.
        behaviours: (events,) int64, kinds of events, numbers from 1; None: there are none.
        users: ids of the users; None: their numbers, from 0.
        unknown: how many events were left out, because the catalogue does not have their items.
    """

    offsets: np.ndarray
    items: np.ndarray
    parts: np.ndarray
    catalogue: Catalogue
    times: np.ndarray | None = None
    behaviours: np.ndarray | None = None
    users: list[str] | None = None
    unknown: int = 0

    @property
    def owners(self) -> np.ndarray:
        """(events,) int64, the number of each event's user, from 0."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def user_id(self, number: int) -> str:
        """The id of the user of this number."""
        return str(number) if self.users is None else self.users[number]

    def renumbered(self, catalogue: Catalogue) -> Log:
        """The same events under the numbers of another catalogue; events of items that it does not have are left out."""
        if not catalogue.behaviours:
            self = replace(self, behaviours=None)
        if list(catalogue.ids) == list(self.catalogue.ids):
            return replace(self, catalogue=catalogue)
        new = np.array([0, *(catalogue.numbers.get(each, 0) for each in self.catalogue.ids)])[self.items]
        kept, owners = new > 0, self.owners
        offsets = np.concatenate([[0], np.cumsum(np.bincount(owners[kept], minlength=len(self.offsets) - 1))])
        cut = {name: each[kept] for name in ("times", "behaviours") if (each := getattr(self, name)) is not None}
        unknown = int((~kept).sum())
        return replace(
            self, offsets=offsets, items=new[kept], parts=self.parts[kept], catalogue=catalogue, unknown=unknown, **cut
        )


class Histories(DataModule):
    """Users' histories: a subclass says `load`.

    A training sample is up to `length` events of a user, each with the one after it as its target; a longer history gives
    several, none of whose targets are the same. A sample of val or test is one event that is asked, and the up to `length` before
    it. A batch is a dict: items, targets (batch, longest) int64, 0 behind a history and where nothing is asked; times the same in
    seconds, and features by name, where there are any; group (batch,), the number of the user's group.

    Args:
        name: in results. loading: how batches are made. length: events of a history that the model is given at most.
    """

    @checked(group="data")
    def __init__(self, name: str, loading: Loading, length: Size):
        super().__init__(name, loading)
        self.length = length
        self.log: Log | None = None
        self.catalogue: Catalogue | None = None

    @abstractmethod
    def load(self) -> Log:
        """All events, divided.

        Raises:
            UserError: naming the file, line or column that is wrong.
        """

    def setup(self, stage: str | None = None) -> None:
        """See `DataModule.setup`."""
        if self.splits is not None:
            return
        log = self.load()
        self.log = log if self.catalogue is None else log.renumbered(self.catalogue)
        self.catalogue = self.log.catalogue
        self.splits = {"train": windows(self.log, self.length)}
        for split, part in (("val", VAL), ("test", TEST)):
            self.splits[split] = asked(self.log, self.length, part)
        if self.loading.limit is not None:
            self.splits = {split: bounds[: self.loading.limit] for split, bounds in self.splits.items()}
        if not len(self.splits["train"]):
            raise UserError(
                f"{self.name} has nothing to learn from", given=f"{len(self.log.items):,} events of {len(self.catalogue):,} items",
                allowed="users with two training events or more",
            )  # fmt: skip

    def samples(self, split: str) -> int:
        """See `DataModule.samples`."""
        return len(self.splits[split])

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> dict[str, Any]:
        """See the class."""
        begin, end = self.splits[split][positions].T
        found = events_between(self.log, begin, end)
        following = events_between(replace(self.log, times=None, behaviours=None), begin + 1, end + 1)["items"]
        if split != "train":
            following[torch.arange(following.shape[1]) != torch.from_numpy(end - begin - 1)[:, None]] = 0
        return {
            "items": found.pop("items"),
            "targets": following,
            **found,
            "group": torch.from_numpy(self._groups(end)),
        }

    def whole(self, log: Log, users: np.ndarray, most: int | None = 0) -> dict[str, Any]:
        """Items, times and features of all events of some users of a log, (users,) their numbers.

        Args:
            most: events of each, the latest; 0: as many as the model was trained with; None: all.
        """
        end = log.offsets[users + 1]
        most = self.length if most == 0 else most
        begin = log.offsets[users] if most is None else np.maximum(log.offsets[users], end - most)
        return events_between(log, begin, end)

    def read_events(self, path: Path) -> Log:
        """The events of a table, under the numbers of this catalogue; see tables.read_table.

        Raises:
            UserError: naming the file, line or column that is wrong.
        """
        from .tables import Columns, read_table, to_log

        columns = getattr(self, "columns", Columns())
        log = to_log(read_table(path, columns), path, self.kept()["catalogue"].behaviours)
        return log.renumbered(self.kept()["catalogue"])

    def _groups(self, end: np.ndarray) -> np.ndarray:
        before = end - self.log.offsets[np.searchsorted(self.log.offsets, end - 1, "right") - 1]
        return np.digitize(before, BOUNDS)

    def describe(self) -> Description:
        """See `DataModule.describe`."""
        self.read()
        users = len(self.log.offsets) - 1
        present = {split: np.unique(self._groups(self.splits[split][:, 1])) for split in SPLITS if self.samples(split)}
        features = {name: len(self.catalogue.values[name]) for name in self.catalogue.features}
        return self.described(
            shape=f"{users:,} users, {len(self.catalogue):,} items, {len(self.log.items):,} events, up to {self.length:,} at once",
            for_model={
                "items": len(self.catalogue),
                "length": self.length,
                "behaviours": list(self.catalogue.behaviours),
                "features": features,
                "groups": {split: [GROUPS[each] for each in found] for split, found in present.items()},
                "group_names": list(GROUPS),
            },
            values=self.length,
            length=self.length,
            resized_by="data.length",
            tested="every item ranked",
        )

    def kept(self) -> Mapping[str, Any]:
        """See `DataModule.kept`: the catalogue; and what was learnt from, (events,) users and items, where it was read."""
        if self.catalogue is None:
            self.read()
        return {"catalogue": self.catalogue} | ({} if self.log is None else {"events": self.events()})

    def events(self) -> tuple[Tensor, Tensor]:
        """Users and items of the training events: (events,) int64 each."""
        training = self.log.parts == TRAIN
        return torch.from_numpy(self.log.owners[training]), torch.from_numpy(self.log.items[training])

    def keep(self, folder: Path) -> None:
        """See `DataModule.keep`."""
        self.kept()["catalogue"].save(folder)

    def restore(self, folder: Path) -> None:
        """See `DataModule.restore`."""
        self.catalogue = Catalogue.load(folder)

    @classmethod
    def reading(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """See `DataModule.reading`."""
        return {**super().reading(settings), "length": settings["length"]}


def events_between(log: Log, begin: np.ndarray, end: np.ndarray) -> dict[str, Any]:
    """Items, times and features of the events from `begin` to before `end`, (batch,) each: (batch, longest), 0 behind them."""
    at = begin[:, None] + np.arange(max(int((end - begin).max()), 1))
    inside = at < end[:, None]
    at = np.where(inside, at, 0)

    def taken(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.where(inside, values[at] if len(values) else 0, 0))

    found: dict[str, Any] = {"items": taken(log.items)}
    if log.times is not None:
        found["times"] = taken(log.times)
    features = {name: torch.from_numpy(values)[found["items"]] for name, values in log.catalogue.features.items()}
    if log.behaviours is not None:
        features["behaviour"] = taken(log.behaviours)
    return found | ({"features": features} if features else {})


def windows(log: Log, length: int) -> np.ndarray:
    """The training samples: (samples, 2) int64, the first event of each and the one behind its last.

    A user's targets are divided from the last one backwards, so that what is left over is the beginning.
    """
    training = np.bincount(log.owners[log.parts == TRAIN], minlength=len(log.offsets) - 1)
    targets = np.maximum(training - 1, 0)
    pieces = -(-targets // length)
    owner = np.repeat(np.arange(len(pieces)), pieces)
    back = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    end = log.offsets[owner] + targets[owner] - back * length
    return np.stack([np.maximum(log.offsets[owner], end - length), end], 1)


def asked(log: Log, length: int, part: int) -> np.ndarray:
    """The samples of another part, as of `windows`: its events that have one before them."""
    first = log.offsets[log.owners]
    end = np.flatnonzero((log.parts == part) & (np.arange(len(log.items)) > first))
    return np.stack([np.maximum(first[end], end - length), end], 1)


def leave_one_out(offsets: np.ndarray) -> np.ndarray:
    """Parts (events,): of users with three events or more the last is asked in test, the one before it in val."""
    parts = np.zeros(offsets[-1], np.int8)
    end = offsets[1:][np.diff(offsets) >= 3]
    parts[end - 1], parts[end - 2] = TEST, VAL
    return parts
