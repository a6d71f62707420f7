"""The free spoken digits: as mixtures of speakers whom training has not heard, and as ten words to be told apart."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ...core.errors import UserError
from ...core.ranges import Count, Positive, Seed, Size, Weight, checked
from ..files import data_root, find, not_there, read
from ..loading import Loading
from ..module import SPLITS
from ..randomness import hashed
from .mixtures import Bank, Mixtures
from .sources import FSDD

FOLDER, RATE = "fsdd", 8000
FILES = ("samples_int16_8khz.npy", "index.csv")


class Takes:
    """All recordings: those end to end, and where each begins.

    Args:
        root: the folder that holds `fsdd`, or what lies in it.

    Attributes:
        signals: (time) float32 each; digits, takes: whole numbers, and speakers: names, one each.

    Raises:
        UserError: a file is missing, or the table does not fit the samples.
    """

    def __init__(self, root: Path):
        found = {name: find((root / "audio" / FOLDER, root / FOLDER, root), name) for name in FILES}
        if None in found.values():
            missing = next(name for name, path in found.items() if path is None)
            raise not_there(f"{FOLDER}/{missing}", root)
        samples = np.load(io.BytesIO(read(found[FILES[0]])), allow_pickle=False)
        rows = list(csv.DictReader(read(found[FILES[1]]).decode().splitlines()))
        wanted = {"digit", "speaker", "take", "start", "length"}
        if not rows or not wanted <= rows[0].keys():
            raise UserError(f"{found[FILES[1]]} has other columns", allowed=sorted(wanted))
        self.digits, self.takes = (np.array([int(row[key]) for row in rows]) for key in ("digit", "take"))
        self.speakers = [row["speaker"] for row in rows]
        places = [(int(row["start"]), int(row["length"])) for row in rows]
        if any(start < 0 or length < 1 or start + length > len(samples) for start, length in places):
            raise UserError(f"{found[FILES[1]]} speaks of samples that {found[FILES[0]]} does not hold")
        self.signals = [samples[start : start + length].astype(np.float32) / 32768 for start, length in places]

    def part(self, split: str, val: Sequence[str], test: Sequence[str]) -> dict[str, np.ndarray]:
        """Where the recordings of a split stand, by speaker; without speakers for validation, takes 0 to 4 of training's are.

        Raises:
            UserError: see `held_out`.
        """
        within = not val and split != "test"
        names = held_out(self.speakers, "train" if within else split, val, test)
        own = (self.takes < 5) == (split == "val") if within else np.ones(len(self.takes), bool)
        return {name: np.flatnonzero(own & (np.array(self.speakers) == name)) for name in names}


def held_out(speakers: Sequence[str], split: str, val: Sequence[str], test: Sequence[str]) -> list[str]:
    """The speakers of a split, in order.

    Raises:
        UserError: an unknown speaker, one in two parts, or none left to train on.
    """
    known = sorted(set(speakers))
    unknown = sorted({*val, *test} - set(known))
    if unknown:
        raise UserError("unknown speaker", given=", ".join(unknown), allowed=known)
    if set(val) & set(test):
        raise UserError("a speaker is for validation or for testing", given=sorted(set(val) & set(test)))
    left = [name for name in known if name not in {*val, *test}]
    if not left:
        raise UserError("no speaker is left to train on", given=f"{len(known)} held out")
    return {"train": left, "val": list(val), "test": list(test)}[split]


class DigitMixtures(Mixtures):
    """Spoken digits, one after the other by one speaker, over those of another.

    Args:
        root: see TextFile; None: $POLYMAMBA_DATA, else .data.
        val, test: speakers that training does not hear. Six are too few for three parts of two each and more: validation mixes
            takes of the training speakers that training does not hear where `val` is empty.
        digits: of an utterance.
        speakers, seconds, samples, val_samples, test_samples, level, speed, dynamic, mix_seed, rooms: see Mixtures.
        loading, name: see DataModule.
    """

    source = FSDD

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=1),
        val: Sequence[str] = (),
        test: Sequence[str] = ("lucas", "theo"),
        digits: Size = 4,
        speakers: Size = 2,
        seconds: Positive = 1.0,
        samples: Size = 2000,
        val_samples: Count = 64,
        test_samples: Count = 200,
        level: Weight = 2.5,
        speed: Weight = 0.25,
        dynamic: bool = True,
        mix_seed: Seed = 0,
        rooms: Count = 0,
        name: str = "digit_mixtures",
    ):
        options = (speakers, seconds, RATE, samples, val_samples, test_samples, level, speed, dynamic, mix_seed, rooms)
        super().__init__(name, loading, *options)
        self.root, self.held, self.digits = root, {"val": tuple(val), "test": tuple(test)}, digits

    @cached_property
    def recordings(self) -> Takes:
        """All of the set, read once."""
        return Takes(data_root(self.root))

    def bank(self, split: str) -> Bank:
        takes = self.recordings
        found = []
        for members in takes.part(split, **self.held).values():
            keys = hashed(self.mix_seed, SPLITS.index(split), members)
            members = [members[n] for n in np.argsort(keys, kind="stable")]
            groups = [members[n : n + self.digits] for n in range(0, len(members), self.digits)]
            found.append([np.concatenate([takes.signals[n] for n in group]) for group in groups])
        return found
