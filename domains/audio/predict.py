"""The voices of recordings, each in a file of its own, with pictures and a page that plays them; or the names of sounds."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from ...core.errors import UserError
from ...core.pictures import save_figure
from ...core.ranges import Fraction, Positive, Size, checked
from ..classification import Classified, likeliest, write_table
from ..trained import Answer, Trained
from .player import write_page
from .separating import separate, streamed
from .spectrograms import draw_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 20  # recordings in what is printed
TABLE = "predictions.csv"
SCALE = 32768  # of 16-bit samples


@checked
def predict(
    run: Trained,
    input: str | None = None,
    output: str | None = None,
    channels: Literal["each", "mean"] = "each",
    seconds: Positive = 8.0,
    overlap: Fraction = 0.25,
    format: str | None = None,
    pictures: bool = True,
    page: bool = True,
    stream: bool = False,
    block: Positive = 10.0,
    top: Size = 3,
) -> Answer:
    """Takes recordings apart: `<name>_s1.wav`, … of the rate, length and channels of what was given, a picture, a page.

    A model that names sounds says the likeliest classes of each, and writes them into predictions.csv.

    Args:
        run: a trained separator, or a model that names sounds.
        input: a file, a folder, a pattern, or a list of files.
        output: folder of what is written; None: `separated` in the run's.
        channels, seconds, overlap: see separating.separate.
        format: "wav", "flac", "ogg" or "mp3"; None: as the recording.
        pictures: draw spectrograms. page: write a page that plays everything.
        stream: read 16-bit mono samples at the model's rate from standard input, and write one channel a source to standard output.
        block: milliseconds of a stream that are read at once.
        top: classes named of each sound.

    Raises:
        UserError: no recording is found or none can be read; a stream, and the model is not causal.
    """
    if stream:
        _stream(run, block)
        return Answer()
    if input is None:
        raise UserError("which recording?", allowed="a file, a folder, a pattern or a list", do="input=mix.wav")
    sounds = run.data.sounds
    if format is not None and f".{format}" not in sounds.SUFFIXES:
        raise UserError("unknown format", given=f"format={format}", allowed=[each[1:] for each in sounds.SUFFIXES])
    paths = sounds.find_sounds(input)
    if "sources" not in run.describe:
        return _named(run, paths, top, run.folder if output is None else Path(output).expanduser())
    folder = run.folder / "separated" if output is None else Path(output).expanduser()
    lines, files, problems, played = [], [], [], []
    for path, name in zip(paths, _names(paths), strict=True):
        try:
            sound = sounds.read_sound(path)
            found = separate(run, sound.samples, sound.rate, channels, seconds, overlap)
        except UserError as error:
            problems.append(str(error).replace("\n", "  "))
            continue
        folder.mkdir(parents=True, exist_ok=True)
        suffix = path.suffix.lower() if format is None else f".{format}"
        written = [folder / f"{name}_{each}{suffix}" for each in run.describe["names"]]
        for target, signal in zip(written, found, strict=True):
            sounds.write_sound(
                target, replace(sound, samples=signal, subtype=sound.subtype if format is None else None)
            )
        picture = folder / f"{name}.png" if pictures else None
        if picture is not None:
            save_figure(_picture(path, sound, found, run.describe["names"]), picture)
        files += [*written, *([picture] if picture else [])]
        played.append((path, written, picture))
        length = sound.samples.shape[1] / sound.rate
        lines.append(f"  {path.name}  {length:.1f} s, {len(sound.samples)} channels at {sound.rate:,} Hz")
    if not played:
        raise UserError(f"none of the recordings can be read: {problems[0]}", given=f"input={input}")
    if page:
        files.append(folder / "listen.html")
        write_page(files[-1], played)
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"  … and {len(lines) - SHOWN:,} more"]
    return Answer([*lines, f"  {len(files)} files in {folder}"], files if len(files) <= SHOWN else files[-1:], problems)


def classify(run: Trained, sounds: Sequence[np.ndarray], rate: int, top: int = 3) -> list[Classified]:
    """The likeliest classes of sounds (channels, time) or (time), of any rate; of a longer one than the model hears the middle."""
    own, length, found = run.describe["rate"], run.describe["samples"], []
    for sound in sounds:
        heard = run.data.sounds.resampled(np.atleast_2d(np.asarray(sound, np.float32)).mean(0), rate, own)
        start = max(0, (len(heard) - length) // 2)
        with torch.inference_mode():
            logits = run.model(torch.from_numpy(heard[None, start : start + length]).to(run.device))
        found += likeliest(logits, run.describe.get("classes"), top)
    return found


def _named(run: Trained, paths: Sequence[Path], top: int, folder: Path) -> Answer:
    """See `predict`."""
    rows, problems = [], []
    for path in paths:
        try:
            sound = run.data.sounds.read_sound(path)
        except UserError as error:
            problems.append(str(error).replace("\n", "  "))
            continue
        rows.append((path, classify(run, [sound.samples], sound.rate, top)[0]))
    if not rows:
        raise UserError(f"none of the recordings can be read: {problems[0]}")
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / TABLE, "file", rows)
    lines = [f"  {path.name}  {found.line}" for path, found in rows[:SHOWN]]
    return Answer(lines, [folder / TABLE], problems)


def _names(paths: Sequence[Path]) -> Iterator[str]:
    """A name for what is written of each recording; of two with one name the second gets a number."""
    seen: dict[str, int] = {}
    for path in paths:
        seen[path.stem] = count = seen.get(path.stem, 0) + 1
        yield path.stem if count == 1 else f"{path.stem}-{count}"


def _picture(path: Path, sound: Any, found: np.ndarray, names: Sequence[str]) -> Figure:
    """The recording's and the signals' spectrograms, of the mean over channels."""
    signals = [sound.samples.mean(0), *found.mean(1)]
    row = list(zip([path.name, *names], map(torch.from_numpy, signals), strict=True))
    return draw_rows([row], sound.rate, f"{path.name}: {len(names)} signals")


def _stream(run: Trained, block: float) -> None:
    """From standard input to standard output, `block` milliseconds at a time; what it is and its latency on standard error."""
    model, rate = run.model, run.describe["rate"]
    if not getattr(model, "causal", False):
        raise UserError(
            "a stream needs a causal model", given=f"model {type(model).__name__}", do="train with scan=raster"
        )
    size = max(1, round(block * rate / 1000))
    waits = 1000 * model.latency / rate
    print(
        f"16-bit mono at {rate:,} Hz in, {run.describe['sources']} channels out; latency {waits:.1f} ms of the model "
        f"and {1000 * size / rate:.1f} ms of the block",
        file=sys.stderr,
    )

    def pieces() -> Iterator[torch.Tensor]:
        while content := sys.stdin.buffer.read(2 * size):
            samples = np.frombuffer(content[: len(content) // 2 * 2], "<i2").astype(np.float32) / SCALE
            yield torch.from_numpy(samples).to(run.device)

    with torch.inference_mode():
        for said in streamed(model, pieces()):
            scaled = (said.T.cpu() * SCALE).round().clamp(-SCALE, SCALE - 1).numpy().astype("<i2")
            sys.stdout.buffer.write(scaled.tobytes())
            sys.stdout.buffer.flush()
