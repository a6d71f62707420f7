"""ConMamba (arXiv 2407.09732): Conformer (arXiv 2005.08100) with a Mamba that reads both ways in the place of its attention.

Names are those of the authors' code. Here the encoder names sounds: it reads a log-mel spectrogram, a quarter of its frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError
from ....core.ranges import Count, Depth, Positive, Rate, Size, checked
from ....core.scans import Scan
from .aum import classes_of, front_of
from .blocks import Backend, MixerName, as_scan, mixing, sized

SIZES = {
    "micro": {"channels": 48, "depth": 3, "inner": 96, "kernel": 15, "mels": 40},
    "small": {"channels": 144, "depth": 12, "inner": 1024, "kernel": 31, "mels": 80},
    "large": {"channels": 512, "depth": 12, "inner": 2048, "kernel": 31, "mels": 80},
}


class Norm(nn.Module):
    """Layer norm, kept under the name that checkpoints hold it by."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class FeedForward(nn.Module):
    """Two linear layers with a swish between them; (batch, length, channels)."""

    def __init__(self, channels: int, inner: int, dropout: float):
        super().__init__()
        self.ffn = nn.Sequential(nn.Linear(channels, inner), nn.SiLU(), nn.Dropout(dropout), nn.Linear(inner, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn(x)


class ConvolutionModule(nn.Module):
    """Norm, gate, convolution of each channel, norm, swish, linear layer; (batch, length, channels)."""

    def __init__(self, channels: int, kernel: int, dropout: float, causal: bool):
        super().__init__()
        self.before, self.behind = (kernel - 1, 0) if causal else ((kernel - 1) // 2, (kernel - 1) // 2)
        self.layer_norm = nn.LayerNorm(channels)
        self.bottleneck = nn.Sequential(nn.Conv1d(channels, 2 * channels, 1), nn.GLU(1))
        self.conv = nn.Conv1d(channels, channels, kernel, groups=channels)
        self.after_conv = nn.Sequential(
            nn.LayerNorm(channels), nn.SiLU(), nn.Linear(channels, channels), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.bottleneck(self.layer_norm(x).transpose(1, 2))
        return self.after_conv(self.conv(F.pad(x, (self.before, self.behind))).transpose(1, 2))


class EncoderLayer(nn.Module):
    """Half a feed-forward, Mamba, convolution and half a feed-forward, each added to what comes in, and a norm."""

    def __init__(
        self, channels: int, inner: int, kernel: int, dropout: float, causal: bool, scan: Scan, **options: Any
    ):
        super().__init__()
        self.mamba = mixing(channels, scan, **options)
        self.convolution_module = ConvolutionModule(channels, kernel, dropout, causal)
        self.ffn_module1, self.ffn_module2 = (
            nn.Sequential(nn.LayerNorm(channels), FeedForward(channels, inner, dropout), nn.Dropout(dropout))
            for _ in range(2)
        )
        self.norm1, self.norm2, self.drop = Norm(channels), Norm(channels), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.ffn_module1(x)
        x = x + self.drop(self.mamba(self.norm1(x))[0])
        x = x + self.convolution_module(x)
        return self.norm2(x + 0.5 * self.ffn_module2(x))


class ConMambaEncoder(nn.Module):
    """ConMamba's encoder over any mixer and scan of the core; (batch, length, channels) to the same.

    Args:
        channels, depth: width and layers. inner: width within the feed-forwards. kernel: of the convolutions, odd.
        dropout: share of activations dropped in training.
        scan: the way over the tokens; "bidirectional" is the paper's. With "raster" the convolutions are causal too.
        mixer, d_state, expand: of the layers. backend: of the operators.
    """

    @checked
    def __init__(
        self,
        channels: Size = 144,
        depth: Depth = 12,
        inner: Size = 1024,
        kernel: Size = 31,
        dropout: Rate = 0.1,
        scan: str | Scan = "bidirectional",
        mixer: MixerName = "mamba",
        d_state: Size = 16,
        expand: Positive = 2,
        backend: Backend = "auto",
    ):
        super().__init__()
        if kernel % 2 == 0:
            raise UserError("a convolution as wide on both sides has an odd kernel", given=f"kernel={kernel}")
        self.scan = scan = as_scan(scan)
        self.causal = scan.is_raster
        options = {"mixer": mixer, "d_state": d_state, "expand": expand, "backend": backend}
        self.layers = nn.ModuleList(
            EncoderLayer(channels, inner, kernel, dropout, self.causal, scan.layer(index), **options)
            for index in range(depth)
        )
        self.norm = Norm(channels, 1e-6)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    def flops(self, length: int) -> int:
        """Of one sequence; a multiply-add is two."""
        total = 0
        for layer in self.layers:
            linear = sum(each.weight.numel() for each in layer.modules() if isinstance(each, nn.Linear | nn.Conv1d))
            inside = sum(
                each.weight.numel() for each in layer.mamba.modules() if isinstance(each, nn.Linear | nn.Conv1d)
            )
            total += layer.mamba.flops((length,)) + 2 * length * (linear - inside)
        return total


class ConMamba(nn.Module):
    """Names of sounds from the mean over ConMamba's tokens.

    Args:
        num_classes: outputs. encoder: over (batch, length, channels). front: makes spectrograms (batch, frames, mels) of sounds.
        channels, mels, frames: of the tokens, and of a spectrogram.
    """

    def __init__(
        self, num_classes: int, encoder: ConMambaEncoder, front: nn.Module, channels: int, mels: int, frames: int
    ):
        super().__init__()
        # Conformer's: two convolutions over frames and mels, each of which halves both
        self.sampling = nn.Sequential(
            nn.Conv2d(1, channels, 3, 2, 1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, 2, 1, groups=channels),
            nn.SiLU(),
        )
        self.linear = nn.Linear(channels * -(-mels // 4), channels)
        self.encoder, self.front, self.tokens = encoder, front, -(-frames // 4)
        self.walks = [(encoder.scan, (self.tokens,))]
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Sounds (batch, time), or spectrograms (batch, frames, mels), to class scores (batch, num_classes)."""
        if x.dim() == 2:
            x = self.front(x).to(self.head.weight.dtype)
        x = self.linear(self.sampling(x[:, None]).transpose(1, 2).flatten(2))
        return self.head(self.encoder(x).mean(1))

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def flops(self, batch: int = 1) -> int:
        """Floating point operations of a sound, but for the first two convolutions; a multiply-add is two."""
        return batch * (self.encoder.flops(self.tokens) + 2 * self.tokens * self.linear.weight.numel())


@checked(group="model")
def build(
    describe: Mapping[str, Any],
    scan: str | Scan = "bidirectional",
    size: Literal["micro", "small", "large"] | None = None,
    channels: Size | None = None,
    depth: Depth | None = None,
    inner: Size | None = None,
    kernel: Size | None = None,
    mels: Size | None = None,
    dropout: Rate = 0.1,
    mixer: MixerName = "mamba",
    d_state: Size = 16,
    frequency_mask: Count = 8,
    time_mask: Count = 10,
    backend: Backend = "auto",
) -> ConMamba:
    """A ConMamba that names the sounds of a data set.

    Args:
        describe: classes (or num_classes), samples, rate and model_size of the data set.
        size: a row of SIZES; None: what the data set asks for. channels, depth, inner, kernel, mels: other than the size's.
        frequency_mask, time_mask: the most mels and frames that are hidden in training (SpecAugment); 0: none.
    """
    chosen = {"channels": channels, "depth": depth, "inner": inner, "kernel": kernel, "mels": mels}
    options = sized(SIZES, size or describe.get("model_size", "small"), **chosen)
    mels = options.pop("mels")
    classes = classes_of(describe)
    front, frames = front_of(describe, mels, frequency_mask, time_mask)
    encoder = ConMambaEncoder(**options, dropout=dropout, scan=scan, mixer=mixer, d_state=d_state, backend=backend)
    return ConMamba(classes, encoder, front, options["channels"], mels, frames)
