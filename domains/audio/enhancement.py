"""Noise taken from speech: a loss of magnitude, phase, complex spectrum and time, and what PESQ and STOI say at the end.

The loss: MP-SENet (arXiv 2305.13686, section 3.3), as SEMamba (arXiv 2405.06573) weighs it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import UserError
from ...core.ranges import Count, Positive, Weight, checked
from .discriminator import MetricDiscriminator
from .models.semamba import Heard
from .models.spectra import compressed, spectrum
from .perceptual import PESQ_BEST, PESQ_WORST, require, scores
from .separation import Separation


class Enhancement(Separation):
    """Speech from noise.

    Batches are recordings (batch, time) and the speech in them (batch, 1, time). A model that has `heard` (SEMamba) says magnitude
    and phase itself; of others they are those of the signal it returns.

    Args:
        model: the network. describe: of the data: "sources" (one), "rate".
        magnitude, phase, complex, time, consistency: weights of the terms; consistency: with the spectrum of the signal said.
        metric: weight of the discriminator that guesses PESQ; 0: none. metric_lr: its learning rate.
        sdr, perceptual, worst, auxiliary: see Separation.
    """

    @checked(group="task")
    def __init__(
        self,
        model: nn.Module,
        describe: Mapping[str, Any],
        magnitude: Weight = 0.9,
        phase: Weight = 0.3,
        complex: Weight = 0.1,
        time: Weight = 0.2,
        consistency: Weight = 0.1,
        metric: Weight = 0.0,
        metric_lr: Positive = 5e-4,
        sdr: bool = False,
        perceptual: bool = True,
        worst: Count = 4,
        auxiliary: Weight = 1.0,
    ):
        super().__init__(model, describe, sdr=sdr, perceptual=perceptual, worst=worst, auxiliary=auxiliary)
        if self.describe["sources"] != 1:
            given = f"data={describe.get('name')}, {self.describe['sources']} sources"
            raise UserError("enhancement is one voice in noise", given=given, do="task=separation")
        self.weights = {
            "magnitude": magnitude, "phase": phase, "complex": complex, "time": time, "consistency": consistency,
        }  # fmt: skip
        self.metric, self.n_fft = metric, getattr(model, "n_fft", 4 * math.ceil(self.rate / 160))
        self.discriminator = None
        if metric:
            require("pesq", self.rate)
            self.discriminator = MetricDiscriminator(metric_lr)

    def step(self, batch: tuple[Tensor, Tensor], stage: str) -> tuple[Tensor, dict[str, Tensor]]:
        mixture, sources = batch
        level = mixture.square().mean(1, keepdim=True).sqrt().clamp(min=1e-8)
        clean, heard = sources[:, 0] / level, self.hear(mixture / level)
        terms = self.terms(heard, clean)
        loss = sum(self.weights[name] * term for name, term in terms.items())
        if stage == "train":
            metrics = {name: term.detach() for name, term in terms.items()}
            if self.discriminator is not None:
                more, metrics["discriminator"] = self._pleased(heard, clean)
                loss = loss + self.metric * more
            return loss, metrics
        _, metrics = self.judged(mixture, sources, (heard.signal * level)[:, None], stage)
        return loss, metrics

    def hear(self, recording: Tensor) -> Heard:
        """The speech in recordings (batch, time) of power 1, and what it is made of."""
        if hasattr(self.model, "heard"):
            return Heard(*(each.float() for each in self.model.heard(recording)))
        signal = self.model(recording)[:, 0].float()
        return Heard(signal, *compressed(self.spectrum(signal)))

    def spectrum(self, signal: Tensor) -> Tensor:
        """Complex (batch, bins, frames) of signals (batch, time)."""
        return spectrum(signal, self.n_fft, self.n_fft // 4)

    def terms(self, heard: Heard, clean: Tensor) -> dict[str, Tensor]:
        """The parts of the loss, of what was heard and the true speech (batch, time)."""
        magnitude, phase = compressed(self.spectrum(clean))
        said, again = torch.polar(heard.magnitude, heard.phase), torch.polar(*compressed(self.spectrum(heard.signal)))
        return {
            "magnitude": F.mse_loss(heard.magnitude, magnitude),
            "phase": phase_loss(heard.phase, phase),
            "complex": (said - torch.polar(magnitude, phase)).abs().square().mean(),
            "time": F.l1_loss(heard.signal, clean),
            "consistency": (said - again).abs().square().mean(),
        }

    def _pleased(self, heard: Heard, clean: Tensor) -> tuple[Tensor, Tensor]:
        """How displeased the discriminator is, after it has learnt from this batch; and its own loss."""
        magnitude, _ = compressed(self.spectrum(clean))
        found = scores("pesq", heard.signal.detach(), clean, self.rate).to(clean.device)
        quality = (found - PESQ_WORST) / (PESQ_BEST - PESQ_WORST)
        learnt = self.discriminator.learn(magnitude, heard.magnitude, quality)
        return self.discriminator.displeasure(magnitude, heard.magnitude), learnt

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.discriminator is not None:
            checkpoint["discriminator_optimizer"] = self.discriminator.optimizer.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.discriminator is not None:
            self.discriminator.optimizer.load_state_dict(checkpoint["discriminator_optimizer"])


def phase_loss(said: Tensor, true: Tensor) -> Tensor:
    """How far phases (batch, bins, frames) are apart, and their steps along bins and along frames, all modulo a turn."""

    def apart(difference: Tensor) -> Tensor:
        return (difference - 2 * math.pi * (difference / (2 * math.pi)).round()).abs().mean()

    difference = said - true
    along_bins = difference.diff(dim=1, prepend=torch.zeros_like(difference[:, :1]))
    along_frames = difference.diff(dim=2, prepend=torch.zeros_like(difference[:, :, :1]))
    return apart(difference) + apart(along_bins) + apart(along_frames)
