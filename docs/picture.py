"""Draws docs/scans.png, the picture of README.md: four scans over a grid, and below each the hidden attention of a mixer on it.

.venv/bin/python docs/picture.py
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image

from polymamba.core import Mamba
from polymamba.core.explanation import hidden_attention
from polymamba.core.scans.draw import draw

SCANS = ("raster", "column", "local(window=4)", "hilbert(paths=1)")
SIDE, CHANNELS = 8, 64
FILE = Path(__file__).with_name("scans.png")


def main() -> None:
    paths = draw("+".join(SCANS), (SIDE, SIDE))
    paths.suptitle(f"Four scans of {SIDE}×{SIDE} tokens", fontsize=11)
    above, below = _image(paths), _image(attention())
    below = below.resize((above.width, round(below.height * above.width / below.width)))
    both = Image.new("RGB", (above.width, above.height + below.height), "white")
    both.paste(above, (0, 0))
    both.paste(below, (0, above.height))
    both.quantize(128).save(FILE, optimize=True)


def attention() -> Figure:
    """A matrix for each scan: how much each token takes from each, the mean over the channels of a mixer with random weights."""
    figure = Figure(figsize=(12.7, 3.6), layout="constrained", dpi=120)
    for axes, scan in zip(figure.subplots(1, len(SCANS)), SCANS, strict=True):
        torch.manual_seed(0)
        mixer = Mamba(d_model=CHANNELS, scan=scan, axes=2)
        with torch.no_grad():
            takes = hidden_attention(mixer, torch.randn(1, SIDE * SIDE, CHANNELS), grid=(SIDE, SIDE))
        axes.imshow(takes[0].abs().mean(0).sqrt(), cmap="inferno")
        axes.set_title(scan, fontsize=9)
        axes.set_xlabel("from token", fontsize=8)
        axes.set_ylabel("to token", fontsize=8)
        axes.tick_params(labelsize=7)
    figure.suptitle("Hidden attention of a Mamba mixer that walks them", fontsize=11)
    return figure


def _image(figure: Figure) -> Image.Image:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Image.open(file).convert("RGB")


if __name__ == "__main__":
    main()
