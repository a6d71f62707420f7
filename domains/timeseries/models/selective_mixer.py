"""Mamba-1 mixers that differ from core's in a step: the base whose steps those models' own mixers replace.

They stand in one place because they share all the rest: projections, decays, scan, parameter names of mamba_ssm.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ....core.initialisation import init_step_bias, init_step_projection, log_decay
from ....core.ops.causal_conv1d import causal_conv1d
from ....core.ops.selective_scan import selective_scan
from ....core.scans import Scan
from .mixing import as_scan, merge_of


class SelectiveMixer(nn.Module):
    """A Mamba-1 mixer over (batch, length, d_model), all paths of a scan with one set of parameters.

    Args:
        d_model, d_inner: channels of the tokens and within. d_state: states an inner channel.
        d_conv: width of the causal convolution along the path, which a SiLU follows; 0: neither.
        dt_rank: rank of the step projection; None: d_model / 16, rounded up.
        bias: of the two outer projections.
        scan: over one axis. backend: of the operators.
    """

    def __init__(
        self, d_model: int, d_inner: int, d_state: int, d_conv: int = 0, dt_rank: int | None = None, bias: bool = False,
        scan: str | Scan = "raster", backend: str = "auto",
    ):  # fmt: skip
        super().__init__()
        self.dt_rank = math.ceil(d_model / 16) if dt_rank is None else dt_rank
        self.d_state, self.d_conv, self.backend, self.scan = d_state, d_conv, backend, as_scan(scan)
        self.merge = merge_of(self.scan)
        self.in_proj, self.out_proj = nn.Linear(d_model, 2 * d_inner, bias), nn.Linear(d_inner, d_model, bias)
        if d_conv:
            self.conv1d = nn.Conv1d(d_inner, d_inner, d_conv, groups=d_inner)
        self.x_proj = nn.Linear(d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, d_inner)
        init_step_projection(self.dt_proj.weight, "random", 1.0)
        init_step_bias(self.dt_proj.bias, 0.001, 0.1, 1e-4)
        self.A_log, self.D = nn.Parameter(log_decay(d_inner, d_state)), nn.Parameter(torch.ones(d_inner))
        self.A_log._no_weight_decay = self.D._no_weight_decay = True

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """(batch, length, d_model) to the same, and no state: mixers return two."""
        order = None if self.scan.is_raster else self.scan.order((x.shape[1],), x.device)
        u, z = self.in_proj(x).chunk(2, -1)
        u = self.before_scan(u, order)
        step, B, C, *rest = self.x_proj(u).split(self.parts(), -1)
        log = self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32))
        A = -log.exp().expand(self.dt_proj.out_features, -1)
        y = selective_scan(
            u, self.dt_proj(step), A, B, C, delta_softplus=True, order=order, merge=self.merge,
            backend=self.backend,
        )  # fmt: skip
        return self.out_proj(self.after_scan(y, u, z, *rest)), None

    def parts(self) -> list[int]:
        """The numbers of channels of the step, B and C, and of whatever else x_proj says."""
        return [self.dt_rank, self.d_state, self.d_state]

    def before_scan(self, u: Tensor, order: Tensor | None) -> Tensor:
        """What the scan reads, (batch, [paths,] length, d_inner), from one half of in_proj (batch, length, d_inner)."""
        if not self.d_conv:
            return u
        weight = self.conv1d.weight.squeeze(1)
        return causal_conv1d(u, weight, self.conv1d.bias, "silu", order, backend=self.backend)

    def after_scan(self, y: Tensor, u: Tensor, z: Tensor, *rest: Tensor) -> Tensor:
        """What out_proj reads, (batch, length, d_inner).

        Args:
            y: (batch, length, d_inner), C h of the recurrence, without the skip.
            u: what before_scan returned. z: (batch, length, d_inner), the other half of in_proj.
            rest: what x_proj says beyond step, B and C, shaped like u.
        """
        return (y + self.merged(self.D * u)) * nn.functional.silu(z)

    def merged(self, t: Tensor) -> Tensor:
        """(batch, [paths,] length, d_inner) without the paths, merged as the scan merges them."""
        return t if t.dim() == 3 else getattr(t, self.merge)(1)
