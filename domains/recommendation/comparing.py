"""Whether one run ranks better than another on the same events, or by chance."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import torch

from ...core.errors import UserError
from ..trained import Answer, Trained
from .packed import encode
from .top_k import best_items

RANKS = "ranks.csv"
DRAWS = 10_000  # of the paired permutation test


def compare_runs(run: Trained, other: Path, batch_size: int) -> Answer:
    """Ranks the run's test events, keeps the ranks beside it, and holds them against those of another run.

    Args:
        other: the folder of a run for which this was done before.

    Raises:
        UserError: the other run has no ranks yet, or those of other events.
    """
    ranks, path = test_ranks(run, batch_size), run.folder / RANKS
    write_ranks(path, ranks)
    if other.resolve() == run.folder.resolve():
        return Answer(
            [f"  NDCG@10 {gains(ranks[:, 1]).mean():.4f}, {len(ranks):,} events; name the other run to compare"], [path]
        )
    against = read_ranks(other / RANKS)
    if not np.array_equal(ranks[:, 0], against[:, 0]):
        raise UserError(
            "the two runs were tested on other events", given=f"{len(ranks):,} here, {len(against):,} there",
            do="train both on the same data with the same split",
        )  # fmt: skip
    mine, theirs = gains(ranks[:, 1]), gains(against[:, 1])
    p = paired_permutation(mine - theirs)
    line = f"  NDCG@10 {mine.mean():.4f} here, {theirs.mean():.4f} there, difference {(mine - theirs).mean():+.4f}"
    return Answer([line, f"  p = {p:.4f}: paired permutation test over {len(ranks):,} events, {DRAWS:,} draws"], [path])


def test_ranks(run: Trained, batch_size: int) -> np.ndarray:
    """(events, 2) int64: the item that came and its place, of each test event in order."""
    run.data.read()
    found = []
    for begin in range(0, run.data.samples("test"), batch_size):
        positions = np.arange(begin, min(begin + batch_size, run.data.samples("test")))
        batch = run.data.load_batch("test", 0, positions)
        items, _, times, features = run.task.inputs(batch)
        targets = batch["targets"].amax(1)
        with torch.inference_mode():
            hidden = encode(
                run.model,
                items.to(run.device),
                None if times is None else times.to(run.device),
                None if features is None else {name: each.to(run.device) for name, each in features.items()},
            )
            ranks = best_items(run.model, hidden, 0, targets.to(run.device)).ranks.cpu()
        found.append(torch.stack([targets, ranks], 1).numpy())
    return np.concatenate(found)


def gains(ranks: np.ndarray) -> np.ndarray:
    """NDCG@10 of each event, (events,), from its rank."""
    return (ranks <= 10) / np.log2(ranks + 1)


def paired_permutation(differences: np.ndarray, draws: int = DRAWS, seed: int = 0) -> float:
    """The share of random signs of the differences, (events,), whose sum is at least as far from 0 as theirs; two-sided."""
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    generator, far, done = np.random.default_rng(seed), 0, 0
    bar = abs(differences.sum()) - 1e-12
    tall = max(1, 2**22 // len(differences))
    while done < draws:
        now = min(tall, draws - done)
        signs = generator.integers(0, 2, (now, len(differences)), np.int8) * 2 - 1
        far += int((np.abs(signs @ differences) >= bar).sum())
        done += now
    return (far + 1) / (draws + 1)


def write_ranks(path: Path, ranks: np.ndarray) -> None:
    """Writes item number and rank of each event."""
    temporary = path.with_name(f".{path.name}.tmp")
    np.savetxt(temporary, ranks, "%d", ",", header="item,rank", comments="")
    os.replace(temporary, path)


def read_ranks(path: Path) -> np.ndarray:
    """What `write_ranks` has written."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return np.array([[int(cell) for cell in row] for row in list(csv.reader(file))[1:]])
    except (OSError, ValueError) as error:
        raise UserError(
            f"no ranks can be read: {path}", given=str(error), do=f"predict.py ckpt={path.parent} compare={path.parent}"
        ) from error
