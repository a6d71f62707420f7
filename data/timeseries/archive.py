"""Labelled series of the UCR and UEA archives: `.ts` files, read here, each set with its own training and test part."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ...core.errors import UserError
from ...core.ranges import Fraction, Seed, checked
from ..files import data_root, find, not_there, read
from ..loading import Loading
from ..module import DataModule, Description
from ..randomness import hashed, stratified
from .sources import UCR


class Archive(DataModule):
    """One set of the archives. Batches are series (batch, length, variables) float32 and labels (batch,) int64.

    Values are scaled by mean and deviation of each variable over the training part; a series that is shorter than the longest of
    training is stretched to its length, a longer one shrunk (linear interpolation).

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`. The files <set>_TRAIN.ts and <set>_TEST.ts may lie
            in it directly, in <set> or in time_series/UCR_UEA/<set>, plain, .gz or .xz.
        loading: how batches are made.
        set: the set's name in the archive.
        val_fraction: share of the training series for validation, in each class.
        split_seed: seed of that split.
        name: in results.
    """

    source = UCR

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=16),
        set: str = "GunPoint",
        val_fraction: Fraction = 0.2,
        split_seed: Seed = 0,
        name: str = "ucr",
    ):
        super().__init__(name, loading)
        self.root, self.set, self.val_fraction, self.split_seed = data_root(root), set, val_fraction, split_seed
        self.splits: dict[str, tuple[torch.Tensor, torch.Tensor]] | None = None

    def setup(self, stage: str | None = None) -> None:
        """Read the two files, once."""
        if self.splits is not None:
            return
        train, train_labels, names = read_ts(self._find("TRAIN"))
        test, test_labels, _ = read_ts(self._find("TEST"), names)
        self.classes = names
        self.length, values = max(len(each) for each in train), np.concatenate(train)
        self.mean, deviation = values.mean(0), values.std(0)
        self.deviation = np.where(deviation > 0, deviation, 1)
        arrays = [self._prepared(part) for part in (train, test)]
        keys = hashed(self.split_seed, np.arange(len(train)))
        fit, val = stratified(train_labels, keys, (self.val_fraction,))
        parts = {"train": (arrays[0][fit], train_labels[fit]), "val": (arrays[0][val], train_labels[val])}
        parts["test"] = (arrays[1], test_labels)
        if self.loading.limit is not None:
            parts = {key: tuple(each[: self.loading.limit] for each in pair) for key, pair in parts.items()}
        self.splits = {key: tuple(map(torch.from_numpy, pair)) for key, pair in parts.items()}

    def samples(self, split: str) -> int:
        """Series of a split."""
        return len(self.splits[split][1])

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Series and labels; see the class."""
        index = torch.from_numpy(np.asarray(positions))
        values, labels = self.splits[split]
        return values[index], labels[index]

    def describe(self) -> Description:
        """See `DataModule.describe`."""
        self.read()
        _, length, variables = self.splits["train"][0].shape
        return self.described(
            name=f"{self.name}_{self.set}",
            shape=f"{length} steps of {variables} variable{'s' if variables > 1 else ''}, {len(self.classes)} classes",
            for_model={
                "task": "classification",
                "lookback": length,
                "horizon": 1,
                "variables": variables,
                "mark_features": 0,
                "classes": list(self.classes),
                "num_classes": len(self.classes),
                "model_size": "micro",
            },
            values=length * variables,
            length=length,
            tested=f"the archive's own test part of {self.set}",
        )

    def of_file(self, path: Path) -> tuple[torch.Tensor, torch.Tensor]:
        """The series of another .ts file as models here take them, (series, length, variables), and labels, -1 where it has none.

        Raises:
            UserError: there is no such file, or it is not of this form.
        """
        self.setup()
        if not path.is_file():
            raise UserError("there is no such file", given=f"input={path}")
        series, labels, _ = read_ts(path, self.classes)
        if series[0].shape[1] != len(self.mean):
            raise UserError(
                f"{path} has other variables than {self.set}", given=series[0].shape[1], allowed=str(len(self.mean))
            )
        return torch.from_numpy(self._prepared(series)), torch.from_numpy(labels)

    def _prepared(self, series: Sequence[np.ndarray]) -> np.ndarray:
        """Series as models take them: stretched and scaled, (series, length, variables)."""
        scaled = [(stretched(each, self.length) - self.mean) / self.deviation for each in series]
        return np.stack(scaled).astype(np.float32)

    def known_series(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The archive's whole training part, validation series too: (series, length, variables), labels (series,)."""
        both = [self.splits[split] for split in ("train", "val")]
        return tuple(torch.cat(each) for each in zip(*both, strict=True))

    def _find(self, part: str) -> Path:
        folders = (f"{self.source.folder}/{self.set}", self.set, "")
        path = find([self.root / folder for folder in folders], f"{self.set}_{part}.ts")
        if path is None:
            raise not_there(f"{self.set}_{part}.ts of the UCR and UEA archives", self.root)
        return path


def read_ts(path: Path, classes: list[str] | None = None) -> tuple[list[np.ndarray], np.ndarray, list[str]]:
    """Reads a .ts file: variables separated by colons, values by commas, the label last where there are labels.

    Args:
        classes: names that labels may have; None: those that the file's @classLabel line says. Where they are given, a file of
            `@classLabel false` has no labels.

    Returns:
        series, each (length, variables) float64, labels (series,) int64 (-1 for ? and where there are none), the classes' names.

    Raises:
        UserError: no labels, or a line that is not as it should be.
    """
    series, labels, header, begun, labelled = [], [], None, False, True
    for number, line in enumerate(read(path).decode("utf-8", "replace").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if not begun:
            begun = line.lower() == "@data"
            said = re.fullmatch(r"@classlabel\s+true\s+(.*)", line, re.IGNORECASE)
            header = said[1].split() if said else header
            labelled = labelled and re.fullmatch(r"@classlabel\s+false", line, re.IGNORECASE) is None
            continue
        *variables, label = line.split(":") if labelled or classes is None else [*line.split(":"), "?"]
        names = classes or header
        if names is None:
            raise UserError(f"{path} names no classes", allowed="a line @classLabel true <names> before @data")
        try:
            columns = [np.array(each.split(","), np.float64) for each in variables]
            series.append(np.stack(columns, 1))
            labels.append(-1 if label.strip() == "?" and classes is not None else names.index(label.strip()))
        except ValueError as error:
            raise UserError(f"{path}, line {number} is no series with its class", given=str(error)) from error
        if not np.isfinite(series[-1]).all() or series[-1].shape[1] != series[0].shape[1]:
            raise UserError(f"{path}, line {number}: a missing value, or another number of variables than in the first")
    if not series:
        raise UserError(f"{path} holds no series", given=f"{path.stat().st_size:,} bytes")
    return series, np.array(labels, np.int64), classes or header


def stretched(values: np.ndarray, length: int) -> np.ndarray:
    """A series (steps, variables) at another length, by linear interpolation."""
    if len(values) == length:
        return values
    places, old = np.linspace(0, len(values) - 1, length), np.arange(len(values))
    return np.stack([np.interp(places, old, column) for column in values.T], 1)
