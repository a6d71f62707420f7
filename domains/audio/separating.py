"""A trained separator over recordings of any length, rate and number of channels, in memory, in pieces or from a stream.

voices = separate(run, samples, rate)        (sources, channels, time), at the rate and of the length of what was given
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.functional.audio import pit_permutate, scale_invariant_signal_noise_ratio

from ...core.errors import UserError
from ..trained import Trained
from .separation import best

Policy = Literal["each", "mean"]


@torch.inference_mode()
def separate(
    run: Trained, samples: np.ndarray, rate: int, channels: Policy = "each", seconds: float = 8.0, overlap: float = 0.25
) -> np.ndarray:
    """The signals in a recording.

    Args:
        run: a trained separator.
        samples: (channels, time) or (time), float.
        rate: samples a second of it; resampled to the model's and back by soxr.
        channels: "each" is taken apart, in the order of the first; "mean": one answer, of their mean.
        seconds: recordings longer than this go through the model in pieces of it; a causal model goes on from its state instead.
        overlap: share of a piece that the next one hears again and fades into.

    Returns:
        (sources, channels, time) float32, whose levels are such that together they come closest to the recording.

    Raises:
        UserError: numbers that are not finite, or another form.
    """
    given = np.atleast_2d(np.asarray(samples, np.float32))
    if given.ndim != 2:
        raise UserError("a recording is (channels, time)", given=f"shape {np.shape(samples)}")
    if not np.isfinite(given).all():
        raise UserError("a recording holds numbers that are not finite")
    if channels == "mean":
        given = given.mean(0, keepdims=True)
    own = run.describe["rate"]
    heard = torch.from_numpy(run.data.sounds.resampled(given, rate, own)).to(run.device)
    said, piece = [], max(2, round(seconds * own))
    for channel in heard:
        found = whole(run.model, channel, piece, overlap)
        if said:
            _, order = best(found[None], said[0][None], scale_invariant_signal_noise_ratio)
            found = pit_permutate(found[None], order)[0]
        said.append(found)
    signals = torch.stack([levelled(each, channel) for each, channel in zip(said, heard, strict=True)], 1)
    return run.data.sounds.resampled(signals.cpu().numpy(), own, rate, given.shape[1])


def whole(model: nn.Module, recording: Tensor, piece: int, overlap: float = 0.25) -> Tensor:
    """The signals (sources, time) in a recording (time) at the model's rate, `piece` samples at a time."""
    if getattr(model, "causal", False):
        return torch.cat(list(streamed(model, iter(recording.split(piece)))), -1)
    return overlapped(model, recording, piece, max(1, round(overlap * piece)))


def streamed(model: nn.Module, pieces: Iterator[Tensor]) -> Iterator[Tensor]:
    """The signals (sources, time') after each piece (time) of a stream, and what is owed at its end."""
    state, piece = None, None
    for piece in pieces:
        said, state = model.stream(piece[None], state)
        yield said[0]
    if piece is not None:
        yield model.stream(piece[None, :0], state, last=True)[0][0]


def overlapped(model: nn.Module, recording: Tensor, piece: int, overlap: int) -> Tensor:
    """(time) to (sources, time): pieces that fade into one another, each in the order that agrees best with the one before."""
    if len(recording) <= piece:
        return model(recording[None])[0].float()
    fade, finished, last = torch.linspace(0, 1, overlap, device=recording.device), [], None
    for start in range(0, len(recording) - overlap, piece - overlap):
        found = model(recording[None, start : start + piece])[0].float()
        if last is not None:
            _, order = best(found[None, :, :overlap], last[None], scale_invariant_signal_noise_ratio)
            found = pit_permutate(found[None], order)[0]
            found[:, :overlap] = last * (1 - fade) + found[:, :overlap] * fade
        finished.append(found[:, :-overlap])
        last = found[:, -overlap:]
    return torch.cat([*finished, last], -1)


def levelled(signals: Tensor, recording: Tensor) -> Tensor:
    """Signals (sources, time), each times the factor with which their sum comes closest to a recording (time)."""
    signals = signals.double()
    products = signals @ signals.T
    factors = torch.linalg.lstsq(products.cpu(), (signals @ recording.double()).cpu()[:, None], driver="gelsd").solution
    return (signals * factors.to(signals.device)).float()
