"""A mixer of the core as a layer type of a sequential model, made from what the papers say of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from ....core import mixers
from ....core.errors import UserError
from ....core.ranges import Positive, Size
from ....core.scans import Scan
from ....core.scans import get as get_scan

MixerName = Literal["mamba", "mamba2", "mamba3", "s4d", "attention"]
Backend = Literal["auto", "cpu", "gpu", "reference"]
HEAD_CHANNELS = 32


def make_mixer(
    mixer: MixerName,
    channels: Size,
    scan: str | Scan = "raster",
    d_state: Size = 32,
    d_conv: Size = 4,
    expand: Positive = 2,
    options: Mapping[str, Any] | None = None,
    backend: Backend = "auto",
) -> nn.Module:
    """A mixer of the core.

    Args:
        mixer: its name. channels: of the events.
        scan: the order in which it visits them; "raster", forwards, is causal. Attention reads forwards or, with
            "bidirectional", everything.
        d_state, d_conv, expand: where the mixer has them.
        options: further arguments, over these.
    """
    scan = get_scan(scan) if isinstance(scan, str) else scan
    if mixer == "attention":
        if not scan.is_raster and scan != get_scan("bidirectional"):
            raise UserError("attention has no such order", given=f"scan={scan}", allowed=("raster", "bidirectional"))
        given = {"num_heads": max(1, channels // HEAD_CHANNELS), "causal": scan.is_raster}
    else:
        given = {"scan": scan, "d_state": d_state, "expand": expand}
        if scan.paths(1) > 1:
            given["merge"] = "mean"
        if mixer != "mamba3":
            given["d_conv"] = d_conv
        if mixer in ("mamba2", "mamba3"):
            given["headdim"] = HEAD_CHANNELS
    return mixers.get(mixer)(channels, backend=backend, **{**given, **(options or {})})


def is_causal(scan: str | Scan) -> bool:
    """Whether a mixer over this scan reads forwards only."""
    return (get_scan(scan) if isinstance(scan, str) else scan).is_raster
