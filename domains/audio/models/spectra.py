"""The short-time Fourier transform and back, for recordings of any length."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

COMPRESSION = 0.3  # power that magnitudes are raised to (MP-SENet, arXiv 2305.13686, section 3)
FLOOR = 1e-9  # power of a bin below which nothing is heard
ROUNDING = 1e-4  # of a part of a bin, in float32


def spectrum(x: Tensor, n_fft: int, hop: int) -> Tensor:
    """(batch, time) to complex (batch, bins, frames), Hann windows centred on multiples of `hop`, in float32 at least.

    What lies before the first and behind the last sample is the recording mirrored, or silence where that is too short.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    window = torch.hann_window(n_fft, dtype=x.dtype, device=x.device)
    if x.shape[-1] <= n_fft // 2:
        x = F.pad(x, (0, n_fft // 2 + 1 - x.shape[-1]))
    return torch.stft(x, n_fft, hop, n_fft, window, center=True, return_complex=True)


def waveform(spectrum: Tensor, n_fft: int, hop: int, length: int) -> Tensor:
    """Complex (batch, bins, frames) to (batch, length): the inverse of `spectrum`."""
    window = torch.hann_window(n_fft, dtype=spectrum.real.dtype, device=spectrum.device)
    return torch.istft(spectrum, n_fft, hop, n_fft, window, center=True, length=max(length, 1))[..., :length]


def compressed(spectrum: Tensor) -> tuple[Tensor, Tensor]:
    """The compressed magnitude and the phase of the complex spectrum of a signal of power about 1.

    Parts that rounding alone makes are taken for 0, so that the phase of what is nearly real and negative does not jump.
    """
    real, imaginary = spectrum.real, spectrum.imag
    power = real.square() + imaginary.square()
    imaginary = torch.where(imaginary.abs() < ROUNDING, torch.zeros_like(imaginary), imaginary)
    real = torch.where(real.abs() < ROUNDING, torch.full_like(real, 0.1 * ROUNDING), real)
    return (power + FLOOR) ** (COMPRESSION / 2), torch.atan2(imaginary, real)


def uncompressed(magnitude: Tensor, phase: Tensor) -> Tensor:
    """The complex spectrum of a compressed magnitude and a phase."""
    return torch.polar(magnitude ** (1 / COMPRESSION), phase)
