"""Sound files: WAV, FLAC, OGG and MP3 through soundfile (no ffmpeg), resampled by soxr; every one is checked when it is read."""

from __future__ import annotations

import glob
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ...core.errors import UserError

log = logging.getLogger(__name__)

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
LISTS = (".txt", ".scp", ".lst")
CLIPPED = 0.001  # share of samples at full scale from which a recording is called clipped
LONGEST = 8 * 3600  # seconds that are read at once
HELD = 2**30  # bytes that a process keeps of what it has read: 4.6 hours at 16 kHz


@dataclass(frozen=True)
class Sound:
    """A recording.

    Args:
        samples: (channels, time) float32, within -1 and 1 where the file is not clipped.
        rate: samples a second.
        subtype: how its file writes them, like PCM_16; None: not from a file.
    """

    samples: np.ndarray
    rate: int
    subtype: str | None = None


class Held:
    """Recordings, mono at one rate: the first of them stay in memory, so many as `limit` bytes hold; the others are read each time.

    Batches draw from all recordings alike, so that a recording which has just been heard is not likelier than another to be next.

    Args:
        rate: samples a second. limit: bytes.
    """

    def __init__(self, rate: int, limit: int = HELD):
        self.rate, self.left = rate, limit
        self._kept: dict[Path, np.ndarray] = {}

    def __call__(self, path: Path) -> np.ndarray:
        """(time) float32; raises as `read_sound`."""
        if path in self._kept:
            return self._kept[path]
        signal = mono_at(path, self.rate)
        if signal.nbytes <= self.left:
            self._kept[path], self.left = signal, self.left - signal.nbytes
        return signal


def read_sound(path: Path | str) -> Sound:
    """Reads a file and checks it; a clipped one is warned of, once.

    Raises:
        UserError: there is no such file, it is no sound, empty, cut off, or holds numbers that are not finite.
    """
    import soundfile

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not there" if not path.exists() else f"{path} is no file", allowed="a sound file")
    try:
        with soundfile.SoundFile(path) as file:
            if file.frames > LONGEST * file.samplerate:
                raise UserError(
                    f"{path} is too long to be read at once", given=f"{file.frames / file.samplerate:,.0f} s"
                )
            expected, rate, subtype = file.frames, file.samplerate, file.subtype
            samples = file.read(dtype="float32", always_2d=True).T
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise UserError(
            f"{path} cannot be read as sound: {error}",
            given=f"{path.stat().st_size:,} bytes", allowed="WAV, FLAC, OGG or MP3",
        ) from error  # fmt: skip
    if samples.shape[1] == 0:
        raise UserError(f"{path} holds no samples", given="0 s")
    if samples.shape[1] < expected:
        raise UserError(f"{path} is cut off", given=f"{samples.shape[1]:,} of {expected:,} samples")
    if not np.isfinite(samples).all():
        raise UserError(f"{path} holds numbers that are not finite", given=f"{(~np.isfinite(samples)).sum():,} samples")
    share = float((np.abs(samples) >= 0.9999).mean())
    if share > CLIPPED:
        _warn_of_clipping(path, share)
    return Sound(np.ascontiguousarray(samples), rate, subtype)


@cache
def _warn_of_clipping(path: Path, share: float) -> None:
    log.warning("%s is clipped: %.1f %% of its samples are at full scale", path, 100 * share)


def write_sound(path: Path, sound: Sound) -> None:
    """Writes a file in the form that its suffix says; what would clip is scaled down, and said so."""
    import soundfile

    samples, loudest = sound.samples, float(np.abs(sound.samples).max(initial=0))
    if loudest > 1:
        log.warning("%s would clip: written at %.2f of its level", path.name, 1 / loudest)
        samples = samples / loudest
    subtype = sound.subtype
    if subtype is not None and not soundfile.check_format(path.suffix[1:].upper(), subtype):
        subtype = None
    soundfile.write(path, samples.T, sound.rate, subtype=subtype)


def resampled(samples: np.ndarray, rate: int, to: int, length: int | None = None) -> np.ndarray:
    """(…, time) at another rate; length: exactly so many samples, with silence behind what there is."""
    if rate != to:
        import soxr

        flat = samples.reshape(-1, samples.shape[-1]).T
        samples = soxr.resample(flat, rate, to).T.reshape(*samples.shape[:-1], -1)
    if length is not None:
        samples = samples[..., :length]
        samples = np.pad(samples, [(0, 0)] * (samples.ndim - 1) + [(0, length - samples.shape[-1])])
    return samples.astype(np.float32, copy=False)


def mono_at(path: Path | str, rate: int) -> np.ndarray:
    """A file's mean over channels at a rate, (time) float32; raises as `read_sound`."""
    sound = read_sound(path)
    return resampled(sound.samples.mean(0), sound.rate, rate)


def find_sounds(where: str | Path) -> list[Path]:
    """The files that a path means: a file, all below a folder, those a pattern finds, or the lines of a list (.txt, .scp).

    Raises:
        UserError: there are none.
    """
    path = Path(where).expanduser()
    if path.is_dir():
        found = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file())
    elif path.suffix.lower() in LISTS and path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [path.parent / line.split()[-1] for line in lines if line.strip()]
    elif path.is_file():
        return [path]
    else:
        found = [Path(each) for each in sorted(glob.glob(str(path), recursive=True))]
    if not found:
        kinds = ", ".join(SUFFIXES)
        raise UserError(
            "no sound is there", given=str(where), allowed=f"a file, a folder or a pattern of {kinds} files"
        )
    return found
