"""From the patches of an image to the inputs of a language model: VL-Mamba's multimodal connectors (arXiv 2403.13600, section 3.3).

connector = Connector(384, 768, form="vss-l2", scan="cross")
inputs = connector(vision.forward_features(images), grid=(16, 16))        # (batch, length, 768), beside a text's embeddings
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from .errors import check_choice
from .mixers.mamba import Mamba
from .ranges import Size, checked
from .scans import Grid, Scan

Form = Literal["mlp", "vss-mlp", "vss-l2"]


class Connector(nn.Module):
    """Patches V in the order in which they come, each knowing of the others along a scan over the grid, as wide as a text's tokens.

    Args:
        channels: of the patches. width: of the language model.
        form: "mlp": mlp(V). "vss-mlp": mlp(norm(mix(V) + V)). "vss-l2", the paper's best: V' = enter(V), then
            leave(norm(mix(gelu(V')) + V')); the mixer is as wide as the language model.
        scan: of the mixer: "bidirectional", the paper's BSM, "cross", its CSM, or any other over grids of two axes.
        axes: of the grid.
        mixing: further options of the mixer, see Mamba.

    Raises:
        UserError: an unknown form or scan.
    """

    @checked
    def __init__(
        self,
        channels: Size,
        width: Size,
        form: Form = "vss-l2",
        scan: str | Scan = "bidirectional",
        axes: int = 2,
        **mixing: Any,
    ):
        super().__init__()
        check_choice("form", form, Form.__args__)
        self.channels, self.form = channels, form
        inner = width if form == "vss-l2" else channels
        self.enter = nn.Linear(channels, width) if form == "vss-l2" else nn.Identity()
        if form != "mlp":
            self.mix, self.norm = Mamba(inner, scan=scan, axes=axes, **mixing), nn.LayerNorm(inner)
        leave = nn.Linear(inner, width)
        self.leave = leave if form == "vss-l2" else nn.Sequential(leave, nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor, grid: Grid | tuple[int, ...] | None = None) -> Tensor:
        """(batch, length, width) of patches (batch, length, channels) on a grid; "mlp" asks nothing of it."""
        x = self.enter(x)
        if self.form != "mlp":
            mixed, _ = self.mix(F.gelu(x) if self.form == "vss-l2" else x, grid)
            x = self.norm(mixed + x)
        return self.leave(x)
