"""What users are offered, as a table in a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor


class Offers(NamedTuple):
    """users: their ids. items: (users, k) int64, the best first, 0 where there are no more. scores: (users, k)."""

    users: Sequence[Any]
    items: Tensor
    scores: Tensor


def write(path: Path, offers: Offers, catalogue: Any) -> None:
    """Writes a row a user and item (user, rank, item, score, and title where any is known) as .csv or .parquet."""
    import polars as pl

    count, k = offers.items.shape
    items = offers.items.flatten().numpy()
    frame = pl.DataFrame(
        {
            "user": pl.Series([str(each) for each in offers.users], dtype=pl.String).gather(
                pl.arange(count * k, eager=True) // max(k, 1)
            ),
            "rank": pl.arange(count * k, eager=True) % max(k, 1) + 1,
            "number": pl.Series(items),
            "score": pl.Series(offers.scores.flatten().float().numpy()),
        }
    )
    names = pl.DataFrame({"number": range(1, len(catalogue) + 1), "item": list(catalogue.ids)})
    columns = ["user", "rank", "item", "score"]
    if catalogue.titles:
        names = names.with_columns(title=pl.Series([catalogue.titles.get(each, "") for each in catalogue.ids]))
        columns.append("title")
    frame = (
        frame.filter(pl.col("number") > 0).join(names, on="number", how="left", maintain_order="left").select(columns)
    )
    temporary = path.with_name(f".{path.name}.tmp")
    (frame.write_parquet if path.suffix == ".parquet" else frame.write_csv)(temporary)
    os.replace(temporary, path)
