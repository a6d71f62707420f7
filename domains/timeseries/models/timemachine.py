"""TimeMachine (arXiv 2403.09898): four Mambas at two resolutions of a window, of which two see it transposed.

Parameter names are those of the published code. The published figures were taken on test windows of which up to a fifth had
been dropped (the last batch where it was not full): the network has no part in that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from ....core.ranges import Positive, Rate, Size, checked
from ....core.scans import Scan
from .forecaster import Backend, Forecaster, described, sized
from .instance_norm import InstanceNorm
from .mixing import mamba, of_layer

SIZES = {
    "micro": {"n1": 64, "n2": 32, "d_state": 16},
    "etth1_96": {"n1": 512, "n2": 32, "d_state": 256},
    "etth1_192": {"n1": 512, "n2": 64, "d_state": 256},
    "etth1_336": {"n1": 512, "n2": 128, "d_state": 256},
    "etth1_720": {"n1": 128, "n2": 16, "d_state": 256},
}


class TimeMachine(Forecaster):
    """TimeMachine; `features` are (batch, variables, 2 n1).

    A window is projected to n1 numbers a variable and these to n2; at each size one Mamba reads them as the channels of
    tokens and another one beside it, and what the inner pair says is brought back to n1.

    Channel-independent, a variable is a sequence of its own. Two Mambas (mamba2, mamba3) see it as one token of n channels, for
    which a Mamba is a gated layer without memory, and two (mamba1, mamba4) as n tokens of one channel. Channel-mixing, all
    four see the variables as tokens.

    Args:
        lookback, horizon: steps seen and answered. variables: series of a window. Marks are not read.
        n1, n2: numbers that a window is projected to.
        d_state, d_conv, expand: of the Mambas.
        channel_independent: see above.
        residual: add what the inner and the outer pair were given to what the inner pair says.
        revin: normalise windows with a weight and a bias a variable; else without.
        dropout: of both projections.
        scan: the way over the tokens. backend: of the scans.
    """

    @checked
    def __init__(
        self,
        lookback: Size,
        horizon: Size,
        variables: Size,
        n1: Size = 512,
        n2: Size = 32,
        d_state: Size = 256,
        d_conv: Size = 2,
        expand: Positive = 1,
        channel_independent: bool = True,
        residual: bool = True,
        revin: bool = True,
        dropout: Rate = 0.7,
        scan: str | Scan = "raster",
        backend: Backend = "auto",
    ):
        super().__init__(lookback, horizon, variables)
        self.revin_layer = InstanceNorm(variables, affine=revin)
        self.lin1, self.lin2 = nn.Linear(lookback, n1), nn.Linear(n1, n2)
        self.dropout, self.channel_independent, self.residual = nn.Dropout(dropout), channel_independent, residual
        widths = (1, n2, n1, 1) if channel_independent else (n2, n2, n1, n1)
        for number, width in enumerate(widths, 1):
            self.add_module(f"mamba{number}", mamba(width, of_layer(scan, number), d_state, d_conv, expand, backend))
        self.lin3, self.lin4 = nn.Linear(n2, n1), nn.Linear(2 * n1, horizon)

    def encode(self, x: Tensor, marks: Tensor | None) -> Tensor:
        """(batch, variables, 2 n1)."""
        x = x.transpose(1, 2)
        tokens = x.flatten(0, 1)[:, None] if self.channel_independent else x
        outer = self.lin1(tokens)
        dropped = self.dropout(outer)
        beside = self._pair(self.mamba3, self.mamba4, dropped)
        inner = self.lin2(dropped)
        dropped = self.dropout(inner)
        said = self._pair(self.mamba2, self.mamba1, dropped)
        back = self.lin3(said + inner if self.residual else said)
        back = back + outer if self.residual else back
        return torch.cat([back, beside], -1).view(*x.shape[:2], self.lin4.in_features)

    def decode(self, features: Tensor) -> Tensor:
        """(batch, variables, 2 n1) -> (batch, variables, horizon)."""
        return self.lin4(features)

    def _pair(self, straight: nn.Module, turned: nn.Module, x: Tensor) -> Tensor:
        if not self.channel_independent:
            return straight(x)[0] + turned(x)[0]
        return straight(x)[0] + turned(x.transpose(1, 2))[0].transpose(1, 2)


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan | None = None,
    size: Literal["micro", "etth1_96", "etth1_192", "etth1_336", "etth1_720"] | None = None,
    n1: Size | None = None,
    n2: Size | None = None,
    d_state: Size | None = None,
    channel_independent: bool = True,
    residual: bool = True,
    revin: bool = True,
    dropout: Rate = 0.7,
    backend: Backend = "auto",
) -> TimeMachine:
    """A TimeMachine for a data set.

    Args:
        describe: lookback, horizon, variables.
        size: a row of SIZES, None: what the data ask for; the published ones are named by set and horizon; n1, n2, d_state:
            other than the size's.
        scan, channel_independent, residual, revin, dropout, backend: TimeMachine's.
    """
    options = sized(SIZES, size, describe, n1=n1, n2=n2, d_state=d_state)
    return TimeMachine(
        **described(describe, "variables"), **options, channel_independent=channel_independent, residual=residual,
        revin=revin, dropout=dropout, scan=scan or "raster", backend=backend,
    )  # fmt: skip
