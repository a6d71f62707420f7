"""Log-mel spectrograms of sounds: each brought to mean 0 and deviation 1, with stripes hidden in training, or as AST has them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .spectra import spectrum

FLOOR = 1e-6  # power below which nothing is heard
# As many dB below a sound's loudest mel, too: what a recording hums and what is filled up with silence tells speakers apart,
# not words. Training draws half to one and a half times as many, as if rooms were more or less quiet.
HEARD = 50.0


class LogMel(nn.Module):
    """Log-mel spectrograms every 10 ms.

    Args:
        rate: samples a second. mels: channels.
        frequency_mask, time_mask: the most mels and frames hidden in a training sample (SpecAugment).
    """

    def __init__(self, rate: int, mels: int, frequency_mask: int = 0, time_mask: int = 0):
        super().__init__()
        self.n_fft, self.hop = 2 ** math.ceil(math.log2(0.05 * rate)), max(1, rate // 100)
        self.masks = (frequency_mask, time_mask)
        with torch.device("cpu"):  # the import too, which makes tensors of its own
            from torchaudio.functional import melscale_fbanks

            filters = melscale_fbanks(self.n_fft // 2 + 1, 0.0, rate / 2, mels, rate)
        self.register_buffer("filters", filters, persistent=False)

    def frames(self, samples: int) -> int:
        """Of a sound of so many samples."""
        return 1 + max(samples, self.n_fft // 2 + 1) // self.hop

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time) to (batch, frames, mels), in float32 at least."""
        levels = self.levels(x, self.training)
        return self._hidden(levels) if self.training and any(self.masks) else levels

    def levels(self, x: Tensor, draws: bool = False) -> Tensor:
        """The same with nothing hidden; draws: how loud a sound must be to be heard is drawn."""
        powers = spectrum(x, self.n_fft, self.hop).abs().square().transpose(1, 2)
        mels = powers @ self.filters.to(powers.dtype)
        # As precise as float32, whatever the dtype that a run has made the usual one.
        shares = torch.rand(len(x), 1, 1, device=x.device, dtype=torch.float32) if draws else 0.5
        quiet = mels.amax((1, 2), keepdim=True) * 10 ** (-HEARD / 10 * (0.5 + shares))
        levels = (mels + quiet + FLOOR).log()
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


class Fbank(nn.Module):
    """Kaldi's log-mel filter banks with the levels of AST (arXiv 2104.01778), which AuM's published weights were trained on.

    Args:
        rate: samples a second. frames: of a spectrogram, 10 ms each; it is cut off there or filled up with levels of 0.
        mean, deviation: of the levels of the training sounds; the model gets (levels - mean) / (2 deviation).
    """

    def __init__(self, rate: int, frames: int, mean: float, deviation: float, mels: int = 128):
        super().__init__()
        self.rate, self.frames, self.mels, self.mean, self.deviation = rate, frames, mels, mean, deviation

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time) to (batch, frames, mels) float32."""
        levels = torch.stack([self._filled(sound[None].float()) for sound in x])
        return (levels - self.mean) / (2 * self.deviation)

    def _filled(self, sound: Tensor) -> Tensor:
        with torch.device("cpu"):
            from torchaudio.compliance.kaldi import fbank

        sound = F.pad(sound, (0, max(0, self.rate // 40 - sound.shape[1])))  # to a window, 25 ms, at least
        levels = fbank(
            sound - sound.mean(), htk_compat=True, sample_frequency=self.rate, use_energy=False, window_type="hanning",
            num_mel_bins=self.mels, dither=0.0,
        )[: self.frames]  # fmt: skip
        return F.pad(levels, (0, 0, 0, self.frames - len(levels)))
