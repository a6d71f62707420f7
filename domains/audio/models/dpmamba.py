"""DPMamba (arXiv 2403.18257): masks from Mambas within chunks of frames and across the chunks, in turn.

Names are those of the authors' checkpoints (SpeechBrain's Dual_Path_Model).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError
from ....core.ranges import Depth, Positive, Size, checked
from ....core.scans import Scan
from .blocks import Backend, MambaStack, MixerName, as_scan, sized
from .tasnet import TasNet, sources_of

EPS = 1e-8
Norm = Literal["global", "channel"]
SIZES = {
    "micro": {"channels": 48, "depth": 2, "kernel": 32, "chunk": 40, "skip": False},
    "xs": {"channels": 128, "depth": 8, "kernel": 16, "chunk": 250, "skip": False},
    "s": {"channels": 256, "depth": 8, "kernel": 16, "chunk": 250, "skip": False},
    "m": {"channels": 256, "depth": 16, "kernel": 16, "chunk": 250, "skip": True},
    "l": {"channels": 512, "depth": 16, "kernel": 16, "chunk": 250, "skip": True},
}


class ChannelNorm(nn.LayerNorm):
    """Over the channels of each frame alone; (batch, channels, …)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def make_norm(kind: Norm, channels: int) -> nn.Module:
    """ "global": over channels and time together. "channel": over the channels of each frame, as a stream needs it."""
    return nn.GroupNorm(1, channels, EPS) if kind == "global" else ChannelNorm(channels, EPS)


class DualBlock(nn.Module):
    """Within each chunk, then across the chunks; (batch, channels, chunk, chunks).

    Args:
        within, across: the scans. skip: add what comes in to what is said within the chunks. norm: see make_norm.
        options: see MambaStack.
    """

    def __init__(self, channels: int, within: str | Scan, across: str | Scan, skip: bool, norm: Norm, **options: Any):
        super().__init__()
        self.skip = skip
        self.intra_mdl, self.inter_mdl = (MambaStack(channels, 1, scan, **options) for scan in (within, across))
        self.intra_norm, self.inter_norm = make_norm(norm, channels), make_norm(norm, channels)

    def forward(self, x: Tensor, states: list | None = None) -> tuple[Tensor, list]:
        """states: from the chunks before these; returns those to go on with."""
        lines = x.permute(0, 3, 2, 1)  # (batch, chunks, chunk, channels)
        within = self.intra_mdl(lines.flatten(0, 1))[0].view_as(lines).permute(0, 3, 2, 1)
        within = self.intra_norm(within.contiguous()) + (x if self.skip else 0)
        lines = within.permute(0, 2, 3, 1)  # (batch, chunk, chunks, channels)
        across, states = self.inter_mdl(lines.flatten(0, 1), states)
        return self.inter_norm(across.view_as(lines).permute(0, 3, 1, 2).contiguous()) + within, states


class DualState(NamedTuple):
    """What is kept between two pieces of a stream of frames.

    waiting: (batch, channels, frames) that have no mask yet. ahead: (batch, channels, frames) of which the next chunks are made.
    behind: (batch * sources, channels, half), the second half of the last chunk; None before the first. states: of each block.
    """

    waiting: Tensor
    ahead: Tensor
    behind: Tensor | None
    states: list


class DualPathNet(nn.Module):
    """A mask per speaker from the encoded mixture; arguments as of DPMamba."""

    def __init__(self, channels: int, sources: int, depth: int, chunk: int, norm: Norm, **options: Any):
        super().__init__()
        self.sources, self.chunk = sources, chunk
        self.norm, self.conv1d = make_norm(norm, channels), nn.Conv1d(channels, channels, 1, bias=False)
        self.dual_mdl = nn.ModuleList(DualBlock(channels, norm=norm, **options) for _ in range(depth))
        self.prelu, self.conv2d = nn.PReLU(), nn.Conv2d(channels, sources * channels, 1)
        self.output = nn.Sequential(nn.Conv1d(channels, channels, 1), nn.Tanh())
        self.output_gate = nn.Sequential(nn.Conv1d(channels, channels, 1), nn.Sigmoid())
        self.end_conv1x1 = nn.Conv1d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """(batch, channels, frames) to masks (batch, sources, channels, frames), and no state."""
        chunks, _ = self._blocks(chunked(self.conv1d(self.norm(x)), self.chunk), None)
        return self._masks(added(chunks, x.shape[-1])), None

    def go_on(self, x: Tensor, state: DualState | None, last: bool) -> tuple[Tensor, DualState]:
        """Frames (batch, channels, frames), as far as they can be answered, times their masks, and the state after them."""
        half = self.chunk // 2
        if state is None:
            state = DualState(x[..., :0], x.new_zeros(*x.shape[:2], half), None, [None] * len(self.dual_mdl))
        waiting = torch.cat([state.waiting, x], -1)
        ahead = torch.cat([state.ahead, self.conv1d(self.norm(x))], -1) if x.shape[-1] else state.ahead
        if last:
            chunks = -(-waiting.shape[-1] // half) + (state.behind is None)
            ahead = F.pad(ahead, (0, max(0, (chunks + 1) * half - ahead.shape[-1])))
        chunks = ahead.shape[-1] // half - 1
        none = waiting[:, None, :, :0].expand(-1, self.sources, -1, -1)
        if chunks < 1:
            return none, DualState(waiting, ahead, state.behind, state.states)
        found, states = self._blocks(
            ahead[..., : (chunks + 1) * half].unfold(2, self.chunk, half).transpose(2, 3), state.states
        )
        behind = found[:, :, half:, -1]
        if state.behind is not None:
            before = torch.cat([torch.zeros_like(state.behind), state.behind], 2)
            found = torch.cat([before[..., None], found], 3)
        count = min(waiting.shape[-1], half * (found.shape[-1] - 1))
        masked = waiting[:, None, :, :count] * self._masks(added(found, count)) if count else none
        return masked, DualState(waiting[..., count:], ahead[..., chunks * half :], behind, states)

    def _blocks(self, x: Tensor, states: list | None) -> tuple[Tensor, list]:
        """Chunks (batch, channels, chunk, chunks) to (batch * sources, channels, chunk, chunks), and the blocks' states."""
        after = []
        for block, state in zip(self.dual_mdl, states or [None] * len(self.dual_mdl), strict=True):
            x, state = block(x, state)
            after.append(state)
        return self.conv2d(self.prelu(x)).unflatten(1, (self.sources, -1)).flatten(0, 1), after

    def _masks(self, x: Tensor) -> Tensor:
        """(batch * sources, channels, frames) to (batch, sources, channels, frames)."""
        return F.relu(self.end_conv1x1(self.output(x) * self.output_gate(x))).unflatten(0, (-1, self.sources))


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
        norm: "global" (the paper's), or "channel": with across="raster" the model is causal, but for the chunk it is in; None: the
            one that the scan across chunks asks for.
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
        norm: Norm | None = None,
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
        ahead = as_scan(across).is_raster
        norm = norm or ("channel" if ahead else "global")
        options |= {"within": within, "across": across, "skip": skip, "norm": norm}
        self.masknet = DualPathNet(channels, sources, depth, chunk, **options)
        self.causal = ahead and norm == "channel"
        chunks = chunked(torch.empty(1, 1, self.tokens, device="meta"), chunk).shape[3]
        self.walks = [(as_scan(within), (chunk,), "within chunks"), (as_scan(across), (chunks,), "across chunks")]

    @property
    def latency(self) -> int:
        """Samples between one that comes in and the moment at which `stream` says what it holds: a chunk of frames."""
        return (self.masknet.chunk - 1) * self.stride + self.kernel

    def go_on(self, encoded: Tensor, states: DualState | None, last: bool) -> tuple[Tensor, DualState]:
        return self.masknet.go_on(encoded, states, last)

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
    norm: Norm | None = None,
    mixer: MixerName = "mamba",
    d_state: Size = 16,
    backend: Backend = "auto",
) -> DPMamba:
    """A DPMamba for a data set.

    Args:
        describe: sources, samples and model_size of the data set.
        scan: within chunks, across them or both, by `along`; the others read in both directions.
        size: a row of SIZES; None: what the data set asks for. channels, depth, kernel, chunk: other than the size's.
        norm: see DPMamba; scan=raster (also along=across alone) makes a causal model.
    """
    options = sized(
        SIZES, size or describe.get("model_size", "xs"), channels=channels, depth=depth, kernel=kernel, chunk=chunk
    )
    scans = {name: scan if along in ("both", name) else "bidirectional" for name in ("within", "across")}
    return DPMamba(**sources_of(describe), **options, **scans, norm=norm, mixer=mixer, d_state=d_state, backend=backend)
