"""core's Mamba as Bi-Mamba+, CMamba and MambaTS take it: all paths of a scan with one set of parameters."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ....core.linear import applied
from ....core.mixers.mamba import Mamba, MambaState, Selection
from ....core.mixers.mixer import Call
from ....core.scans import Scan
from .mixing import as_scan, merge_of


class SelectiveMixer(Mamba):
    """A Mamba whose skip and gate stand apart from the scan, for subclasses that join the three otherwise (`joined`).

    Args:
        d_model, d_inner: channels of the tokens and within.
        scan: over one axis.
        options: of core's Mamba.
    """

    scan_gates = False

    def __init__(self, d_model: int, d_inner: int, scan: str | Scan = "raster", **options):
        scan = as_scan(scan)
        # Mamba rounds expand * d_model down.
        expand = (d_inner + 0.5) / d_model
        options = {"parameters": "shared", **options}
        super().__init__(d_model, expand=expand, scan=scan, merge=merge_of(scan), **options)

    def mix_tokens(self, given: Selection, call: Call) -> tuple[Tensor, MambaState]:
        """C h of the recurrence, (batch, length, channels), without the skip."""
        return super().mix_tokens(given._replace(D=None), call)

    def shares_tokens(self) -> bool:
        """Never: the skip is of all tokens."""
        return False

    def finish(self, y: Tensor, given: Selection) -> Tensor:
        """As of every mixer."""
        skip = given.D * given.x
        skip = skip if skip.dim() == 3 else getattr(skip, self.merge)(1)
        return applied(self.out_proj, self.joined(y, skip, given.gate))

    def joined(self, y: Tensor, skip: Tensor, gate: Tensor) -> Tensor:
        """What out_proj reads, from C h, the skip and the gate before its activation, (batch, length, channels) each."""
        return (y + skip) * F.silu(gate)
