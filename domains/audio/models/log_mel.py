"""Log-mel spectrograms of sounds, each brought to mean 0 and deviation 1, with stripes hidden in training."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .spectra import spectrum

FLOOR = 1e-6  # power below which nothing is heard


class LogMel(nn.Module):
    """Log-mel spectrograms every 10 ms.

    Args:
        rate: samples a second. mels: channels.
        frequency_mask, time_mask: the most mels and frames hidden in a training sample (SpecAugment).
    """

    def __init__(self, rate: int, mels: int, frequency_mask: int = 0, time_mask: int = 0):
        super().__init__()
        from torchaudio.functional import melscale_fbanks

        self.n_fft, self.hop = 2 ** math.ceil(math.log2(0.05 * rate)), max(1, rate // 100)
        self.masks = (frequency_mask, time_mask)
        with torch.device("cpu"):
            filters = melscale_fbanks(self.n_fft // 2 + 1, 0.0, rate / 2, mels, rate)
        self.register_buffer("filters", filters, persistent=False)

    def frames(self, samples: int) -> int:
        """Of a sound of so many samples."""
        return 1 + max(samples, self.n_fft // 2 + 1) // self.hop

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time) to (batch, frames, mels), in float32 at least."""
        levels = self.levels(x)
        return self._hidden(levels) if self.training and any(self.masks) else levels

    def levels(self, x: Tensor) -> Tensor:
        """The same with nothing hidden."""
        powers = spectrum(x, self.n_fft, self.hop).abs().square().transpose(1, 2)
        levels = (powers @ self.filters.to(powers.dtype) + FLOOR).log()
        deviation, mean = torch.std_mean(levels, (1, 2), keepdim=True)
        return (levels - mean) / deviation.clamp(min=0.1)

    def _hidden(self, levels: Tensor) -> Tensor:
        """With a stripe of each axis set to the mean, 0."""
        for axis, most in zip((2, 1), self.masks, strict=True):
            places = torch.arange(levels.shape[axis], device=levels.device)
            # As precise as the places are, whatever the dtype that a run has made the usual one.
            width, start = torch.rand(2, len(levels), 1, device=levels.device, dtype=torch.float32)
            width = (width * (most + 1)).floor()
            start = (start * (levels.shape[axis] - width).clamp(min=0)).floor()
            hidden = (places >= start) & (places < start + width)
            levels = levels.masked_fill(hidden.unsqueeze(3 - axis), 0)
        return levels
