"""The user's own table of events."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...core.errors import UserError, check_choice
from ...core.ranges import Fraction, Size, checked
from ..loading import Loading
from .histories import Histories, Log
from .sources import INTERACTIONS
from .splits import core, divided
from .tables import Columns, read_file, read_table, to_log

Split = Literal["leave_one_out", "time", "ratio"]


class Interactions(Histories):
    """Events from a table; see tables.py for its forms.

    Args:
        file: the table. columns: what its columns are called, where that is not found by their names.
        items: a table of the items: id, title, and features, words divided by spaces or |; None: nothing is known of them.
        features: columns of `items` that are features.
        split, val_fraction, test_fraction: see splits.divided.
        least_of_user, least_of_item: users and items with fewer events are left out.
        least_weight: events of less weight are left out; None: none is.
        duplicates: "refuse" the same event twice, or "drop" all but the first.
        length, loading, name: see `Histories`.
    """

    source = INTERACTIONS

    @checked(group="data")
    def __init__(
        self,
        file: str | None = None,
        columns: Columns = Columns(),  # noqa: B008  frozen
        items: str | None = None,
        features: list[str] | None = None,
        split: Literal["leave_one_out", "time", "ratio"] = "leave_one_out",
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.1,
        least_of_user: Size = 1,
        least_of_item: Size = 1,
        least_weight: float | None = None,
        duplicates: Literal["refuse", "drop"] = "refuse",
        length: Size = 50,
        loading: Loading = Loading(batch_size=128),
        name: str = "interactions",
    ):
        super().__init__(name, loading, length)
        check_choice("data.split", split, Split.__args__)
        check_choice("data.duplicates", duplicates, ("refuse", "drop"))
        if file is None:
            raise UserError("which table of events?", given="data.file=null", do="data.file=events.csv")
        if val_fraction + test_fraction >= 1:
            raise UserError(
                "nothing would be left to learn from", allowed="less than 1 together",
                given=f"data.val_fraction={val_fraction}, data.test_fraction={test_fraction}",
            )  # fmt: skip
        self.file, self.columns, self.items, self.features = Path(file).expanduser(), columns, items, features or []
        self.split, self.val_fraction, self.test_fraction = split, val_fraction, test_fraction
        self.least_of_user, self.least_of_item, self.least_weight = least_of_user, least_of_item, least_weight
        self.duplicates = duplicates

    def load(self) -> Log:
        """See `Histories.load`."""
        import polars as pl

        frame = read_table(self.file, self.columns)
        if self.least_weight is not None:
            if "weight" not in frame.columns:
                raise UserError(
                    f"{self.file} has no weights",
                    given=f"data.least_weight={self.least_weight}",
                    do="data.columns.weight=NAME",
                )
            frame = frame.filter(pl.col("weight") >= self.least_weight)
        if self.duplicates == "drop":
            names = [name for name in ("user", "item", "time", "behaviour") if name in frame.columns]
            frame = frame.unique(names, keep="first", maintain_order=True) if "time" in names else frame
        known = () if self.catalogue is None else self.catalogue.behaviours
        log = core(to_log(frame, self.file, known), self.least_of_user, self.least_of_item)
        if self.items is not None:
            log = replace(log, catalogue=with_items(log.catalogue, Path(self.items).expanduser(), self.features))
        log = divided(log, self.split, self.val_fraction, self.test_fraction)
        sizes = np.diff(log.offsets)
        if sizes.max() < 3 and self.split == "leave_one_out":
            raise UserError(
                f"{self.file}: no user has three events, one each to learn from, validate and test",
                given=f"{len(sizes):,} users with {sizes.max()} at most",
            )  # fmt: skip
        return log

    @classmethod
    def reading(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """See `DataModule.reading`."""
        return {**super().reading(settings), "columns": settings["columns"]}


def with_items(catalogue: Any, path: Path, features: list[str]) -> Any:
    """A catalogue with the titles and features of a table of items.

    Raises:
        UserError: a column that is not there.
    """
    frame = read_file(path)
    plain = {name.split(":")[0].lower(): name for name in frame.columns}
    key = next(
        (plain[name] for name in ("item", "item_id", "id", "product_id", "movie_id", "asin") if name in plain), None
    )
    missing = [name for name in features if name not in plain]
    if key is None or missing:
        raise UserError(
            f"{path} lacks a column", given=list(frame.columns), allowed=", ".join(["item", *features]), do="rename it"
        )
    ids = [str(each).strip() for each in frame[key]]
    title = next((plain[name] for name in ("title", "movie_title", "name") if name in plain), None)
    titles = {} if title is None else dict(zip(ids, map(str, frame[title]), strict=True))
    arrays, names = {}, {}
    for name in features:
        words = [str(each or "").replace("|", " ").split() for each in frame[plain[name]]]
        of_item = dict(zip(ids, words, strict=True))
        arrays[name], names[name] = numbered([of_item.get(each, []) for each in catalogue.ids])
    known = set(catalogue.ids)
    return replace(
        catalogue, features=arrays, values=names, titles={key: title for key, title in titles.items() if key in known}
    )


def numbered(words: list[list[str]]) -> tuple[np.ndarray, list[str]]:
    """Words of each item as numbers from 1: (items + 1, most words) int64, 0 where there are fewer, and the words."""
    names = sorted({each for row in words for each in row})
    number = {each: place for place, each in enumerate(names, 1)}
    found = np.zeros((len(words) + 1, max(1, max(map(len, words), default=1))), np.int64)
    for place, row in enumerate(words, 1):
        found[place, : len(row)] = [number[each] for each in row]
    return found, names
