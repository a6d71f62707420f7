"""Mixtures of single voices, made when they are asked for: a function of seed, epoch and position alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.ranges import Count, Positive, Seed, Size, Weight
from ..loading import Loading
from ..module import SPLITS, DataModule, Description
from ..randomness import hashed, uniforms
from . import files
from .files import resampled
from .rooms import check_rooms, in_room, responses

Bank = list[list[np.ndarray]]  # utterances (time) float32, by speaker


class Mixtures(DataModule):
    """A batch is mixtures (batch, time) and the signals in them (batch, speakers, time), whose sum they are.

    Every mixture takes that many different speakers, an utterance of each, a stretch of it, and a level. Speakers of one split
    are in no other. Validation and test are the same in every epoch.

    Args:
        name, loading: see DataModule.
        speakers: in a mixture. seconds: of a mixture. rate: samples a second.
        samples: mixtures of an epoch of training. val_samples, test_samples: of validation and test.
        level: the speakers' levels differ by up to so many dB either way.
        speed: utterances of training are played so much faster or slower at most, as a share.
        dynamic: new mixtures in every epoch; False: the same.
        mix_seed: of the validation and test mixtures, apart from seed: all runs are tested on the same.
        rooms: simulated rooms of each split that its mixtures are heard in; signals are then as they are heard there. 0: none.
    """

    size = "micro"  # of model that suits the data
    sounds = files  # reads and writes such recordings
    splits: dict[str, Bank] | None = None

    def __init__(
        self,
        name: str,
        loading: Loading,
        speakers: Size = 2,
        seconds: Positive = 1.0,
        rate: Size = 8000,
        samples: Size = 1000,
        val_samples: Count = 64,
        test_samples: Count = 128,
        level: Weight = 2.5,
        speed: Weight = 0.05,
        dynamic: bool = True,
        mix_seed: Seed = 0,
        rooms: Count = 0,
    ):
        super().__init__(name, loading)
        if rooms:
            check_rooms()
        self.counts = dict(zip(SPLITS, (samples, val_samples, test_samples), strict=True))
        if loading.limit is not None:
            self.counts = {split: min(count, loading.limit) for split, count in self.counts.items()}
        self.speakers, self.rate, self.length = speakers, rate, max(1, round(seconds * rate))
        self.level, self.speed, self.dynamic, self.mix_seed, self.rooms = level, speed, dynamic, mix_seed, rooms

    @abstractmethod
    def bank(self, split: str) -> Bank:
        """The utterances of a split, by speaker."""

    def setup(self, stage: str | None = None) -> None:
        if self.splits is not None:
            return
        banks = {split: self.bank(split) for split in SPLITS}
        for split, bank in banks.items():
            if len(bank) < self.speakers:
                raise UserError(
                    "a mixture needs more speakers than there are", given=f"data.speakers={self.speakers}",
                    allowed=f"at most {len(bank)} in the {split} part",
                )  # fmt: skip
        self.splits = banks

    def samples(self, split: str) -> int:
        return self.counts[split]

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        self.setup()
        training = split == "train"
        epoch, seed = (epoch if self.dynamic else 0, self.loading.seed) if training else (0, self.mix_seed)
        draws = uniforms(6 * self.speakers, seed, SPLITS.index(split), epoch, np.asarray(positions))
        sources = np.stack([self._mixed(split, each) for each in draws])
        sources = torch.from_numpy(sources)
        return sources.sum(1), sources

    def suits(self, split: str, speakers: Sequence[int], other: int) -> bool:
        """Whether one more speaker may be mixed with these."""
        return True

    def _mixed(self, split: str, draws: np.ndarray) -> np.ndarray:
        """The signals of a mixture, (speakers, time), from uniform numbers (6 * speakers)."""
        bank, training = self.splits[split], split == "train"
        order, *rest = draws.reshape(6, self.speakers)
        taken, signals, walls = [], [], None
        if self.rooms:
            room = int(rest[4][0] * self.rooms)
            walls = responses(int(hashed(self.mix_seed, SPLITS.index(split), room)[0]), self.speakers, self.rate)
        for number in range(self.speakers):
            left = [each for each in range(len(bank)) if each not in taken]
            left = [each for each in left if self.suits(split, taken, each)] or left
            speaker = left[int(order[number] * len(left))]
            taken.append(speaker)
            utterance, start, level, speed, _ = (each[number] for each in rest)
            signal = bank[speaker][int(utterance * len(bank[speaker]))]
            if training and self.speed:
                factor = 1 + self.speed * (2 * speed - 1)
                signal = resampled(signal, round(self.rate * factor), self.rate)
            if walls:
                signal = in_room(signal, walls[number])
            signal = stretch(signal, self.length, start)
            power = np.sqrt(np.mean(signal**2)) + 1e-5
            signals.append(signal * np.float32(0.05 / power * 10 ** (self.level * (2 * level - 1) / 20)))
        return np.stack(signals)

    def describe(self) -> Description:
        self.setup()
        seconds = self.length / self.rate
        return self.described(
            shape=f"{self.speakers} voices, {seconds:g} s at {self.rate:,} Hz",
            for_model={
                "task": "separation", "sources": self.speakers, "samples": self.length, "rate": self.rate,
                "model_size": self.size, "names": [f"s{number + 1}" for number in range(self.speakers)],
            },
            values=self.length, resized_by="data.seconds", tested="mixtures of speakers that training has not heard",
        )  # fmt: skip


def stretch(signal: np.ndarray, length: int, place: float) -> np.ndarray:
    """`length` samples of a signal (time), or the signal with silence around it; place: where, 0 to 1."""
    room = len(signal) - length
    if room >= 0:
        start = int(place * (room + 1))
        return signal[start : start + length]
    before = int(place * (1 - room))
    return np.pad(signal, (before, -room - before))


def padded(signals: Sequence[np.ndarray]) -> np.ndarray:
    """Signals (…, time) one upon the other, with silence behind the shorter ones."""
    longest = max(each.shape[-1] for each in signals)
    return np.stack([np.pad(each, [(0, 0)] * (each.ndim - 1) + [(0, longest - each.shape[-1])]) for each in signals])
