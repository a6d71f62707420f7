"""Mamba-TasNet (arXiv 2407.09732): a learned basis, a stack of Mambas that says a mask per speaker, and the basis back.

Names are those of the authors' checkpoints: encoder, masknet, decoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError
from ....core.initialisation import scale_output_projections
from ....core.ranges import Depth, Positive, Size, checked
from ....core.scans import Scan
from .blocks import Backend, MambaStack, MixerName, as_scan, sized

EPS = 1e-8
SIZES = {
    "micro": {"channels": 64, "depth": 4, "kernel": 64},
    "xs": {"channels": 128, "depth": 16, "kernel": 16},
    "s": {"channels": 256, "depth": 16, "kernel": 16},
    "m": {"channels": 256, "depth": 32, "kernel": 16},
    "l": {"channels": 512, "depth": 32, "kernel": 16},
}


class Encoder(nn.Module):
    """A learned basis and a ReLU: (batch, time) to (batch, channels, frames)."""

    def __init__(self, channels: int, kernel: int, stride: int):
        super().__init__()
        self.conv1d = nn.Conv1d(1, channels, kernel, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv1d(x[:, None]))


class ChannelwiseNorm(nn.Module):
    """Layer norm over the channels of each frame; (batch, frames, channels)."""

    def __init__(self, channels: int):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(1, 1, channels)), nn.Parameter(torch.zeros(1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.gamma.flatten(), self.beta.flatten(), EPS)


class Pointwise(nn.Module):
    """A linear layer over channels, kept as the convolution of width 1 that checkpoints hold; (batch, frames, channels)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.conv.weight.squeeze(-1))


class MaskNet(nn.Module):
    """A mask per speaker from the encoded mixture; arguments as of MambaTasNet and MambaStack."""

    def __init__(self, channels: int, sources: int, depth: int, scan: str | Scan, **options: Any):
        super().__init__()
        self.sources = sources
        self.layer_norm, self.bottleneck_conv1x1 = ChannelwiseNorm(channels), Pointwise(channels, channels)
        self.mamba_net = MambaStack(channels, depth, scan, **options)
        self.mask_conv1x1 = Pointwise(channels, sources * channels)
        scale_output_projections(self.mamba_net, depth)

    def forward(self, x: Tensor, states: list | None = None) -> tuple[Tensor, list]:
        """(batch, channels, frames) to masks (batch, sources, channels, frames), and states to go on with."""
        x, states = self.mamba_net(self.bottleneck_conv1x1(self.layer_norm(x.transpose(1, 2))), states)
        masks = self.mask_conv1x1(x).unflatten(-1, (self.sources, -1))
        return F.relu(masks.permute(0, 2, 3, 1)), states


class StreamState(NamedTuple):
    """What a causal model keeps between two pieces of a recording.

    left: (batch, samples) that belong to frames yet to come. tail: (batch, sources, kernel - stride), what the last frame gives to
    samples yet to be said. states: what the masks go on from; None before the first frame. owed: samples heard and not yet said.
    """

    left: Tensor
    tail: Tensor
    states: Any
    owed: int


class TasNet(nn.Module):
    """What encoder-mask-decoder models share: masks over a learned basis, for recordings of any length, whole or piece by piece.

    Args:
        channels, kernel: of the basis, whose frames overlap by half.
        sources: signals to be found in a mixture. samples: of the recordings it is meant for.

    A subclass sets `masknet`: (batch, channels, frames) and states to masks (batch, sources, channels, frames) and states.

    Attributes:
        causal: whether `stream` may be called. latency: samples that it waits for.
    """

    masknet: nn.Module
    causal = False

    def __init__(self, channels: int, kernel: int, sources: int, samples: int):
        super().__init__()
        if kernel % 2:
            raise UserError("frames overlap by half, so a kernel is even", given=f"model.kernel={kernel}")
        self.sources, self.kernel, self.stride, self.samples = sources, kernel, kernel // 2, samples
        self.encoder = Encoder(channels, kernel, self.stride)
        self.decoder = nn.ConvTranspose1d(channels, 1, kernel, self.stride, bias=False)

    def forward(self, mixture: Tensor) -> Tensor:
        """(batch, time) to (batch, sources, time)."""
        encoded = self.encoder(self._padded(mixture))
        masked = encoded[:, None] * self.masknet(encoded)[0]
        return self._decode(masked)[..., : mixture.shape[-1]]

    def masks(self, mixture: Tensor) -> Tensor:
        """The masks of a mixture (batch, time): (batch, sources, channels, frames)."""
        return self.masknet(self.encoder(self._padded(mixture)))[0]

    def go_on(self, encoded: Tensor, states: Any, last: bool) -> tuple[Tensor, Any]:
        """The next frames (batch, channels, frames), perhaps none, times their masks, and states to go on with.

        Frames may be kept back until others have come; with `last` all are answered.
        """
        if encoded.shape[-1] == 0:
            return encoded[:, None].expand(-1, self.sources, -1, -1), states
        masks, states = self.masknet(encoded, states)
        return encoded[:, None] * masks, states

    @property
    def latency(self) -> int:
        """Samples between one that comes in and the moment at which `stream` says what it holds."""
        return self.kernel

    def stream(
        self, samples: Tensor, state: StreamState | None = None, last: bool = False
    ) -> tuple[Tensor, StreamState]:
        """The next piece of a recording: what can be said of it, and the state for the piece after.

        All pieces together are what `forward` says of the whole.

        Args:
            samples: (batch, time), any number of samples, also none.
            last: nothing follows; what is still owed is said.

        Returns:
            (batch, sources, time'), at most `latency` samples behind.

        Raises:
            UserError: the model reads from both ends.
        """
        if not self.causal:
            raise UserError(
                "only a causal model can go on", given="a scan that sees the future", do="train with scan=raster"
            )
        overlap = self.kernel - self.stride
        if state is None:
            state = StreamState(samples[:, :0], samples.new_zeros(len(samples), self.sources, overlap), None, 0)
        owed = state.owed + samples.shape[1]
        samples = torch.cat([state.left, samples], 1)
        if last and not (samples.shape[1] == overlap and state.states is not None):
            samples = self._padded(samples)
        frames = max(0, (samples.shape[1] - self.kernel) // self.stride + 1)
        if frames:
            encoded = self.encoder(samples[:, : (frames - 1) * self.stride + self.kernel])
        else:
            encoded = samples.new_zeros(len(samples), self.encoder.conv1d.out_channels, 0)
        masked, states = self.go_on(encoded, state.states, last)
        tail, said = state.tail, samples.new_zeros(len(samples), self.sources, 0)
        if masked.shape[-1]:
            said = self._decode(masked)
            said = torch.cat([said[..., :overlap] + tail, said[..., overlap:]], -1)
            said, tail = said.split((said.shape[-1] - overlap, overlap), -1)
        if last:
            said = torch.cat([said, tail], -1)[..., :owed]
        return said, StreamState(samples[:, frames * self.stride :], tail, states, owed - said.shape[-1])

    def _padded(self, samples: Tensor) -> Tensor:
        """With zeros up to a whole number of frames."""
        steps = max(0, math.ceil((samples.shape[-1] - self.kernel) / self.stride))
        return F.pad(samples, (0, self.kernel + steps * self.stride - samples.shape[-1]))

    def _decode(self, masked: Tensor) -> Tensor:
        return self.decoder(masked.flatten(0, 1)).view(masked.shape[0], self.sources, -1)

    @property
    def tokens(self) -> int:
        """Frames of a recording of the data's length."""
        return self.frames(self.samples)

    def frames(self, samples: int) -> int:
        """Frames of a recording of so many samples."""
        return 1 + max(0, math.ceil((samples - self.kernel) / self.stride))


class MambaTasNet(TasNet):
    """Mamba-TasNet over any mixer and scan of the core; scan="raster" is causal.

    Args:
        sources: speakers. channels: of basis and layers. depth: layers.
        kernel: samples of a frame.
        scan: the way over the frames; "bidirectional" is the paper's.
        mixer, d_state, expand: of the layers. backend: of the operators.
        samples: see TasNet.
    """

    @checked
    def __init__(
        self,
        sources: Size = 2,
        channels: Size = 128,
        depth: Depth = 16,
        kernel: Size = 16,
        scan: str | Scan = "bidirectional",
        mixer: MixerName = "mamba",
        d_state: Size = 16,
        expand: Positive = 2,
        backend: Backend = "auto",
        samples: Size = 8000,
    ):
        super().__init__(channels, kernel, sources, samples)
        options = {"mixer": mixer, "d_state": d_state, "expand": expand, "backend": backend}
        self.masknet = MaskNet(channels, sources, depth, scan, **options)
        self.causal = as_scan(scan).is_raster
        self.walks = [(as_scan(scan), (self.tokens,))]

    def flops(self, batch: int = 1) -> int:
        """Floating point operations of recordings of `samples` samples; a multiply-add is two."""
        frames, channels = self.tokens, self.encoder.conv1d.out_channels
        basis = 2 * frames * channels * self.kernel * (1 + self.sources)
        linear = 2 * frames * channels * channels * (1 + self.sources)
        return batch * (basis + linear + self.masknet.mamba_net.flops(frames))


@checked(group="model")
def build(
    describe: Mapping[str, Any],
    scan: str | Scan = "bidirectional",
    size: Literal["micro", "xs", "s", "m", "l"] | None = None,
    channels: Size | None = None,
    depth: Depth | None = None,
    kernel: Size | None = None,
    mixer: MixerName = "mamba",
    d_state: Size = 16,
    expand: Positive = 2,
    backend: Backend = "auto",
) -> MambaTasNet:
    """A Mamba-TasNet for a data set.

    Args:
        describe: sources, samples and model_size of the data set.
        size: a row of SIZES; None: what the data set asks for. channels, depth, kernel: other than the size's.
    """
    options = sized(SIZES, size or describe.get("model_size", "xs"), channels=channels, depth=depth, kernel=kernel)
    options |= {"mixer": mixer, "d_state": d_state, "expand": expand, "scan": scan, "backend": backend}
    return MambaTasNet(**sources_of(describe), **options)


def sources_of(describe: Mapping[str, Any]) -> dict[str, int]:
    """How many signals a mixture of the data holds, and its samples.

    Raises:
        UserError: the data are no mixtures.
    """
    if "sources" not in describe:
        raise UserError(
            "this model takes mixtures apart, and these data are none", given=f"data={describe.get('name')}",
            do="data=voices, or a model of tagging like model=aum",
        )  # fmt: skip
    return {"sources": describe["sources"], "samples": max(1, describe.get("samples", 8000))}
