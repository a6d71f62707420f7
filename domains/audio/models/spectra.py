"""The short-time Fourier transform and back, for recordings of any length."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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
