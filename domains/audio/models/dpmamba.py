"""DPMamba (arXiv 2403.18257): masks from Mambas within chunks of frames and across the chunks, in turn.

Names are those of the authors' checkpoints (SpeechBrain's Dual_Path_Model).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError
from ....core.ranges import Depth, Positive, Size, checked
from ....core.scans import Scan
from .blocks import Backend, MambaStack, MixerName, sized
from .tasnet import TasNet, sources_of

EPS = 1e-8
SIZES = {
    "micro": {"channels": 48, "depth": 2, "kernel": 32, "chunk": 40, "skip": False},
    "xs": {"channels": 128, "depth": 8, "kernel": 16, "chunk": 250, "skip": False},
    "s": {"channels": 256, "depth": 8, "kernel": 16, "chunk": 250, "skip": False},
    "m": {"channels": 256, "depth": 16, "kernel": 16, "chunk": 250, "skip": True},
    "l": {"channels": 512, "depth": 16, "kernel": 16, "chunk": 250, "skip": True},
}


def global_norm(channels: int) -> nn.GroupNorm:
    """Over channels and time together."""
    return nn.GroupNorm(1, channels, EPS)


class DualBlock(nn.Module):
    """Within each chunk, then across the chunks; (batch, channels, chunk, chunks).

    Args:
        within, across: the scans. skip: add what comes in to what is said within the chunks. options: see MambaStack.
    """

    def __init__(self, channels: int, within: str | Scan, across: str | Scan, skip: bool, **options: Any):
        super().__init__()
        self.skip = skip
        self.intra_mdl, self.inter_mdl = (MambaStack(channels, 1, scan, **options) for scan in (within, across))
        self.intra_norm, self.inter_norm = global_norm(channels), global_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        lines = x.permute(0, 3, 2, 1)  # (batch, chunks, chunk, channels)
        within = self.intra_mdl(lines.flatten(0, 1))[0].view_as(lines).permute(0, 3, 2, 1)
        within = self.intra_norm(within.contiguous()) + (x if self.skip else 0)
        lines = within.permute(0, 2, 3, 1)  # (batch, chunk, chunks, channels)
        across = self.inter_mdl(lines.flatten(0, 1))[0].view_as(lines).permute(0, 3, 1, 2)
        return self.inter_norm(across.contiguous()) + within


class DualPathNet(nn.Module):
    """A mask per speaker from the encoded mixture; arguments as of DPMamba."""

    def __init__(self, channels: int, sources: int, depth: int, chunk: int, **options: Any):
        super().__init__()
        self.sources, self.chunk = sources, chunk
        self.norm, self.conv1d = global_norm(channels), nn.Conv1d(channels, channels, 1, bias=False)
        self.dual_mdl = nn.ModuleList(DualBlock(channels, **options) for _ in range(depth))
        self.prelu, self.conv2d = nn.PReLU(), nn.Conv2d(channels, sources * channels, 1)
        self.output = nn.Sequential(nn.Conv1d(channels, channels, 1), nn.Tanh())
        self.output_gate = nn.Sequential(nn.Conv1d(channels, channels, 1), nn.Sigmoid())
        self.end_conv1x1 = nn.Conv1d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor, states: None = None) -> tuple[Tensor, None]:
        """(batch, channels, frames) to masks (batch, sources, channels, frames), and no state."""
        frames = x.shape[-1]
        x = chunked(self.conv1d(self.norm(x)), self.chunk)
        for block in self.dual_mdl:
            x = block(x)
        x = self.conv2d(self.prelu(x)).unflatten(1, (self.sources, -1)).flatten(0, 1)
        x = added(x, frames)
        x = self.end_conv1x1(self.output(x) * self.output_gate(x))
        return F.relu(x).unflatten(0, (-1, self.sources)), None


def chunked(x: Tensor, chunk: int) -> Tensor:
    """(batch, channels, frames) to (batch, channels, chunk, chunks): chunks that overlap by half, with silence at both ends."""
    half = chunk // 2
    rest = chunk - (half + x.shape[-1] % chunk) % chunk
    return F.pad(x, (half, rest + half)).unfold(2, chunk, half).transpose(2, 3)


def added(x: Tensor, frames: int) -> Tensor:
    """The inverse of `chunked` but for a factor of two: chunks (batch, channels, chunk, chunks) laid over one another."""
    half = x.shape[2] // 2
    x = x.unflatten(2, (2, half)).permute(0, 1, 2, 4, 3)  # (batch, channels, 2, chunks, half)
    return (x[:, :, 0, 1:] + x[:, :, 1, :-1]).flatten(2)[..., :frames]


class DPMamba(TasNet):
    """DPMamba over any mixer and scan of the core.

    Args:
        sources: speakers. channels: of basis and layers. depth: pairs of layers.
        kernel: samples of a frame. chunk: frames of a chunk, even. skip: see DualBlock.
        within, across: scans within the chunks and across them; "bidirectional" is the paper's.
        mixer, d_state, expand: of the layers. backend: of the operators. samples: see TasNet.
    """

    @checked
    def __init__(
        self,
        sources: Size = 2,
        channels: Size = 128,
        depth: Depth = 8,
        kernel: Size = 16,
        chunk: Size = 250,
        skip: bool = False,
        within: str | Scan = "bidirectional",
        across: str | Scan = "bidirectional",
        mixer: MixerName = "mamba",
        d_state: Size = 16,
        expand: Positive = 2,
        backend: Backend = "auto",
        samples: Size = 8000,
    ):
        super().__init__(channels, kernel, sources, samples)
        if chunk % 2:
            raise UserError("chunks overlap by half, so their length is even", given=f"model.chunk={chunk}")
        options = {"mixer": mixer, "d_state": d_state, "expand": expand, "backend": backend}
        self.masknet = DualPathNet(channels, sources, depth, chunk, within=within, across=across, skip=skip, **options)

    def flops(self, batch: int = 1) -> int:
        """Floating point operations of recordings of `samples` samples; a multiply-add is two."""
        frames, channels, chunk = self.tokens, self.encoder.conv1d.out_channels, self.masknet.chunk
        chunks = 2 * (frames // chunk) + 2
        basis = 2 * frames * channels * self.kernel * (1 + self.sources)
        linear = 2 * frames * channels * channels * (1 + 5 * self.sources)
        layers = sum(
            chunks * block.intra_mdl.flops(chunk) + chunk * block.inter_mdl.flops(chunks)
            for block in self.masknet.dual_mdl
        )
        return batch * (basis + linear + layers)


@checked(group="model")
def build(
    describe: Mapping[str, Any],
    scan: str | Scan = "bidirectional",
    size: Literal["micro", "xs", "s", "m", "l"] | None = None,
    along: Literal["both", "within", "across"] = "both",
    channels: Size | None = None,
    depth: Depth | None = None,
    kernel: Size | None = None,
    chunk: Size | None = None,
    mixer: MixerName = "mamba",
    d_state: Size = 16,
    backend: Backend = "auto",
) -> DPMamba:
    """A DPMamba for a data set.

    Args:
        describe: sources, samples and model_size of the data set.
        scan: within chunks, across them or both, by `along`; the others read in both directions.
        size: a row of SIZES; None: what the data set asks for. channels, depth, kernel, chunk: other than the size's.
    """
    options = sized(
        SIZES, size or describe.get("model_size", "xs"), channels=channels, depth=depth, kernel=kernel, chunk=chunk
    )
    scans = {name: scan if along in ("both", name) else "bidirectional" for name in ("within", "across")}
    return DPMamba(**sources_of(describe), **options, **scans, mixer=mixer, d_state=d_state, backend=backend)
