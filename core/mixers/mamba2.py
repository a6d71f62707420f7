"""The Mamba-2 mixer over any scan (arXiv 2405.21060, figure 6). Parameter names are those of mamba_ssm."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from ..initialisation import init_step_bias
from ..linear import CONVOLUTION, applied, is_plain, plain_parameters
from ..ops.mamba2_decode import Mamba2Weights, mamba2_decode
from ..ops.state_space_duality import state_space_duality
from ..ranges import Count, Positive, Size, Weight, checked
from ..scans import Grid, Scan
from .gated_norm import GatedRMSNorm
from .mixer import Call, PathMixer
from .path_layers import convolved


class Mamba2State(NamedTuple):
    """What a mixer carries from one piece of a sequence to the next, float32.

    conv: (batch, channels, width - 1), the last inputs of the convolution.
    ssm: (batch, heads, headdim, states).
    """

    conv: Tensor
    ssm: Tensor


class Selection(NamedTuple):
    """What a mixer gives to state_space_duality, and what its answer meets.

    x, dt (before bias and softplus), A, B, C, order: as there. conv: the convolution's part of the state to continue from.
    z: (batch, length, d_ssm), the gate. beside: (batch, length, d_mlp), value
    and gate of the MLP beside the scan.
    """

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    order: Tensor | None
    conv: Tensor
    z: Tensor
    beside: tuple[Tensor, Tensor]


class Mamba2(PathMixer):
    """State space mixer with one decay a head, whose tokens are visited in the order of a scan.

    All paths share the one set of parameters; the convolution runs along each path.

    Args:
        d_model: channels of the tokens.
        d_state: states per inner channel.
        d_conv: taps of the depthwise convolution over x, B and C. conv_init: they begin uniform within ± it; None: as in
            nn.Conv1d.
        expand: inner channels per channel.
        headdim: inner channels of a head.
        d_ssm: inner channels that go through the state space; the others are a gated MLP beside it. None: all.
        ngroups: heads of a group share B and C.
        A_init_range: the decays are drawn uniformly from it.
        D_has_hdim: a skip weight per inner channel instead of per head.
        rmsnorm: normalise what comes out of the scan, gated; otherwise only gate it. norm_before_gate: in that order.
            norm_eps: added to the mean square.
        dt_min, dt_max, dt_init_floor: step sizes at the start. dt_limit: smallest and largest step size ever.
        bias, conv_bias: biases of the two outer projections and of the convolution.
        scan, axes, merge: see PathMixer.
        backend: backend of the operators.
        device, dtype: of the parameters; A_log, D and dt_bias are float32 at least.

    Raises:
        UserError: sizes that do not divide.
    """

    State, decoder = Mamba2State, mamba2_decode
    reads_along = True

    @checked
    def __init__(
        self,
        d_model: Size,
        d_state: Size = 128,
        d_conv: Size = 4,
        conv_init: Weight | None = None,
        expand: Positive = 2,
        headdim: Size = 64,
        d_ssm: Count | None = None,
        ngroups: Size = 1,
        A_init_range: tuple[float, float] = (1, 16),
        D_has_hdim: bool = False,
        rmsnorm: bool = True,
        norm_before_gate: bool = False,
        norm_eps: Positive = 1e-5,
        dt_min: Positive = 0.001,
        dt_max: Positive = 0.1,
        dt_init_floor: Weight = 1e-4,
        dt_limit: tuple[float, float] = (0.0, math.inf),
        bias: bool = False,
        conv_bias: bool = True,
        scan: str | Scan = "raster",
        axes: int = 1,
        merge: str = "sum",
        backend: str = "auto",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(scan, axes, merge)
        self.one_raster_path = self._walks.raster and merge != "none"
        self.d_model, self.d_state, self.d_conv, self.headdim = d_model, d_state, d_conv, headdim
        self.d_inner = int(expand * d_model)
        self.d_ssm = self.d_inner if d_ssm is None else d_ssm
        self.ngroups, self.D_has_hdim, self.backend = ngroups, D_has_hdim, backend
        self.dt_limit = tuple(float(limit) for limit in dt_limit)
        self._check_sizes()
        self.nheads, self.d_mlp = self.d_ssm // headdim, self.d_inner - self.d_ssm
        self.d_xbc = self.d_ssm + 2 * ngroups * d_state

        factory = {"device": device, "dtype": dtype}
        self._sizes = [self.d_mlp, self.d_mlp, self.d_ssm, self.d_xbc, self.nheads]
        self.in_proj = nn.Linear(d_model, sum(self._sizes), bias=bias, **factory)
        self.conv1d = nn.Conv1d(self.d_xbc, self.d_xbc, d_conv, groups=self.d_xbc, bias=conv_bias, **factory)
        if conv_init is not None:
            nn.init.uniform_(self.conv1d.weight, -conv_init, conv_init)
        kept = {"device": device, "dtype": torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)}
        self.dt_bias = nn.Parameter(torch.empty(self.nheads, **kept))
        init_step_bias(self.dt_bias, dt_min, dt_max, dt_init_floor)
        self.A_log = nn.Parameter(torch.empty(self.nheads, **kept).uniform_(*A_init_range).log())
        self.D = nn.Parameter(torch.ones(self.d_ssm if D_has_hdim else self.nheads, **kept))
        self.A_log._no_weight_decay = self.D._no_weight_decay = True
        self.norm = (
            GatedRMSNorm(self.d_ssm, ngroups, norm_before_gate, norm_eps, backend, **factory) if rmsnorm else None
        )
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias, **factory)

    def project(self, call: Call) -> Selection:
        gates, rows = applied(self.in_proj, call.x).split([sum(self._sizes[:3]), sum(self._sizes[3:])], -1)
        if call.way is not None:
            rows = call.way.visit(rows[:, None])
        (beside_gate, beside, z), (xbc, dt) = gates.split(self._sizes[:3], -1), rows.split(self._sizes[3:], -1)
        before = None if call.state is None else call.state.conv
        xbc, conv = convolved([self.conv1d], xbc, self.d_conv, "silu", call.order, call.seq_idx, before, self.backend)
        inner, B, C = xbc.split([self.d_ssm, *[self.ngroups * self.d_state] * 2], -1)
        B, C = (t.unflatten(-1, (self.ngroups, self.d_state)) for t in (B, C))
        inner = inner.unflatten(-1, (self.nheads, self.headdim))
        A = -torch.exp(self.A_log if self.A_log.dtype == torch.float64 else self.A_log.float())
        return Selection(inner, dt, A, B, C, call.order, conv, z, (beside, beside_gate))

    def mix_tokens(self, given: Selection, call: Call) -> tuple[Tensor, Mamba2State]:
        heads, way = (self.nheads, self.headdim), call.way
        y, ssm = state_space_duality(
            given.x, given.dt, given.A, given.B, given.C, self.D.view(heads) if self.D_has_hdim else self.D,
            given.z.unflatten(-1, heads) if self.norm is None and way is None else None, self.dt_bias, True, self.dt_limit,
            given.order, call.seq_idx, None if call.state is None else call.state.ssm, True,
            self.merge if way is None else "sum", self.backend,
        )  # fmt: skip
        y = y.flatten(-2)
        if way is not None:
            y = way.merge(y, self.merge)
            if self.norm is None:
                y = (y * F.silu(given.z[:, None] if self.merge == "none" else given.z)).to(y.dtype)
        return y, Mamba2State(given.conv, ssm)

    def finish(self, y: Tensor, given: Selection) -> Tensor:
        z, beside, gate = given.z, *given.beside
        if self.merge == "none":
            z, beside, gate = (t[:, None] for t in (z, beside, gate))
        if self.norm is not None:
            y = self.norm(y, z)
        if self.d_mlp:
            mlp = F.silu(gate) * beside
            y = torch.cat([mlp.expand(*y.shape[:-1], -1), y], -1)
        return applied(self.out_proj, y)

    def weights(self) -> Mamba2Weights | None:
        layers, parameters, norm = self._modules, self._parameters, self.norm
        if not self.one_raster_path or self.d_mlp or not (norm is None or is_plain(norm, (GatedRMSNorm,))):
            return None
        found = [plain_parameters(layers["in_proj"]), plain_parameters(layers["out_proj"])]
        found.append(plain_parameters(layers["conv1d"], CONVOLUTION))
        if None in found:
            return None
        normed = (1, False, 1e-5) if norm is None else (norm.groups, norm.norm_before_gate, norm.eps)
        return Mamba2Weights(
            *found[0], *found[2], parameters["dt_bias"], parameters["A_log"], parameters["D"],
            None if norm is None else norm.weight, *found[1], self.headdim, self.ngroups, *normed, self.dt_limit,
        )  # fmt: skip

    def state_shapes(self, batch: int) -> Mamba2State:
        return Mamba2State((batch, self.d_xbc, self.d_conv - 1), (batch, self.nheads, self.headdim, self.d_state))

    def flops(self, grid: Grid | tuple[int, ...]) -> int:
        """Floating point operations of a forward pass over one sequence; a scan counts 7 a step, channel and state."""
        length, visits = self._visits(grid)
        outer = length * self.d_model * (sum(self._sizes) + self.d_inner)
        return 2 * outer + 2 * visits * self.d_xbc * self.d_conv + 7 * visits * self.d_ssm * self.d_state

    def _check_sizes(self) -> None:
        if not 0 < self.d_ssm <= self.d_inner:
            raise UserError("d_ssm is a part of the inner channels", given=self.d_ssm, allowed=f"1 to {self.d_inner}")
        if self.d_ssm % self.headdim:
            raise UserError(
                "headdim must divide the channels of the state space", given=f"headdim={self.headdim}, {self.d_ssm} channels",
                allowed=[size for size in range(1, self.d_ssm + 1) if self.d_ssm % size == 0],
            )  # fmt: skip
        if self.ngroups < 1 or self.d_ssm // self.headdim % self.ngroups:
            raise UserError(
                "heads must divide evenly into groups",
                given=f"{self.d_ssm // self.headdim} heads, ngroups={self.ngroups}",
            )
