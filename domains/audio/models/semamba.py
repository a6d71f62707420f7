"""SEMamba (arXiv 2405.06573): speech from noise by a mask on magnitudes and a phase of its own, from Mambas on time and frequency.

Names are those of the authors' code (MP-SENet, arXiv 2305.13686, with Mambas in the place of its transformers).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ....core.errors import UserError
from ....core.ranges import Depth, Positive, Size, checked
from ....core.scans import Scan
from .blocks import Backend, SideBySide, as_scan, sized
from .spectra import compressed, spectrum, uncompressed, waveform
from .tasnet import sources_of

SIZES = {
    "micro": {"channels": 16, "depth": 1, "n_fft": 256, "expand": 2},
    "small": {"channels": 32, "depth": 2, "n_fft": 256, "expand": 4},
    "base": {"channels": 64, "depth": 4, "n_fft": 400, "expand": 4},
}
DENSE = 4  # convolutions of a dense block, each dilated twice as far as the one before


class Heard(NamedTuple):
    """What is heard in a recording: signal (batch, time), its compressed magnitude and its phase, (batch, bins, frames)."""

    signal: Tensor
    magnitude: Tensor
    phase: Tensor


def normed(channels: int, *convolutions: nn.Module) -> nn.Sequential:
    """Convolutions, a norm of each channel of each sample, and PReLU."""
    return nn.Sequential(*convolutions, nn.InstanceNorm2d(channels, affine=True), nn.PReLU(channels))


class DenseBlock(nn.Module):
    """Convolutions over (batch, channels, frames, bins), each of all that came before, dilated along time."""

    def __init__(self, channels: int):
        super().__init__()
        self.dense_block = nn.ModuleList(
            normed(
                channels,
                nn.Conv2d(channels * (n + 1), channels, 3, padding=(2**n, 1), dilation=(2**n, 1)),
            )
            for n in range(DENSE)
        )

    def forward(self, x: Tensor) -> Tensor:
        found = x
        for convolution in self.dense_block:
            x = convolution(found)
            found = torch.cat([x, found], 1)
        return x


class DenseEncoder(nn.Module):
    """(batch, 2, frames, bins) to (batch, channels, frames, half the bins)."""

    def __init__(self, inputs: int, channels: int):
        super().__init__()
        self.dense_conv_1 = normed(channels, nn.Conv2d(inputs, channels, 1))
        self.dense_block = DenseBlock(channels)
        self.dense_conv_2 = normed(channels, nn.Conv2d(channels, channels, (1, 3), (1, 2)))

    def forward(self, x: Tensor) -> Tensor:
        return self.dense_conv_2(self.dense_block(self.dense_conv_1(x)))


class TFMambaBlock(nn.Module):
    """Along time, then along frequency; each is added to what comes in."""

    def __init__(self, channels: int, time: str | Scan, frequency: str | Scan, **options: Any):
        super().__init__()
        self.time_mamba, self.freq_mamba = (SideBySide(channels, scan, **options) for scan in (time, frequency))
        self.tlinear = nn.ConvTranspose1d(self.time_mamba.out_channels, channels, 1)
        self.flinear = nn.ConvTranspose1d(self.freq_mamba.out_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, frames, bins) to the same."""
        x = x.permute(0, 3, 2, 1)
        x = x + _along(self.time_mamba, self.tlinear, x)
        x = x.transpose(1, 2)
        x = x + _along(self.freq_mamba, self.flinear, x)
        return x.permute(0, 3, 1, 2)


def _along(mamba: SideBySide, linear: nn.ConvTranspose1d, x: Tensor) -> Tensor:
    """Of (batch, lines, points, channels)."""
    lines = mamba(x.flatten(0, 1)).transpose(1, 2)
    return linear(lines).transpose(1, 2).unflatten(0, x.shape[:2])


class LearnableSigmoid(nn.Module):
    """`beta` times the sigmoid of what comes in times a slope of each bin; (batch, bins, frames)."""

    def __init__(self, bins: int, beta: float):
        super().__init__()
        self.slope, self.beta = nn.Parameter(torch.ones(bins, 1)), beta

    def forward(self, x: Tensor) -> Tensor:
        return self.beta * torch.sigmoid(self.slope * x)


class MagDecoder(nn.Module):
    """A mask (batch, bins, frames) from 0 to `beta`, of (batch, channels, frames, half the bins)."""

    def __init__(self, channels: int, outputs: int, bins: int, beta: float):
        super().__init__()
        self.dense_block = DenseBlock(channels)
        self.mask_conv = nn.Sequential(
            nn.ConvTranspose2d(channels, channels, (1, 3), (1, 2)),
            nn.Conv2d(channels, outputs, 1),
            nn.InstanceNorm2d(outputs, affine=True),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 1),
        )
        self.lsigmoid = LearnableSigmoid(bins, beta)

    def forward(self, x: Tensor) -> Tensor:
        return self.lsigmoid(self.mask_conv(self.dense_block(x))[:, 0].transpose(1, 2))


class PhaseDecoder(nn.Module):
    """A phase (batch, bins, frames) in radians, of (batch, channels, frames, half the bins)."""

    def __init__(self, channels: int, outputs: int):
        super().__init__()
        self.dense_block = DenseBlock(channels)
        self.phase_conv = normed(channels, nn.ConvTranspose2d(channels, channels, (1, 3), (1, 2)))
        self.phase_conv_r, self.phase_conv_i = nn.Conv2d(channels, outputs, 1), nn.Conv2d(channels, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.phase_conv(self.dense_block(x))
        return torch.atan2(self.phase_conv_i(x), self.phase_conv_r(x))[:, 0].transpose(1, 2)


class SEMamba(nn.Module):
    """SEMamba over any scans of the core.

    Args:
        channels, depth: width, and blocks. n_fft: samples of a window, a multiple of 4, a quarter of which is between two.
        beta: the largest value of the mask.
        time, frequency: scans along each; "bidirectional" is the paper's.
        d_state, expand: of the Mambas. backend: of the operators.
        inputs, outputs: channels of what comes in (magnitude and phase) and goes out (a mask).
        samples: of the recordings it is meant for.
    """

    @checked
    def __init__(
        self,
        channels: Size = 64,
        depth: Depth = 4,
        n_fft: Size = 400,
        beta: Positive = 2.0,
        time: str | Scan = "bidirectional",
        frequency: str | Scan = "bidirectional",
        d_state: Size = 16,
        expand: Positive = 4,
        backend: Backend = "auto",
        inputs: Size = 2,
        outputs: Size = 1,
        samples: Size = 32000,
    ):
        super().__init__()
        if n_fft % 4:
            raise UserError("bins are halved, and n_fft / 2 + 1 has to be odd", given=f"n_fft={n_fft}", do="n_fft=400")
        self.sources, self.n_fft, self.hop, self.samples = 1, n_fft, n_fft // 4, samples
        self.bins = n_fft // 2 + 1
        options = {"time": time, "frequency": frequency, "d_state": d_state, "expand": expand, "backend": backend}
        self.dense_encoder = DenseEncoder(inputs, channels)
        self.TSMamba = nn.ModuleList(TFMambaBlock(channels, **options) for _ in range(depth))
        self.mask_decoder = MagDecoder(channels, outputs, self.bins, beta)
        self.phase_decoder = PhaseDecoder(channels, outputs)
        self.walks = [(as_scan(time), (self.tokens,), "time"), (as_scan(frequency), (self.bins // 2,), "frequency")]

    @property
    def tokens(self) -> int:
        """Frames of a recording of the data's length."""
        return 1 + self.samples // self.hop

    def forward(self, mixture: Tensor) -> Tensor:
        """(batch, time) to (batch, 1, time)."""
        return self.heard(mixture).signal[:, None]

    def heard(self, mixture: Tensor) -> Heard:
        """What is heard in recordings (batch, time): the signal, and what it is made of, at the level of a recording of power 1."""
        level = mixture.square().mean(1, keepdim=True).sqrt() if mixture.shape[1] else mixture.sum(1, keepdim=True)
        level = torch.where(level > 0, level, torch.ones_like(level))
        magnitude, phase = self.spectra(*compressed(spectrum(mixture / level, self.n_fft, self.hop)))
        signal = waveform(uncompressed(magnitude, phase), self.n_fft, self.hop, mixture.shape[1])
        return Heard(signal.to(mixture.dtype) * level, magnitude, phase)

    def spectra(self, magnitude: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
        """Compressed magnitudes and phases (batch, bins, frames) of speech, from those of the recording."""
        given = self.phase_decoder.phase_conv_r.weight.dtype
        x = self.dense_encoder(torch.stack([magnitude, phase], 1).transpose(2, 3).to(given))
        for block in self.TSMamba:
            x = block(x)
        return magnitude * self.mask_decoder(x).to(magnitude.dtype), self.phase_decoder(x).to(phase.dtype)

    def flops(self, batch: int = 1) -> int:
        """Floating point operations of recordings of `samples` samples; a multiply-add is two."""
        frames, bins = self.tokens, self.bins // 2
        total = 0
        for name, each in self.named_modules():
            if isinstance(each, nn.Conv2d | nn.ConvTranspose2d):
                whole = name.startswith(("dense_encoder.dense_conv_1", "dense_encoder.dense_block"))
                total += 2 * frames * (self.bins if whole else bins) * each.weight.numel()
        for block in self.TSMamba:
            total += bins * block.time_mamba.flops(frames) + frames * block.freq_mamba.flops(bins)
            total += 2 * frames * bins * (block.tlinear.weight.numel() + block.flinear.weight.numel())
        return batch * total


@checked(group="model")
def build(
    describe: Mapping[str, Any],
    scan: str | Scan = "bidirectional",
    size: Literal["micro", "small", "base"] | None = None,
    along: Literal["both", "time", "frequency"] = "both",
    channels: Size | None = None,
    depth: Depth | None = None,
    n_fft: Size | None = None,
    d_state: Size = 16,
    expand: Positive | None = None,
    backend: Backend = "auto",
) -> SEMamba:
    """A SEMamba for a data set.

    Args:
        describe: sources (one), samples and model_size of the data set.
        scan: of the Mambas along time, frequency or both, by `along`; the others read in both directions.
        size: a row of SIZES; None: what the data set asks for. channels, depth, n_fft, expand: other than the size's.

    Raises:
        UserError: the data have several sources.
    """
    found = sources_of(describe)
    if found.pop("sources") != 1:
        raise UserError(
            "SEMamba hears one voice in noise", given=f"data={describe.get('name')}, {describe['sources']} sources",
            do="data=noisy_speech, or model=spmamba",
        )  # fmt: skip
    chosen = {"channels": channels, "depth": depth, "n_fft": n_fft, "expand": expand}
    options = sized(SIZES, size or describe.get("model_size", "base"), **chosen)
    scans = {name: scan if along in ("both", name) else "bidirectional" for name in ("time", "frequency")}
    return SEMamba(**found, **options, **scans, d_state=d_state, backend=backend)
