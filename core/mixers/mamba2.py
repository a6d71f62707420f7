"""The Mamba-2 mixer over any scan (arXiv 2405.21060, figure 6). Parameter names are those of mamba_ssm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from ..initialisation import init_step_bias
from ..linear import applied
from ..ops.state_space_duality import state_space_duality
from ..packing import without_padding
from ..ranges import Count, Positive, Size, Weight, checked
from ..scans import Grid, Scan
from . import mamba2_steps
from .call import check_state, check_tokens
from .gated_norm import GatedRMSNorm
from .path_layers import convolved
from .path_mixer import PathMixer


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
    causal: whether a state can be carried on. z: (batch, length, d_ssm), the gate. beside: (batch, length, d_mlp), value
    and gate of the MLP beside the scan.
    """

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    order: Tensor | None
    conv: Tensor
    causal: bool
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
        self.norm = GatedRMSNorm(self.d_ssm, ngroups, norm_before_gate, norm_eps, **factory) if rmsnorm else None
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias, **factory)

    def forward(
        self,
        x: Tensor,
        grid: Grid | tuple[int, ...] | None = None,
        state: Mamba2State | None = None,
        seq_idx: Tensor | None = None,
    ) -> tuple[Tensor, Mamba2State | None]:
        """Mix the tokens.

        Args:
            x: (batch, length, d_model).
            grid: the tokens' grid, or its sizes; None: (length,).
            state: what the call on the piece before this one returned; None: the sequence begins here.
            seq_idx: (batch, length), integer: no state and no tap reaches across a change of it (packing); negative at
                padding, which no path visits.

        Returns:
            (batch, length, d_model), for merge "none" (batch, paths, length, d_model), and the state to continue from,
            None where the scan is not one path in raster order.

        Raises:
            UserError: a grid of another length, a state for a scan that is not causal.
        """
        if self.one_raster_path and grid is None and seq_idx is None:
            found = mamba2_steps.step(self, x, state)
            if found is not None:
                return found[0], Mamba2State(*found[1])
        check_tokens(self, x, grid, seq_idx)
        check_state(self, state, x.shape[0])
        given = self.select(x, grid, state, seq_idx)
        heads = (self.nheads, self.headdim)
        y, ssm_state = state_space_duality(
            given.x, given.dt, given.A, given.B, given.C, self.D.view(heads) if self.D_has_hdim else self.D,
            given.z.unflatten(-1, heads) if self.norm is None else None, self.dt_bias, True, self.dt_limit, given.order,
            seq_idx, None if state is None else state.ssm, True, self.merge, self.backend,
        )  # fmt: skip
        y = self._finish(y.flatten(-2), given.z, *given.beside)
        return y, Mamba2State(given.conv, ssm_state) if given.causal else None

    def select(
        self,
        x: Tensor,
        grid: Grid | tuple[int, ...] | None = None,
        state: Mamba2State | None = None,
        seq_idx: Tensor | None = None,
    ) -> Selection:
        """What the scan is given for these tokens; arguments as of forward."""
        order, causal = self.order(x, grid, state, seq_idx)
        beside_gate, beside, z, xbc, dt = applied(self.in_proj, without_padding(x, seq_idx)).split(self._sizes, -1)
        before = None if state is None else state.conv
        xbc, conv = convolved([self.conv1d], xbc, self.d_conv, "silu", order, seq_idx, before, self.backend)
        inner, B, C = xbc.split([self.d_ssm, *[self.ngroups * self.d_state] * 2], -1)
        B, C = (t.unflatten(-1, (self.ngroups, self.d_state)) for t in (B, C))
        inner = inner.unflatten(-1, (self.nheads, self.headdim))
        return Selection(inner, dt, self._decay(), B, C, order, conv, causal, z, (beside, beside_gate))

    def state_shapes(self, batch: int) -> Mamba2State:
        """The shapes of a state of so many sequences."""
        return Mamba2State((batch, self.d_xbc, self.d_conv - 1), (batch, self.nheads, self.headdim, self.d_state))

    @staticmethod
    def step_through(mixers: Sequence[Mamba2], hidden: Tensor, norms: Sequence, states: Sequence) -> tuple | None:
        """One token through the layers of a stack, see core/stack.py; None where there is no quick way."""
        found = mamba2_steps.step_through(mixers, hidden, norms, states)
        return None if found is None else (*found[:2], [Mamba2State(*state) for state in found[2]])

    def flops(self, grid: Grid | tuple[int, ...]) -> int:
        """Floating point operations of a forward pass over one sequence; a scan counts 7 a step, channel and state."""
        length, visits = self._visits(grid)
        outer = length * self.d_model * (sum(self._sizes) + self.d_inner)
        return 2 * outer + 2 * visits * self.d_xbc * self.d_conv + 7 * visits * self.d_ssm * self.d_state

    def _finish(self, y: Tensor, z: Tensor, beside: Tensor, beside_gate: Tensor) -> Tensor:
        if self.merge == "none":
            z, beside, beside_gate = (t[:, None] for t in (z, beside, beside_gate))
        if self.norm is not None:
            y = self.norm(y, z)
        if self.d_mlp:
            mlp = F.silu(beside_gate) * beside
            y = torch.cat([mlp.expand(*y.shape[:-1], -1), y], -1)
        return applied(self.out_proj, y)

    def _decay(self) -> Tensor:
        return -torch.exp(self.A_log if self.A_log.dtype == torch.float64 else self.A_log.float())

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
