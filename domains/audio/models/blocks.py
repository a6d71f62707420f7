"""Core's mixers in the two forms that models of sound use: a stack with its last norm, and two directions side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ....core.errors import check_choice
from ....core.mixers import get as get_mixer
from ....core.scans import Scan
from ....core.scans import get as get_scan
from ....core.stack import ResidualBlock, final_norm, make_norm, run_stack

Backend = Literal["auto", "cpu", "gpu", "reference"]
MixerName = Literal["mamba", "mamba2", "mamba3", "s4d"]
HEAD_CHANNELS = 32  # of a head of Mamba-2 and Mamba-3


def as_scan(scan: str | Scan | None) -> Scan:
    """A scan by its name, or the scan given; None: both directions."""
    return get_scan(scan or "bidirectional") if isinstance(scan, str | None) else scan


def sized(sizes: Mapping[str, Mapping[str, Any]], size: str, **chosen: Any) -> dict[str, Any]:
    """A row of a model's sizes, and over it what was chosen and is not None.

    Raises:
        UserError: an unknown size.
    """
    check_choice("model.size", size, sizes, "model size")
    return {**sizes[size], **{key: value for key, value in chosen.items() if value is not None}}


def mixing(
    channels: int,
    scan: Scan,
    mixer: MixerName = "mamba",
    d_state: int = 16,
    expand: float = 2,
    backend: str = "auto",
    **options: Any,
) -> nn.Module:
    """A mixer of the core over (batch, length, channels), the mean over the paths of its scan."""
    if scan.paths(1) > 1 and not scan.disjoint(1):
        options = {"merge": "mean", **options}
    if mixer in ("mamba2", "mamba3"):
        options = {"headdim": HEAD_CHANNELS, **options}
    return get_mixer(mixer)(channels, d_state=d_state, expand=expand, scan=scan, backend=backend, **options)


def layer(channels: int, scan: Scan, *given: Any, **options: Any) -> ResidualBlock:
    """RMS norm and a mixer; arguments as of `mixing`."""
    return ResidualBlock(mixing(channels, scan, *given, **options), make_norm("rms", channels))


class MambaStack(nn.Module):
    """Layers of a mixer with a norm before each and one at the end; names of the authors' MambaBlocksSequential.

    Args:
        channels, depth: width and layers. scan: of all layers; layer i walks scan.layer(i). options: see `mixing`.
    """

    def __init__(self, channels: int, depth: int, scan: str | Scan, **options: Any):
        super().__init__()
        scan = as_scan(scan)
        self.layers = nn.ModuleList(layer(channels, scan.layer(index), **options) for index in range(depth))
        self.norm_f = make_norm("rms", channels)

    def forward(self, x: Tensor, states: Sequence | None = None) -> tuple[Tensor, list]:
        """(batch, length, channels) to the same, and the mixers' states, which go on where the scan is causal."""
        found = run_stack(self.layers, x, states=states)
        return final_norm(found, self.norm_f), found.states

    def flops(self, length: int) -> int:
        """Of one sequence."""
        return sum(each.mixer.flops((length,)) for each in self.layers)


class SideBySide(nn.Module):
    """A forward and a backward block, each with its own residual, and their channels side by side (SPMamba, SEMamba).

    "bidirectional" is the paper's: two blocks with their own weights. Along any other scan one block walks all paths.

    Args:
        channels: of the tokens. scan: over one axis. options: see `mixing`.

    Attributes:
        out_channels: of what it returns.
    """

    def __init__(self, channels: int, scan: str | Scan, **options: Any):
        super().__init__()
        scan = as_scan(scan)
        both = scan == get_scan("bidirectional")
        self.forward_blocks = nn.ModuleList([layer(channels, get_scan("raster") if both else scan, **options)])
        self.backward_blocks = nn.ModuleList([layer(channels, get_scan("reverse"), **options)] if both else [])
        self.out_channels = channels * (1 + len(self.backward_blocks))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, channels) to (batch, length, out_channels)."""
        said = []
        for block in (*self.forward_blocks, *self.backward_blocks):
            hidden, residual, _ = block(x)
            said.append((hidden + residual).to(x.dtype))
        return torch.cat(said, -1)

    def flops(self, length: int) -> int:
        """Of one sequence."""
        return sum(each.mixer.flops((length,)) for each in (*self.forward_blocks, *self.backward_blocks))
