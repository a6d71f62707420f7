"""SPMamba (arXiv 2404.02063): TF-GridNet with Mambas along frequency and along time, and attention over frames.

Names are those of the authors' code. It maps the spectrum of a mixture to those of its sources, without masks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError
from ....core.ranges import Depth, Positive, Size, checked
from ....core.scans import Scan
from .blocks import Backend, SideBySide, as_scan, sized
from .spectra import spectrum, waveform
from .tasnet import sources_of

SIZES = {
    "micro": {"depth": 1, "channels": 8, "width": 4, "n_fft": 128, "heads": 2, "expand": 2, "attention": 128},
    "small": {"depth": 2, "channels": 16, "width": 4, "n_fft": 128, "heads": 4, "expand": 2, "attention": 256},
    "base": {"depth": 6, "channels": 16, "width": 8, "n_fft": 256, "heads": 4, "expand": 4, "attention": 512},
}


class Norm4D(nn.Module):
    """Norm over the channels of (batch, channels, frames, bins), or with `bins` over channels and bins."""

    def __init__(self, channels: int, bins: int | None = None, eps: float = 1e-5):
        super().__init__()
        shape, self.axes, self.eps = (1, channels, 1, bins or 1), (1,) if bins is None else (1, 3), eps
        self.gamma, self.beta = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, self.axes, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + self.eps) * self.gamma + self.beta


def projection(inputs: int, outputs: int, bins: int) -> nn.Sequential:
    """A linear layer over channels, PReLU and a norm over channels and bins."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.PReLU(), Norm4D(outputs, bins))


class GridBlock(nn.Module):
    """Along frequency, along time, and attention over whole frames; each is added to what comes in.

    Args:
        channels: of a point of the spectrum. bins: of a frame. width: neighbouring points that a token is made of.
        heads, attention: of the attention, and about how many channels its queries have over all bins.
        time, frequency: the scans. options: of the mixers.
    """

    def __init__(
        self, channels: int, bins: int, width: int, heads: int, attention: int, time: str | Scan, frequency: str | Scan,
        **options: Any,
    ):  # fmt: skip
        super().__init__()
        if channels % heads:
            raise UserError("heads share the channels out", given=f"channels={channels}, heads={heads}")
        self.width, self.heads = width, heads
        for name, scan in (("intra", frequency), ("inter", time)):
            mamba = SideBySide(channels * width, scan, **options)
            self.add_module(f"{name}_norm", Norm4D(channels))
            self.add_module(f"{name}_mamba", mamba)
            self.add_module(f"{name}_linear", nn.ConvTranspose1d(mamba.out_channels, channels, width))
        inner = math.ceil(attention / bins)
        for head in range(heads):
            self.add_module(f"attn_conv_Q_{head}", projection(channels, inner, bins))
            self.add_module(f"attn_conv_K_{head}", projection(channels, inner, bins))
            self.add_module(f"attn_conv_V_{head}", projection(channels, channels // heads, bins))
        self.attn_concat_proj = projection(channels, channels, bins)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, frames, bins) to the same."""
        x = x + self.along("intra", x.transpose(1, 2)).transpose(1, 2)
        x = x + self.along("inter", x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.attend(x)

    def along(self, name: str, x: Tensor) -> Tensor:
        """One of the two Mambas along the last axis of (batch, lines, channels, points)."""
        lines = getattr(self, f"{name}_norm")(x.transpose(1, 2)).transpose(1, 2).flatten(0, 1)
        points = lines.shape[-1]
        lines = F.pad(lines, (0, max(0, self.width - points)))
        tokens = lines.unfold(2, self.width, 1).permute(0, 2, 1, 3).flatten(2)  # (lines, tokens, channels * width)
        said = getattr(self, f"{name}_mamba")(tokens).transpose(1, 2)
        return getattr(self, f"{name}_linear")(said)[..., :points].unflatten(0, x.shape[:2])

    def attend(self, x: Tensor) -> Tensor:
        """Attention between frames (batch, channels, frames, bins)."""
        query, key, value = (
            torch.stack([getattr(self, f"attn_conv_{name}_{head}")(x) for head in range(self.heads)], 1).transpose(2, 3)
            for name in "QKV"
        )  # (batch, heads, frames, channels, bins)
        said = F.scaled_dot_product_attention(query.flatten(3), key.flatten(3), value.flatten(3))
        return self.attn_concat_proj(said.unflatten(3, value.shape[3:]).transpose(2, 3).flatten(1, 2))


class SPMamba(nn.Module):
    """SPMamba over any scans of the core.

    Args:
        sources: speakers. depth: blocks. channels, width, heads, attention: see GridBlock.
        n_fft, hop: samples of a window and between two; hop None: a quarter of the window.
        time, frequency: scans along each; "bidirectional" is the paper's.
        d_state, expand: of the Mambas. backend: of the operators.
        samples: of the recordings it is meant for.
    """

    @checked
    def __init__(
        self,
        sources: Size = 2,
        depth: Depth = 6,
        channels: Size = 16,
        width: Size = 8,
        n_fft: Size = 256,
        hop: Size | None = None,
        heads: Size = 4,
        attention: Size = 512,
        time: str | Scan = "bidirectional",
        frequency: str | Scan = "bidirectional",
        d_state: Size = 16,
        expand: Positive = 4,
        backend: Backend = "auto",
        samples: Size = 8000,
    ):
        super().__init__()
        self.sources, self.n_fft, self.hop = sources, n_fft, hop or max(1, n_fft // 4)
        self.bins, self.samples = n_fft // 2 + 1, samples
        self.conv = nn.Sequential(nn.Conv2d(2, channels, 3, padding=1), nn.GroupNorm(1, channels))
        options = {"d_state": d_state, "expand": expand, "backend": backend}
        options |= {"time": time, "frequency": frequency}
        blocks = (GridBlock(channels, self.bins, width, heads, attention, **options) for _ in range(depth))
        self.blocks = nn.ModuleList(blocks)
        self.deconv = nn.ConvTranspose2d(channels, 2 * sources, 3, padding=1)
        along = ("frequency", frequency, self.bins), ("time", time, self.tokens)
        self.walks = [(as_scan(scan), (max(1, points - width + 1),), name) for name, scan, points in along]

    @property
    def tokens(self) -> int:
        """Frames of a recording of the data's length."""
        return 1 + self.samples // self.hop

    def forward(self, mixture: Tensor) -> Tensor:
        """(batch, time) to (batch, sources, time)."""
        level = mixture.std(1, keepdim=True) if mixture.shape[1] > 1 else torch.ones_like(mixture[:, :1])
        level = torch.where(level > 0, level, torch.ones_like(level))
        parts = torch.view_as_real(spectrum(mixture / level, self.n_fft, self.hop)).permute(0, 3, 2, 1)
        x = self.conv(parts.to(self.deconv.weight.dtype))
        for block in self.blocks:
            x = block(x)
        said = self.deconv(x).unflatten(1, (self.sources, 2)).permute(0, 1, 4, 3, 2)  # (…, bins, frames, 2)
        said = torch.view_as_complex(said.to(parts.dtype).contiguous()).flatten(0, 1)
        signals = waveform(said, self.n_fft, self.hop, mixture.shape[1]).unflatten(0, (-1, self.sources))
        return signals.to(mixture.dtype) * level[:, None]

    def flops(self, batch: int = 1) -> int:
        """Floating point operations of recordings of `samples` samples: convolutions at both ends, Mambas, attention."""
        frames, channels = self.tokens, self.deconv.in_channels
        points, total = frames * self.bins, 0
        for block in self.blocks:
            for name, lines, tokens in (("intra", frames, self.bins), ("inter", self.bins, frames)):
                linear = getattr(block, f"{name}_linear")
                total += lines * getattr(block, f"{name}_mamba").flops(max(1, tokens - block.width + 1))
                total += 2 * points * linear.weight.numel()
            inner = block.attn_conv_Q_0[0].out_channels * block.heads
            total += 2 * points * channels * (2 * inner + 2 * channels) + 2 * frames * points * (inner + channels)
        return batch * (total + 2 * points * 9 * channels * (2 + 2 * self.sources))


@checked(group="model")
def build(
    describe: Mapping[str, Any],
    scan: str | Scan = "bidirectional",
    size: Literal["micro", "small", "base"] | None = None,
    along: Literal["both", "time", "frequency"] = "both",
    depth: Depth | None = None,
    channels: Size | None = None,
    n_fft: Size | None = None,
    d_state: Size = 16,
    backend: Backend = "auto",
) -> SPMamba:
    """An SPMamba for a data set.

    Args:
        describe: sources, samples and model_size of the data set.
        scan: of the Mambas along time, frequency or both, by `along`; the others read in both directions.
        size: a row of SIZES; None: what the data set asks for. depth, channels, n_fft: other than the size's.
    """
    options = sized(SIZES, size or describe.get("model_size", "base"), depth=depth, channels=channels, n_fft=n_fft)
    scans = {name: scan if along in ("both", name) else "bidirectional" for name in ("time", "frequency")}
    return SPMamba(**sources_of(describe), **options, **scans, d_state=d_state, backend=backend)
