"""Pictures of sound: spectrograms in rows, drawn without pyplot so that no window system is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.lettering import drawable
from ...core.pictures import INK
from .models.spectra import spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANGE = 60  # dB that a picture shows below the loudest point of its row
LONGEST = 800  # frames drawn of a recording


def decibels(signal: Tensor, rate: int) -> Tensor:
    """The spectrogram of a signal (time) in dB, (bins, frames): windows of about 32 ms."""
    n_fft = max(32, 2 ** round(torch.tensor(0.032 * rate).log2().item()))
    hop = max(n_fft // 4, len(signal) // LONGEST)
    return 20 * spectrum(signal[None].detach().float().cpu(), n_fft, hop)[0].abs().clamp(min=1e-7).log10()


def draw_rows(rows: Sequence[Sequence[tuple[str, Tensor]]], rate: int, heading: str) -> Figure:
    """Draws signals as spectrograms, a row a recording.

    Args:
        rows: of each recording its signals (time), each with a title; all in a row on one scale of level.
        rate: samples a second.
        heading: one line above all.
    """
    from matplotlib.figure import Figure

    columns = max(map(len, rows))
    width, height = max(4.5, 2.5 * columns + 0.6), 1.7 * len(rows) + 0.6
    figure = Figure(figsize=(width, height), dpi=110, facecolor="white")
    words, fonts = drawable(heading)
    place = {"x": 0.02, "y": 1 - 0.1 / height, "ha": "left", "va": "top"}
    figure.suptitle(words, **place, fontsize=10, color=INK, weight="bold", family=fonts, parse_math=False)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, row in zip(axes, rows, strict=True):
        pictures = [decibels(signal, rate) for _, signal in row]
        loudest = max(float(each.max()) for each in pictures)
        for axis, picture, (title, signal) in zip(line, pictures, row, strict=False):
            extent = (0, max(len(signal), 1) / rate, 0, rate / 2000)
            axis.imshow(
                picture.numpy(), origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=loudest - RANGE,
                vmax=loudest,
            )  # fmt: skip
            words, fonts = drawable(title)
            axis.set_title(words, fontsize=7.5, pad=3, color=INK, family=fonts, parse_math=False)
            axis.set_axis_on()
            axis.tick_params(labelsize=6, length=2)
    for axis in axes[-1]:
        axis.set_xlabel("seconds", fontsize=7)
    for axis in axes[:, 0]:
        axis.set_ylabel("kHz", fontsize=7)
    figure.subplots_adjust(
        left=0.5 / width, right=0.99, bottom=0.4 / height, top=1 - 0.6 / height, wspace=0.15, hspace=0.45
    )
    return figure
