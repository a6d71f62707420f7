"""A network that guesses what PESQ says of speech, so that a model can be trained to please it (MetricGAN, arXiv 1905.04874)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

WIDTHS = (2, 16, 32, 64, 128)


class MetricDiscriminator(nn.Module):
    """Of compressed magnitudes (batch, bins, frames) of clean speech and of an estimate: its quality, 0 to 1 (MP-SENet's form).

    Args:
        lr: of its own optimizer.
    """

    def __init__(self, lr: float = 5e-4):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(WIDTHS):
            convolution = spectral_norm(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False))
            layers += [convolution, nn.InstanceNorm2d(outputs, affine=True), nn.PReLU(outputs)]
        self.layers = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.guess = nn.Sequential(
            spectral_norm(nn.Linear(128, 64)),
            nn.Dropout(0.3),
            nn.PReLU(64),
            spectral_norm(nn.Linear(64, 1)),
            nn.Sigmoid(),
        )
        self.optimizer = torch.optim.AdamW(self.parameters(), lr, betas=(0.8, 0.99))

    def forward(self, clean: Tensor, said: Tensor) -> Tensor:
        """(batch,)."""
        pair = torch.stack([clean, said], 1)
        short = [max(0, 32 - size) for size in pair.shape[2:]]  # four halvings leave more than one point to be normed
        return self.guess(self.layers(F.pad(pair, (0, short[1], 0, short[0])))).squeeze(1)

    @torch.enable_grad()
    def learn(self, clean: Tensor, said: Tensor, quality: Tensor) -> Tensor:
        """One step on what the true measure says, (batch,) 0 to 1, NaN where it says nothing; the loss."""
        known = quality.isfinite()
        loss = (self(clean, clean) - 1).square().mean()
        if known.any():
            loss = loss + (self(clean[known], said[known].detach()) - quality[known]).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def displeasure(self, clean: Tensor, said: Tensor) -> Tensor:
        """How far an estimate is from what it thinks best; gradients go to the estimate alone."""
        for each in self.parameters():
            each.requires_grad_(False)
        loss = (self(clean, said) - 1).square().mean()
        for each in self.parameters():
            each.requires_grad_(True)
        return loss
