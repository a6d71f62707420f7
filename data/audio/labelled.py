"""Sounds with names: a folder a class, the environmental sounds of ESC-10, spoken digits."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.ranges import Fraction, Positive, Rate, Seed, Size, Weight, checked
from ..files import data_root, not_there, read
from ..loading import Loading
from ..module import SPLITS, DataModule, Description
from ..randomness import hashed, stratified, uniforms
from . import files
from .digits import RATE, Takes
from .mixtures import stretch
from .sources import ESC10, FSDD

# files or signals (time), and their labels: (sounds) whole numbers, or of several names (sounds, classes) float32, 0 or 1
Sounds = tuple[list[Path | np.ndarray], np.ndarray]
TABLE, NAMES, AND = "labels.csv", ("file", "labels"), ";"  # of sounds with several names


class LabelledSounds(DataModule):
    """A batch is sounds (batch, time) and labels (batch) int64, all mono at one rate; of several names (batch, classes) float32.

    Training hears a stretch of a longer sound, another one in each epoch, and a shorter one at another place; validation and test
    the middle.

    Args:
        name, loading: see DataModule. rate: samples a second; others are resampled. seconds: of a sample.
        gain: training sounds are up to so many dB louder or softer.
        speed: they are played so much faster or slower at most, as a share; pitch and formants move along, as from voice to voice.
    """

    sounds = files
    splits: dict[str, Sounds] | None = None
    classes: Sequence[str]

    def __init__(self, name: str, loading: Loading, rate: int, seconds: float, gain: float, speed: float):
        super().__init__(name, loading)
        self.rate, self.length, self.gain, self.speed = rate, max(1, round(seconds * rate)), gain, speed
        self._files = files.Held(rate)

    def load(self) -> dict[str, Sounds]:
        """The sounds of each split; sets `classes`."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        if self.splits is None:
            limit, loaded = self.loading.limit, self.load()
            keys = {split: hashed(self.loading.seed, np.arange(len(labels))) for split, (_, labels) in loaded.items()}
            self.splits = {}
            for split, (sounds, labels) in loaded.items():
                chosen = np.sort(np.argsort(keys[split], kind="stable")[:limit])
                self.splits[split] = [sounds[n] for n in chosen], labels[chosen]

    def samples(self, split: str) -> int:
        return len(self.splits[split][1])

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        self.setup()
        sounds, labels = self.splits[split]
        training = split == "train"
        draws = uniforms(3, self.loading.seed, SPLITS.index(split), epoch, np.asarray(positions))
        batch = []
        for number, (place, level, speed) in zip(positions, draws, strict=True):
            signal = self.heard(sounds[number])
            if training and self.speed:
                signal = files.resampled(signal, round(self.rate * (1 + self.speed * (2 * speed - 1))), self.rate)
            signal = stretch(signal, self.length, place if training else 0.5)
            gain = 10 ** (self.gain * (2 * level - 1) / 20) if training else 1
            batch.append(signal * np.float32(gain))
        dtype = np.int64 if labels.ndim == 1 else np.float32
        return torch.from_numpy(np.stack(batch)), torch.from_numpy(labels[positions].astype(dtype))

    def heard(self, sound: Path | np.ndarray) -> np.ndarray:
        """(time) float32 at the rate."""
        return sound if isinstance(sound, np.ndarray) else self._files(sound)

    def verify(self) -> None:
        super().verify()
        for sounds, _ in self.splits.values():
            for sound in sounds:
                self.heard(sound)

    def describe(self) -> Description:
        self.setup()
        seconds = self.length / self.rate
        return self.described(
            shape=f"{seconds:g} s at {self.rate:,} Hz, {len(self.classes)} classes", values=self.length,
            resized_by="data.seconds",
            for_model={
                "task": "tagging", "samples": self.length, "rate": self.rate, "classes": list(self.classes),
                "num_classes": len(self.classes), "model_size": "micro",
                "several": self.splits["train"][1].ndim == 2,
            },
        )  # fmt: skip


class AudioFolder(LabelledSounds):
    """Your own sounds, a folder a class, in `train`, `val`, `test` or directly.

    Sounds of several names are named by the folder's labels.csv: file, labels ("dog;rain"), and perhaps split.

    Args:
        root: the folder.
        val_fraction, test_fraction: shares of each class for validation and test, where there are no folders for them.
        split_seed: of these. rate, seconds, gain, speed, loading, name: see LabelledSounds.
    """

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=16),
        rate: Size = 16000,
        seconds: Positive = 2.0,
        gain: Weight = 6.0,
        speed: Rate = 0.0,
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        split_seed: Seed = 0,
        name: str = "audio_folder",
    ):
        super().__init__(name, loading, rate, seconds, gain, speed)
        if root is None:
            raise UserError("which folder?", do="data.root=FOLDER, with a folder a class in it")
        if val_fraction + test_fraction >= 1:
            raise UserError("data.val_fraction and data.test_fraction leave nothing to train on")
        self.root, self.split_seed = Path(root).expanduser(), split_seed
        self.fractions = (val_fraction, test_fraction)

    def load(self) -> dict[str, Sounds]:
        if not self.root.is_dir():
            raise UserError("there is no such folder", given=f"data.root={self.root}", do="data.root=FOLDER")
        if (self.root / TABLE).is_file():
            return self._named(self.root / TABLE)
        if not all((self.root / split).is_dir() for split in ("train", "test")):
            sounds, labels = self._labelled(self.root, None)
            keys = hashed(self.split_seed, np.arange(len(labels)))
            parts = stratified(labels, keys, self.fractions)
            return {name: _take(sounds, labels, part) for name, part in zip(SPLITS, parts, strict=True)}
        sounds, labels = self._labelled(self.root / "train", None)
        found = {"train": (sounds, labels), "test": self._labelled(self.root / "test", self.classes)}
        if (self.root / "val").is_dir():
            return found | {"val": self._labelled(self.root / "val", self.classes)}
        train, val = stratified(labels, hashed(self.split_seed, np.arange(len(labels))), self.fractions[:1])
        return found | {"train": _take(sounds, labels, train), "val": _take(sounds, labels, val)}

    def _named(self, table: Path) -> dict[str, Sounds]:
        """The sounds that a table names."""
        rows = list(csv.DictReader(read(table).decode().splitlines()))
        if not rows or not set(NAMES) <= rows[0].keys():
            raise UserError(f"{table} has other columns", allowed=[*NAMES, "split"])
        labels = [[name.strip() for name in (row["labels"] or "").split(AND) if name.strip()] for row in rows]
        self.classes = sorted({name for each in labels for name in each})
        paths = [table.parent / row["file"] for row in rows]
        for number, path in enumerate(paths):
            if not path.is_file():
                raise UserError(f"{table}, line {number + 2}: {path} is not there")
        targets = np.array([[name in each for name in self.classes] for each in labels], np.float32)
        if "split" not in rows[0]:
            order = np.argsort(hashed(self.split_seed, np.arange(len(rows))), kind="stable")
            counts = [max(1, round(fraction * len(rows))) for fraction in self.fractions]
            parts = dict(zip(("val", "test", "train"), np.split(order, np.cumsum(counts)), strict=True))
        else:
            known = [row["split"] for row in rows]
            wrong = next((n for n, split in enumerate(known) if split not in SPLITS), None)
            if wrong is not None:
                raise UserError(f"{table}, line {wrong + 2}: unknown split", given=known[wrong], allowed=SPLITS)
            parts = {split: np.array([n for n, own in enumerate(known) if own == split], np.int64) for split in SPLITS}
        if not len(parts["train"]):
            raise UserError(f"{table} leaves nothing to train on", given=f"{len(rows)} rows")
        return {split: _take(paths, targets, np.sort(parts[split])) for split in SPLITS}

    def _labelled(self, folder: Path, classes: Sequence[str] | None) -> Sounds:
        names = sorted(each.name for each in folder.iterdir() if each.is_dir())
        if len(names) < 2 or (classes is not None and not set(names) <= set(classes)):
            raise UserError(f"{folder} needs a folder for each class", given=names or "no folders", allowed=classes)
        self.classes = names if classes is None else classes
        found = [(path, self.classes.index(name)) for name in names for path in files.find_sounds(folder / name)]
        return [path for path, _ in found], np.array([label for _, label in found])


class Esc10(LabelledSounds):
    """ESC-10's folds 1 and 2: trained on the first, validated on one half of the second and tested on the other.

    Args:
        root: the folder that holds `esc10_folds12`; None: $POLYMAMBA_DATA, else .data.
        rate, seconds, gain, speed, loading, name: see LabelledSounds.
    """

    source = ESC10

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=16),
        rate: Size = 16000,
        seconds: Positive = 5.0,
        gain: Weight = 6.0,
        speed: Rate = 0.0,
        name: str = "esc10",
    ):
        super().__init__(name, loading, rate, seconds, gain, speed)
        self.root = data_root(root)

    def load(self) -> dict[str, Sounds]:
        folders = [self.root / "audio" / ESC10.folder, self.root / ESC10.folder, self.root]
        table = next((path for folder in folders if (path := folder / "index.csv").is_file()), None)
        if table is None:
            raise not_there(f"{ESC10.folder}/index.csv", self.root)
        rows = list(csv.DictReader(read(table).decode().splitlines()))
        classes = {int(row["class_index"]): row["class"] for row in rows}
        self.classes = [classes[number] for number in sorted(classes)]
        sounds = [table.parent / "ogg" / row["file"] for row in rows]
        labels, folds = (np.array([int(row[key]) for row in rows]) for key in ("class_index", "fold"))
        second = np.flatnonzero(folds == 2)
        test, val = stratified(labels[second], hashed(0, second), (0.5,))
        parts = {"train": np.flatnonzero(folds == 1), "val": second[val], "test": second[test]}
        return {split: _take(sounds, labels, part) for split, part in parts.items()}


class SpokenDigits(LabelledSounds):
    """Ten spoken digits; tested on speakers whom training has not heard.

    Args:
        root: the folder that holds `fsdd`; None: $POLYMAMBA_DATA, else .data.
        val, test: speakers held out; without any for validation, takes 0 to 4 of the others are. seconds: of a sample.
        gain, speed, loading, name: see LabelledSounds.
    """

    source = FSDD
    classes = tuple("0123456789")

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=32),
        val: Sequence[str] = (),
        test: Sequence[str] = ("theo",),
        seconds: Positive = 0.7,
        gain: Weight = 6.0,
        speed: Rate = 0.2,
        name: str = "spoken_digits",
    ):
        super().__init__(name, loading, RATE, seconds, gain, speed)
        self.root, self.held = root, {"val": tuple(val), "test": tuple(test)}

    def load(self) -> dict[str, Sounds]:
        takes = Takes(data_root(self.root))
        found = {}
        for split in SPLITS:
            part = np.sort(np.concatenate([[], *takes.part(split, **self.held).values()])).astype(np.int64)
            found[split] = _take(takes.signals, takes.digits, part)
        return found


def _take(sounds: Sequence[Path | np.ndarray], labels: np.ndarray, positions: np.ndarray) -> Sounds:
    return [sounds[n] for n in positions], labels[positions]
