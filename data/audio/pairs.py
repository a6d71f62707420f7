"""Recordings beside what is in them: mixtures with their sources (LibriMix's and WHAM's folders), noisy speech with clean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.ranges import Fraction, Positive, Seed, Size, checked
from ..files import data_root
from ..loading import Loading
from ..module import SPLITS, DataModule, Description
from ..randomness import hashed, uniforms
from . import files
from .mixtures import stretch

Row = tuple[Path, ...]  # a recording and its sources

WORDS = {  # how folders of a split are called
    "train": ("train", "tr", "train-360", "train-100", "trainset"),
    "val": ("val", "dev", "cv", "valid", "validation"),
    "test": ("test", "tt", "eval", "testset"),
}


class Pairs(DataModule):
    """A batch is recordings (batch, time) and their sources (batch, sources, time), all at one rate, mono.

    Training hears a stretch of each, another one in each epoch; validation and test the same one from the beginning. A folder for
    test alone is good for eval.py.

    Args:
        name, loading: see DataModule. root: the folder.
        mixed, clean: what the folders of recordings, and of each source, may be called.
        rate: samples a second; files of other rates are resampled by soxr. seconds: of a stretch.
        val_fraction, test_fraction: shares for validation and test, where there are no folders for them. split_seed: of these.
    """

    sounds = files
    splits: dict[str, list[Row]] | None = None

    def __init__(
        self,
        name: str,
        loading: Loading,
        root: Path,
        mixed: Sequence[str],
        clean: Sequence[Sequence[str]],
        rate: int,
        seconds: float,
        val_fraction: float,
        test_fraction: float,
        split_seed: int,
        remix: bool = False,
    ):
        super().__init__(name, loading)
        if val_fraction + test_fraction >= 1:
            raise UserError("data.val_fraction and data.test_fraction leave nothing to train on")
        self.root, self.mixed, self.clean, self.rate, self.remix = root, mixed, clean, rate, remix
        self.length, self.fractions, self.split_seed = (
            max(1, round(seconds * rate)),
            (val_fraction, test_fraction),
            split_seed,
        )
        self._heard = files.Held(rate)

    def setup(self, stage: str | None = None) -> None:
        if self.splits is not None:
            return
        if not self.root.is_dir():
            raise UserError("there is no such folder", given=f"data.root={self.root}", do="data.root=FOLDER")
        folders = {split: _named(self.root, WORDS[split]) for split in SPLITS}
        joined = {split: WORDS[split] for split in SPLITS if _named(self.root, self.mixed, WORDS[split])}
        for_training = folders["train"] is not None or "train" in joined
        if not for_training and (_named(self.root, self.mixed) or not (any(folders.values()) or joined)):
            splits = self._divided(self._rows(self.root))
            if not splits["train"]:
                raise UserError("there is nothing to train on", given=f"data.root={self.root}")
        elif folders["train"] is not None or (not for_training and any(folders.values())):
            splits = {split: self._rows(folder) for split, folder in folders.items() if folder}
        else:
            splits = {split: self._rows(self.root, words) for split, words in joined.items()}
        splits = {split: splits.get(split, []) for split in SPLITS}
        if splits["train"] and not splits["val"]:
            order = np.argsort(hashed(self.split_seed, np.arange(len(splits["train"]))), kind="stable")
            rows = [splits["train"][number] for number in order]
            count = max(1, round(self.fractions[0] * len(rows)))
            splits["val"], splits["train"] = sorted(rows[:count]), sorted(rows[count:])
        limit = self.loading.limit
        self.splits = {split: rows[:limit] for split, rows in splits.items()}

    def _rows(self, folder: Path, words: Sequence[str] = ()) -> list[Row]:
        """The recordings of a folder with their sources; words: of the split, where they stand in the folders' names."""
        mixed, *clean = (_named(folder, names, words) for names in (self.mixed, *self.clean))
        if mixed is None or None in clean:
            wanted = [names[0] for names in (self.mixed, *self.clean)]
            raise UserError(f"{folder} has not the folders that are needed", given=_inside(folder), allowed=wanted)
        rows = []
        for path in files.find_sounds(mixed):
            sources = [each / path.relative_to(mixed) for each in clean]
            missing = [source for source in sources if not source.is_file()]
            if missing:
                raise UserError(f"{path} has no counterpart: {missing[0]} is not there")
            rows.append((path, *sources))
        return rows

    def _divided(self, rows: list[Row]) -> dict[str, list[Row]]:
        order = np.argsort(hashed(self.split_seed, np.arange(len(rows))), kind="stable")
        val, test = (max(1, round(fraction * len(rows))) if fraction else 0 for fraction in self.fractions)
        parts = np.split(order, [test, test + val])
        return {
            name: [rows[n] for n in np.sort(part)] for name, part in zip(("test", "val", "train"), parts, strict=True)
        }

    def samples(self, split: str) -> int:
        return len(self.splits[split])

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        self.setup()
        draws = uniforms(1, self.loading.seed, SPLITS.index(split), epoch, np.asarray(positions))[:, 0]
        if split != "train":
            draws = np.zeros_like(draws)
        rows = [self._stretch(self.splits[split][n], draw) for n, draw in zip(positions, draws, strict=True)]
        batch = torch.from_numpy(np.stack(rows))
        return batch[:, 0], batch[:, 1:]

    def _stretch(self, row: Row, place: float) -> np.ndarray:
        """(1 + sources, time)."""
        signals = [self._heard(path) for path in row]
        lengths = {len(each) for each in signals}
        if len(lengths) > 1:
            raise UserError(f"{row[0]} and its sources have different lengths", given=sorted(lengths))
        if self.remix:
            signals[0] = np.sum(signals[1:], 0)
        if len(signals[0]) < self.length:
            return np.stack([files.resampled(each, 1, 1, self.length) for each in signals])
        return np.stack([stretch(each, self.length, place) for each in signals])

    def verify(self) -> None:
        super().verify()
        for rows in self.splits.values():
            for row in rows:
                self._stretch(row, 0)

    def describe(self) -> Description:
        self.setup()
        sources, seconds = len(self.clean), self.length / self.rate
        names = ["clean"] if sources == 1 else [f"s{number + 1}" for number in range(sources)]
        return self.described(
            shape=f"{self.what()}, {seconds:g} s at {self.rate:,} Hz", values=self.length, resized_by="data.seconds",
            for_model={
                "task": "separation", "sources": sources, "samples": self.length, "rate": self.rate, "names": names,
                "model_size": "micro" if self.samples("train") < 1000 else "xs",
            },
        )  # fmt: skip

    def what(self) -> str:
        """What a sample is, in words."""
        return f"{len(self.clean)} sources"


def _inside(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())[:12]


def _named(folder: Path, names: Sequence[str], words: Sequence[str] = ()) -> Path | None:
    """The folder within that has the first of the names; words: one of them stands behind it ("noisy_trainset_28spk_wav")."""
    inside = [each for each in sorted(folder.iterdir()) if each.is_dir()]
    for name in names:
        for path in inside:
            rest = path.name.removeprefix(f"{name}_").split("_")
            if path.name == name if not words else path.name != "_".join(rest) and set(words) & set(rest):
                return path
    return None


class MixtureFolder(Pairs):
    """Your own mixtures: `mix` (or `mix_clean`, `mix_both`), `s1`, `s2`, … with files of one name.

    They lie in `train`, `val`, `test` or directly. These are LibriMix's and WHAM's folders too (tr, cv, tt), which may lie in
    `wav8k/min` and the like; of `min`, the mixtures as long as the shorter source, and `max`, `min` is taken, as papers do.

    Args:
        root: the folder. folder: its name where data lie ($POLYMAMBA_DATA, else .data), where root is None.
        sources: how many. mixture: the folder of mixtures; None: the first there is of `mix`, `mix_clean`, `mix_both`.
        remix: the mixture is made of the sources, without the noise that the file may hold.
        rate, seconds, val_fraction, test_fraction, split_seed, loading, name: see Pairs.
    """

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=4),
        folder: str | None = None,
        sources: Size = 2,
        mixture: str | None = None,
        remix: bool = False,
        rate: Size = 8000,
        seconds: Positive = 3.0,
        val_fraction: Fraction = 0.2,
        test_fraction: Fraction = 0.2,
        split_seed: Seed = 0,
        name: str = "mixture_folder",
    ):
        if root is not None:
            where = Path(root).expanduser()
        elif folder is not None:
            where = data_root(None) / "audio" / folder
        else:
            raise UserError("which folder?", do="data.root=FOLDER, which has mix, s1, s2 in it")
        cut = (where / f"wav{rate // 1000}k" / name for name in ("min", "max"))
        within = next((path for path in cut if path.is_dir()), where)
        clean = [(f"s{number + 1}",) for number in range(sources)]
        mixed = ("mix", "mix_clean", "mix_both", "mixture", "mix_single") if mixture is None else (mixture,)
        split = (rate, seconds, val_fraction, test_fraction, split_seed)
        super().__init__(name, loading, within, mixed, clean, *split, remix)


class NoisySpeech(Pairs):
    """Speech in noise: `noisy` and `clean` with files of one name, in `train`, `val`, `test` or directly.

    Args:
        root: the folder; None: `vctk_denoise_debug` where data lie ($POLYMAMBA_DATA, else .data).
        other_noises: training hears the speech in the noise of any of its recordings (Remix, arXiv 2006.12847, section 3.2).
        rate, seconds, val_fraction, test_fraction, split_seed, loading, name: see Pairs.
    """

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=4),
        rate: Size = 16000,
        seconds: Positive = 2.0,
        val_fraction: Fraction = 0.2,
        test_fraction: Fraction = 0.2,
        split_seed: Seed = 0,
        other_noises: bool = False,
        name: str = "noisy_speech",
    ):
        folder = data_root(root) if root is not None else data_root(None) / "audio" / "vctk_denoise_debug"
        split = (rate, seconds, val_fraction, test_fraction, split_seed)
        super().__init__(name, loading, folder, ("noisy",), [("clean",)], *split)
        self.other_noises = other_noises

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        noisy, clean = super().load_batch(split, epoch, positions)
        if split != "train" or not self.other_noises:
            return noisy, clean
        rows = self.splits["train"]
        draws = uniforms(2, self.loading.seed, len(SPLITS), epoch, np.asarray(positions))
        others = (self._stretch(rows[int(which * len(rows))], place) for which, place in draws)
        return clean[:, 0] + torch.from_numpy(np.stack([heard - said for heard, said in others])), clean

    def what(self) -> str:
        return "speech in noise"
