"""Taking mixtures apart: permutation-invariant training on the signal-to-noise ratio, and what it has gained in dB.

PIT: Yu et al. 2017 (arXiv 1607.00325). MixIT: Wisdom et al. 2020 (arXiv 2006.12701).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics.functional.audio import (
    permutation_invariant_training,
    pit_permutate,
    scale_invariant_signal_noise_ratio,
    signal_distortion_ratio,
    signal_noise_ratio,
)

from ...core.errors import UserError
from ...core.ranges import Count, Positive, Weight, checked
from ..task import Task
from .models.spectra import spectrum, waveform
from .perceptual import scores, usable
from .spectrograms import draw_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Ratio = Callable[[Tensor, Tensor], Tensor]
RATIOS: dict[str, Ratio] = {"si_snr": scale_invariant_signal_noise_ratio, "snr": signal_noise_ratio}
FIRST = 3  # mixtures in the picture of the first batch


class Separation(Task):
    """The signals in a mixture, in any order.

    Batches are mixtures (batch, time) and signals (batch, sources, time); the model returns estimates of their shape. One source is
    enhancement: speech from noise.

    Args:
        model: the network.
        describe: of the data: "sources", "rate".
        loss: minus the "si_snr" (scale-invariant) or the "snr" of the best permutation is minimised.
        ceiling: dB above which a mixture is good enough and gives no gradient.
        objective: "pit", or "mixit": two mixtures are added, and the estimates have to add up to each; signals are not looked at.
        sdr: log the SDR (a filter of 512 taps is forgiven) at the end too.
        perceptual: log PESQ and STOI at the end, before and after, as far as they are installed.
        worst: mixtures in the picture of the worst answers; 0: none.
        auxiliary: see Task.
    """

    monitor: ClassVar[tuple[str, str]] = ("val/si_snr_improvement", "max")

    @checked(group="task")
    def __init__(
        self,
        model: nn.Module,
        describe: Mapping[str, Any],
        loss: Literal["si_snr", "snr"] = "si_snr",
        ceiling: Positive = 40.0,
        objective: Literal["pit", "mixit"] = "pit",
        sdr: bool = False,
        perceptual: bool = False,
        worst: Count = 4,
        auxiliary: Weight = 1.0,
    ):
        super().__init__(model, describe, auxiliary)
        if "sources" not in self.describe:
            raise UserError("these data are no mixtures", given=f"data={describe.get('name')}", do="task=tagging")
        self.ratio, self.ceiling, self.objective, self.sdr, self.count = RATIOS[loss], ceiling, objective, sdr, worst
        self.rate, self.perceptual = self.describe["rate"], perceptual
        self.worst: list[dict[str, Any]] = []
        self.seen = 0

    def step(self, batch: tuple[Tensor, Tensor], stage: str) -> tuple[Tensor, dict[str, Tensor]]:
        mixture, sources = batch
        if stage == "train" and self.objective == "mixit":
            return self.mixit(mixture), {}
        estimates = self.model(mixture).float()
        if stage == "train":
            found, _ = best(estimates, sources, self.ratio)
            return -found.clamp(max=self.ceiling).mean(), {}
        return self.judged(mixture, sources, estimates, stage)

    def judged(
        self, mixture: Tensor, sources: Tensor, estimates: Tensor, stage: str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of estimates in "val" or "test", and what is logged of them."""
        found, order = best(estimates, sources, scale_invariant_signal_noise_ratio)
        before = unseparated(mixture, sources, scale_invariant_signal_noise_ratio)
        metrics = {"si_snr_improvement": (found - before).mean()}
        if stage == "test":
            metrics |= self._tested(mixture, sources, pit_permutate(estimates, order), found - before, before, order)
        return -found.clamp(max=self.ceiling).mean(), metrics

    def _tested(
        self, mixture: Tensor, sources: Tensor, estimates: Tensor, gained: Tensor, before: Tensor, order: Tensor
    ) -> dict[str, Tensor]:
        """What is logged at the end alone, and the mixtures that went worst, kept."""
        oracle = scale_invariant_signal_noise_ratio(ideal(mixture, sources), sources).mean(1)
        metrics = {"oracle_improvement": (oracle - before).mean(), "mixture_si_snr": before.mean()}
        if self.sdr:
            sdr = signal_distortion_ratio(estimates, sources).mean(1)
            metrics["sdr_improvement"] = (sdr - unseparated(mixture, sources, signal_distortion_ratio)).mean()
        for name in usable(self.rate) if self.perceptual else ():
            unchanged = mixture[:, None].expand_as(sources)
            for each, signals in ((name, estimates), (f"mixture_{name}", unchanged)):
                metrics[each] = scores(name, signals.flatten(0, 1), sources.flatten(0, 1), self.rate).nanmean()
        self.seen += len(mixture)
        for number, gain in enumerate(gained.tolist()):
            kept = [each[number].cpu() for each in (mixture, sources, estimates, order)]
            self.worst.append(dict(zip(("mixture", "sources", "estimates", "order"), kept, strict=True), gained=gain))
        self.worst = sorted(self.worst, key=lambda entry: entry["gained"])[: self.count]
        return metrics

    def mixit(self, mixture: Tensor) -> Tensor:
        """The loss of two mixtures added, from mixtures (batch, time), each with the one half a batch further on."""
        half = len(mixture) // 2
        if half == 0:
            raise UserError("MixIT adds two mixtures", given="a batch of one", do="data.batch_size=2")
        pairs = torch.stack([mixture[:half], mixture[half : 2 * half]], 1)
        estimates = self.model(pairs.sum(1)).float()
        sources = estimates.shape[1]
        ways = torch.tensor(list(product((0.0, 1.0), repeat=sources)), device=mixture.device)
        sums = torch.einsum("ws,bst->bwt", ways, estimates)
        added = torch.stack([sums, sums.flip(1)], 2)  # the complement of a way is the one as far from the other end
        found = self.ratio(added, pairs[:, None].expand_as(added)).mean(2).amax(1)
        return -found.clamp(max=self.ceiling).mean()

    def on_test_start(self) -> None:
        self.worst, self.seen = [], 0

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        if stage == "train":
            return {"first_batch": self.draw_batch(*batch)}
        return {"worst_predictions": self.draw_worst()} if stage == "test" and self.worst else {}

    def draw_batch(self, mixture: Tensor, sources: Tensor) -> Figure:
        """Draws the first mixtures of a batch and what is in them."""
        rows = [
            [("mixture", mixture[number]), *zip(self.names("is"), sources[number], strict=True)]
            for number in range(min(FIRST, len(mixture)))
        ]
        return draw_rows(rows, self.rate, f"First training batch: {len(rows)} of {len(mixture)} mixtures")

    def draw_worst(self) -> Figure:
        """Draws the test mixtures that gained least: the mixture, the estimates, the truth."""
        rows = []
        for entry in self.worst:
            said = [
                f"{name}, output {number + 1}" for name, number in zip(self.names("said"), entry["order"], strict=True)
            ]
            said[0] += f" ({entry['gained']:+.1f} dB)"
            rows.append([("mixture", entry["mixture"]), *zip(said, entry["estimates"], strict=True)])
            rows[-1] += zip(self.names("is"), entry["sources"], strict=True)
        return draw_rows(rows, self.rate, f"Worst of {self.seen:,} test mixtures: SI-SNR gained, order of the outputs")

    def names(self, what: str) -> list[str]:
        """Titles of the sources."""
        return [f"{what} {name}" for name in self.describe["names"]]


def best(estimates: Tensor, sources: Tensor, ratio: Ratio) -> tuple[Tensor, Tensor]:
    """The mean ratio in dB of the best permutation, (batch,), and for each source its estimate's number, (batch, sources)."""
    if sources.shape[1] == 1:
        order = torch.zeros(len(sources), 1, dtype=torch.long, device=sources.device)
        return ratio(estimates, sources).mean(1), order
    return permutation_invariant_training(estimates, sources, ratio, mode="speaker-wise", eval_func="max")


def unseparated(mixture: Tensor, sources: Tensor, ratio: Ratio) -> Tensor:
    """The mean ratio in dB of the mixture itself to its sources, (batch,)."""
    return ratio(mixture[:, None].expand_as(sources), sources).mean(1)


def ideal(mixture: Tensor, sources: Tensor, n_fft: int = 256) -> Tensor:
    """What masks that know all powers make of a mixture (the Wiener-like mask), (batch, sources, time): a bound.

    What a mixture holds beside its sources is noise that the masks know too.
    """
    noise = mixture - sources.sum(1)
    parts = torch.cat([sources, noise[:, None]], 1)
    powers = spectrum(parts.flatten(0, 1), n_fft, n_fft // 4).abs().square().unflatten(0, parts.shape[:2])
    masks = (powers / powers.sum(1, keepdim=True).clamp(min=1e-12))[:, :-1]
    masked = spectrum(mixture, n_fft, n_fft // 4)[:, None] * masks
    return waveform(masked.flatten(0, 1), n_fft, n_fft // 4, mixture.shape[1]).view_as(sources)
