"""Voices made here: speakers with a pitch, formants, vibrato and a breath of their own, who say syllables between pauses.

A source-filter model (Fant 1960) in the frequency domain: harmonics of a gliding pitch, weighed by resonances that move from
vowel to vowel (mean formants of Peterson and Barney 1952), and noise where a syllable begins with a consonant.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from ...core.errors import UserError
from ...core.ranges import Count, Positive, Seed, Size, Weight, checked
from ..loading import Loading
from ..module import SPLITS
from ..randomness import hashed
from .mixtures import Bank, Mixtures
from .sources import VOICES

VOWELS = np.array(
    [
        [270, 2290, 3010], [390, 1990, 2550], [530, 1840, 2480], [660, 1720, 2410], [730, 1090, 2440], [570, 840, 2410],
        [440, 1020, 2240], [300, 870, 2240], [640, 1190, 2390], [490, 1350, 1690],
    ],
    np.float32,
)  # fmt: skip  # Hz, of men
BANDWIDTHS = np.array([70, 100, 140], np.float32)
CONTROLS = 200  # points a second at which pitch, formants and level are said


class Voices(Mixtures):
    """Mixtures of synthetic speakers; nothing to download.

    Args:
        train_speakers, val_speakers, test_speakers: how many are made for each part. utterances: of each.
        apart: octaves between the mean pitches of the voices of a mixture, at least, as far as there are such speakers.
        voice_seed: of the speakers.
        speakers, seconds, rate, samples, val_samples, test_samples, level, speed, dynamic, mix_seed, rooms: see Mixtures.
        loading, name: see DataModule.
    """

    source = VOICES

    @checked(group="data")
    def __init__(
        self,
        loading: Loading = Loading(batch_size=4),
        speakers: Size = 2,
        seconds: Positive = 1.0,
        rate: Size = 8000,
        samples: Size = 1000,
        val_samples: Count = 64,
        test_samples: Count = 128,
        train_speakers: Size = 60,
        val_speakers: Size = 5,
        test_speakers: Size = 6,
        utterances: Size = 4,
        apart: Weight = 0.5,
        level: Weight = 2.5,
        speed: Weight = 0.05,
        dynamic: bool = True,
        mix_seed: Seed = 0,
        rooms: Count = 0,
        voice_seed: Seed = 0,
        name: str = "voices",
    ):
        options = (speakers, seconds, rate, samples, val_samples, test_samples, level, speed, dynamic, mix_seed, rooms)
        super().__init__(name, loading, *options)
        if rate < 2000:
            raise UserError("too few samples a second for a voice", given=f"data.rate={rate}", allowed="2,000 or more")
        self.made = dict(zip(SPLITS, (train_speakers, val_speakers, test_speakers), strict=True))
        self.utterances, self.apart, self.voice_seed = utterances, apart, voice_seed

    def bank(self, split: str) -> Bank:
        seconds = max(1.5, 1.5 * self.length / self.rate)
        keys = [self.key(split, speaker) for speaker in range(self.made[split])]
        return [[utterance(key, number, seconds, self.rate) for number in range(self.utterances)] for key in keys]

    def key(self, split: str, speaker: int) -> int:
        """What all that is constant of a speaker follows from."""
        return _key(self.voice_seed, SPLITS.index(split), speaker)

    def suits(self, split: str, speakers: Sequence[int], other: int) -> bool:
        pitches = [pitch_of(self.key(split, each)) for each in (other, *speakers)]
        return all(abs(np.log2(pitches[0] / each)) >= self.apart for each in pitches[1:])


@cache
def _key(*parts: int) -> int:
    return int(hashed(*parts)[0])


@cache
def pitch_of(speaker: int) -> float:
    """The mean pitch of a speaker in Hz, 85 to 276."""
    return 85 * 2 ** np.random.default_rng(speaker).uniform(0, 1.7)


def utterance(speaker: int, number: int, seconds: float, rate: int) -> np.ndarray:
    """What a speaker says.

    Args:
        speaker: a whole number, which all that is constant of a voice follows from. number: of the utterance.

    Returns:
        (time) float32 of mean square about 1 where it is loud.
    """
    own, drawn = np.random.default_rng(speaker), np.random.default_rng([speaker, number])
    pitch = 85 * 2 ** own.uniform(0, 1.7)  # as pitch_of says
    tract = 1 + 0.12 * np.log2(pitch / 110) + own.uniform(-0.08, 0.08)  # higher voices have shorter tracts
    vibrato, depth, breath, tilt = (
        own.uniform(4, 7),
        own.uniform(0.005, 0.03),
        own.uniform(0.01, 0.06),
        own.uniform(0.6, 1.2),
    )
    points = int(seconds * CONTROLS) + 2
    level, formants, noise = _syllables(drawn, points, VOWELS * tract)
    time = np.arange(points) / CONTROLS
    glide = np.interp(time, np.linspace(0, time[-1], 6), drawn.uniform(-0.18, 0.18, 6))
    hertz = pitch * 2 ** (glide + depth * np.sin(2 * np.pi * vibrato * time + drawn.uniform(0, 6.3)))

    samples = int(seconds * rate)
    place = np.arange(samples) * (CONTROLS / rate)
    index, share = place.astype(int), (place % 1).astype(np.float32)[:, None]
    phase = np.cumsum(np.interp(place, np.arange(points), hertz)) * (2 * np.pi / rate)
    harmonics = np.arange(1, max(2, int(0.48 * rate / hertz.max()) + 1))
    heights = (_resonance(hertz[:, None] * harmonics, formants) * harmonics**-tilt).astype(np.float32) * level[:, None]
    weights = heights[index] * (1 - share) + heights[index + 1] * share
    voiced = np.einsum("th,th->t", weights, np.sin((phase[:, None] * harmonics % (2 * np.pi)).astype(np.float32)))

    hiss = np.diff(drawn.standard_normal(samples + 1)).astype(np.float32)
    hiss *= np.interp(place, np.arange(points), noise + breath * level).astype(np.float32)
    return (voiced / (np.sqrt(np.mean(voiced**2)) + 1e-6) + 0.5 * hiss).astype(np.float32)


def _syllables(
    drawn: np.random.Generator, points: int, vowels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Level (points), formants (points, 3) in Hz and the level of the consonants' noise (points)."""
    level, noise = np.zeros(points, np.float32), np.zeros(points, np.float32)
    at, marks, targets = int(drawn.uniform(0, 0.15) * CONTROLS), [0], [vowels[drawn.integers(len(vowels))]]
    while at < points:
        long = int(drawn.uniform(0.12, 0.35) * CONTROLS)
        shape = np.minimum(1, 4 * np.sin(np.linspace(0, np.pi, long)) ** 2) * drawn.uniform(0.5, 1)
        level[at : at + long] = shape[: points - at]
        if drawn.random() < 0.5:
            short = int(drawn.uniform(0.03, 0.08) * CONTROLS)
            burst = np.hanning(short + 2)[1:-1] * drawn.uniform(0.3, 0.8)
            noise[at : at + short] = burst[: points - at]
        marks.append(at + long // 2)
        targets.append(vowels[drawn.integers(len(vowels))])
        at += long + int((drawn.uniform(0.1, 0.5) if drawn.random() < 0.4 else drawn.uniform(0, 0.04)) * CONTROLS)
    tracks = [np.interp(np.arange(points), marks, column) for column in np.array(targets).T]
    return level, np.stack(tracks, 1), noise


def _resonance(hertz: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """How loud frequencies (points, harmonics) come through a tract with formants (points, 3), both in Hz."""
    total = np.zeros_like(hertz)
    for formant, bandwidth, share in zip(formants.T, BANDWIDTHS, (1.0, 0.6, 0.3), strict=True):
        total += share / (1 + ((hertz - formant[:, None]) / bandwidth) ** 2)
    return total + 0.01
