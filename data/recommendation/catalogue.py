"""What a trained recommender has to know of its items: their ids and titles, their features, how often they were taken."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

FILE, ARRAYS = "items.json", "items.npz"


@dataclass(frozen=True)
class Catalogue:
    """Items by number, counted from 1.

    Args:
        ids: of the items, as the table has them; number 1 first.
        counts: (items + 1,) int64, training events of each item.
        behaviours: names of the kinds of events; number 1 first.
        features: name -> (items + 1, values) int64, what is known of each item, 0 where there is less.
        values: name -> names of a feature's values; number 1 first.
        titles: id -> title, where there are any.
    """

    ids: Sequence[str]
    counts: np.ndarray
    behaviours: Sequence[str] = ()
    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """Item ids -> numbers."""
        return {each: number for number, each in enumerate(self.ids, 1)}

    def name(self, number: int) -> str:
        """An item's title, or its id."""
        each = self.ids[number - 1]
        return self.titles.get(each, each)

    def save(self, folder: Path) -> None:
        """Writes it into a folder, made where it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        named = {key: list(getattr(self, key)) for key in ("ids", "behaviours")}
        named |= {key: dict(getattr(self, key)) for key in ("values", "titles")}
        (folder / FILE).write_text(json.dumps(named, ensure_ascii=False), encoding="utf-8")
        with open(folder / ARRAYS, "wb") as file:
            np.savez(file, counts=self.counts, **{f"feature.{name}": each for name, each in self.features.items()})

    @classmethod
    def load(cls, folder: Path) -> Catalogue | None:
        """What `save` has written there; None where nothing is."""
        if not (folder / FILE).is_file():
            return None
        with np.load(folder / ARRAYS) as arrays:
            features = {name.removeprefix("feature."): arrays[name] for name in arrays.files if name != "counts"}
            counts = arrays["counts"]
        return cls(counts=counts, features=features, **json.loads((folder / FILE).read_text(encoding="utf-8")))
