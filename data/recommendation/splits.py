"""Which events are learnt from and which are asked, and which are left out before that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...core.errors import UserError
from .histories import TEST, TRAIN, VAL, Log, leave_one_out


def divided(log: Log, split: str, val_fraction: float, test_fraction: float) -> Log:
    """The log with its parts.

    Args:
        split: "leave_one_out"; "time": the events of all users before two moments are learnt from and before the second asked in
            val, so that nothing is learnt from what came later for anybody; "ratio": the same shares of each user's own events.
        val_fraction, test_fraction: shares of the events, of "time" and "ratio".

    Raises:
        UserError: a split in time without times, or all of it at one moment.
    """
    if split == "leave_one_out":
        parts = leave_one_out(log.offsets)
    elif split == "ratio":
        sizes = np.diff(log.offsets)
        place = np.arange(len(log.items)) - np.repeat(log.offsets[:-1], sizes)
        kept = np.repeat(np.ceil(sizes * (1 - val_fraction - test_fraction)), sizes)
        before_test = np.repeat(np.ceil(sizes * (1 - test_fraction)), sizes)
        parts = np.where(place < kept, TRAIN, np.where(place < before_test, VAL, TEST)).astype(np.int8)
    else:
        if log.times is None:
            raise UserError("a split in time needs times", given="data.split=time", do="data.columns.time=NAME")
        first, second = np.quantile(log.times, [1 - val_fraction - test_fraction, 1 - test_fraction])
        if first <= log.times.min() or first == second:
            raise UserError(
                "the events cannot be divided in time", given=f"from {log.times.min()} to {log.times.max()}",
                allowed="times that differ", do="data.split=leave_one_out",
            )  # fmt: skip
        parts = np.where(log.times < first, TRAIN, np.where(log.times < second, VAL, TEST)).astype(np.int8)
    counts = np.bincount(log.items[parts == TRAIN], minlength=len(log.catalogue) + 1)
    return replace(log, parts=parts, catalogue=replace(log.catalogue, counts=counts))


def core(log: Log, least_of_user: int, least_of_item: int) -> Log:
    """Without users and items that have fewer events, until all that are left have as many (k-core).

    Raises:
        UserError: nothing is left.
    """
    users, kept = log.owners, np.ones(len(log.items), bool)
    while True:
        of_user = np.bincount(users[kept], minlength=len(log.offsets) - 1)
        of_item = np.bincount(log.items[kept], minlength=len(log.catalogue) + 1)
        still = kept & (of_user[users] >= least_of_user) & (of_item[log.items] >= least_of_item)
        if still.sum() == kept.sum():
            break
        kept = still
    if not kept.any():
        raise UserError(
            "no events are left", given=f"data.least_of_user={least_of_user}, data.least_of_item={least_of_item}",
            allowed=f"{len(log.items):,} events of {len(log.offsets) - 1:,} users and {len(log.catalogue):,} items",
        )  # fmt: skip
    return only(log, kept)


def only(log: Log, kept: np.ndarray) -> Log:
    """The events where `kept`, (events,) bool, and the users and items that have any, numbered anew in the same order."""
    if kept.all():
        return log
    users, has = np.unique(log.owners[kept], return_counts=True)
    items, numbers = np.unique(log.items[kept], return_inverse=True)
    catalogue = replace(
        log.catalogue,
        ids=[log.catalogue.ids[each - 1] for each in items.tolist()],
        counts=log.catalogue.counts[[0, *items.tolist()]],
        features={name: values[[0, *items.tolist()]] for name, values in log.catalogue.features.items()},
    )
    cut = {name: each[kept] for name in ("times", "behaviours") if (each := getattr(log, name)) is not None}
    return replace(
        log, offsets=np.concatenate([[0], np.cumsum(has)]), items=numbers + 1, parts=log.parts[kept], catalogue=catalogue,
        users=None if log.users is None else [log.users[each] for each in users.tolist()], **cut,
    )  # fmt: skip
