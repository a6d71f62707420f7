"""The Mamba-3 mixer over any scan (arXiv 2603.15569): trapezoidal rule, turning states, one or several inputs a step.

Parameter names are those of mamba_ssm.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError, check_choice
from ..initialisation import init_step_bias
from ..linear import applied, normalised
from ..ops.gated_sum import gated_sum
from ..ops.paths import Paths
from ..ops.running_angle import running_angle
from ..ops.trapezoidal_scan import TrapezoidalState, trapezoidal_scan
from ..ops.turned_keys import ROTATIONS, turned_keys
from ..ranges import Positive, Share, Size, Weight, checked
from ..scans import Grid, Scan
from .gated_norm import GatedRMSNorm
from .mixer import Call, PathMixer

CHOICES = {"A_activation": ("heavy_tail", "softplus"), "rotation": ROTATIONS}


class Mamba3State(NamedTuple):
    """What a mixer carries from one piece of a sequence to the next, float32.

    angle: (batch, heads, angles), radians, 0 to a full turn.
    ssm: (batch, heads, headdim, states).
    k, v: (batch, rank, heads, states) and (batch, heads, headdim), the last token's turned B and its input, as mamba_ssm
        keeps them: the input before mimo_x makes `rank` ones of it.
    """

    angle: Tensor
    ssm: Tensor
    k: Tensor
    v: Tensor


class Reading(NamedTuple):
    """What a mixer reads off its tokens, all (batch, length, ...); along paths all but z (paths * batch, steps, ...).

    z, x: (heads, headdim). B, C: (rank, ngroups, states), normalised, without their biases, not yet turned.
    dt, log_decay, trapezoid: (heads,). turning: (heads, angles), radians that a step turns by.
    """

    z: Tensor
    x: Tensor
    B: Tensor
    C: Tensor
    dt: Tensor
    log_decay: Tensor
    trapezoid: Tensor
    turning: Tensor


class Selection(NamedTuple):
    """What a mixer gives to trapezoidal_scan, and what its answer meets.

    x, log_decay, dt, trapezoid, B, C (turned), order: as there. angle: the state's, to continue from. z, value: (batch, length,
    heads, headdim), the gate and what x was made of.
    """

    x: Tensor
    log_decay: Tensor
    dt: Tensor
    trapezoid: Tensor
    B: Tensor
    C: Tensor
    order: Tensor | None
    angle: Tensor
    z: Tensor
    value: Tensor


class Mamba3(PathMixer):
    """State space mixer whose states turn as they decay, and whose tokens are visited in the order of a scan.

    All paths share the one set of parameters; angles run along each path.

    Args:
        d_model: channels of the tokens.
        d_state: states per inner channel.
        expand: inner channels per channel.
        headdim: inner channels of a head.
        ngroups: heads of a group share B and C before their biases.
        rope_fraction: share of the states that turn, in pairs.
        dt_min, dt_max, dt_init_floor: step sizes at the start.
        A_floor: decay rates are at least this.
        is_outproj_norm: normalise each head of what comes out of the scan, then gate it; otherwise only gate it.
        is_mimo: several inputs and outputs a step (MIMO), mimo_rank of them.
        A_activation: turns what a token says into a decay rate: "heavy_tail" (1 + a, or 1 / (1 - a) for a < 0) as in
            mamba_ssm since June 2026, "softplus" as before.
        rotation: states that turn together: "pairs" (2 i, 2 i + 1) or "halves" (i, i + d_state / 2). None: what
            mamba_ssm's kernels do, halves for MIMO, else pairs.
        scan, axes, merge: see PathMixer.
        backend: backend of the operators.
        device, dtype: of the parameters; those named bias, D and mimo_* are float32 at least.

    Raises:
        UserError: sizes that do not divide, an unknown activation or rotation.
    """

    State = Mamba3State
    reads_along = True

    @checked
    def __init__(
        self,
        d_model: Size,
        d_state: Size = 128,
        expand: Positive = 2,
        headdim: Size = 64,
        ngroups: Size = 1,
        rope_fraction: Share = 0.5,
        dt_min: Positive = 0.001,
        dt_max: Positive = 0.1,
        dt_init_floor: Weight = 1e-4,
        A_floor: Positive = 1e-4,
        is_outproj_norm: bool = False,
        is_mimo: bool = False,
        mimo_rank: Size = 4,
        A_activation: str = "heavy_tail",
        rotation: str | None = None,
        scan: str | Scan = "raster",
        axes: int = 1,
        merge: str = "sum",
        backend: str = "auto",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(scan, axes, merge)
        self.d_model, self.d_state, self.headdim, self.ngroups = d_model, d_state, headdim, ngroups
        self.d_inner, self.rank, self.is_mimo = int(expand * d_model), mimo_rank if is_mimo else 1, is_mimo
        self.nheads, self.angles = self.d_inner // headdim, int(d_state * rope_fraction) // 2
        self.A_floor, self.A_activation, self.backend = A_floor, A_activation, backend
        self.rotation = ("halves" if is_mimo else "pairs") if rotation is None else rotation
        self._check_options(rope_fraction)

        factory = {"device": device, "dtype": dtype}
        kept = {"device": device, "dtype": torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)}
        self._sizes = [self.d_inner] * 2 + [d_state * ngroups * self.rank] * 2 + [self.nheads] * 3 + [self.angles]
        self.in_proj = nn.Linear(d_model, sum(self._sizes), bias=False, **factory)
        self.dt_bias = nn.Parameter(torch.empty(self.nheads, **kept))
        init_step_bias(self.dt_bias, dt_min, dt_max, dt_init_floor)
        for name in ("B_bias", "C_bias"):
            self.register_parameter(name, nn.Parameter(torch.ones(self.nheads, self.rank, d_state, **kept)))
        for name in ("B_norm", "C_norm"):
            self.add_module(name, nn.RMSNorm(d_state, 1e-5, **factory))
        if is_mimo:
            for name, value in (("mimo_x", 1 / self.rank), ("mimo_z", 1.0), ("mimo_o", 1 / self.rank)):
                start = torch.full((self.nheads, self.rank, headdim), value, **kept)
                self.register_parameter(name, nn.Parameter(start))
        self.D = nn.Parameter(torch.ones(self.nheads, **kept))
        self.D._no_weight_decay = True
        self.norm = (
            GatedRMSNorm(self.d_inner, self.nheads, True, backend=backend, **factory) if is_outproj_norm else None
        )
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False, **factory)

    def project(self, call: Call) -> Selection:
        read = self._read(call)
        angle, last = self._angles(read.turning, call)
        keys = turned_keys(read.B, read.C, self.B_bias, self.C_bias, angle, self.rotation, self.backend)
        B, C = (t.squeeze(1).to(call.x.dtype) for t in keys)  # of several paths nothing is squeezed
        return Selection(
            self._inputs(read.x), read.log_decay, read.dt, read.trapezoid, B, C, call.order, last, read.z, read.x
        )

    def mix_tokens(self, given: Selection, call: Call) -> tuple[Tensor, Mamba3State | None]:
        state, before = call.state, None
        if state is not None:
            before = TrapezoidalState(state.ssm, state.k, self._inputs(state.v.to(given.x.dtype)).to(state.v.dtype))
        y, after = trapezoidal_scan(
            given.x, given.log_decay, given.dt, given.trapezoid, given.B, given.C, self.D, given.order, call.seq_idx, before,
            True, self.merge if call.way is None else "sum", self.backend,
        )  # fmt: skip
        if not call.causal:
            return y if call.way is None else call.way.merge(y, self.merge), None
        last = _last_input(given.value, given.order, None if state is None else state.v)
        return y, Mamba3State(given.angle, after.h, after.B, last)

    def finish(self, y: Tensor, given: Selection) -> Tensor:
        """Gate and, in MIMO, merge the rows of (batch, [paths,] length, rank, heads, headdim), then project."""
        y = y if self.merge == "none" else y.unsqueeze(1)
        y, z = y.flatten(-2), given.z.flatten(-2)
        z_scale, y_scale = (self._scale(t) for t in (self.mimo_z, self.mimo_o)) if self.is_mimo else (None, None)
        if self.norm is None:
            y = gated_sum(y, z, z_scale, y_scale, self.backend)
        else:
            z = z[:, None, :, None]
            y = self.norm(y, z if z_scale is None else z * z_scale)
            y = (y if y_scale is None else y * y_scale).sum(-2)
        return applied(self.out_proj, (y if self.merge == "none" else y.squeeze(1)).to(given.z.dtype))

    def state_shapes(self, batch: int) -> Mamba3State:
        return Mamba3State(
            angle=(batch, self.nheads, self.angles),
            ssm=(batch, self.nheads, self.headdim, self.d_state),
            k=(batch, self.rank, self.nheads, self.d_state),
            v=(batch, self.nheads, self.headdim),
        )

    def flops(self, grid: Grid | tuple[int, ...]) -> int:
        """Floating point operations of a forward pass over one sequence; a scan counts 7 a step, row, channel and state."""
        length, visits = self._visits(grid)
        outer = length * self.d_model * (sum(self._sizes) + self.d_inner)
        return 2 * outer + 7 * visits * self.rank * self.d_inner * self.d_state

    def _read(self, call: Call) -> Reading:
        z, rows = applied(self.in_proj, call.x).split([self.d_inner, sum(self._sizes[1:])], -1)
        if call.way is not None:
            rows = call.way.visit(rows[:, None])
        value, B, C, dt, a, trapezoid, angle = rows.split(self._sizes[1:], -1)
        z, value = (t.unflatten(-1, (self.nheads, self.headdim)) for t in (z, value))
        kind = torch.promote_types(call.x.dtype, torch.float32)
        dt, a, trapezoid, angle = (t.to(kind) for t in (dt, a, trapezoid, angle))
        dt = F.softplus(dt + self.dt_bias)
        rate = heavy_tail(a) if self.A_activation == "heavy_tail" else F.softplus(a)
        turning = dt[..., None] * (math.pi * torch.tanh(angle))[..., None, :]
        B, C = (
            normalised(norm, t.unflatten(-1, (self.rank, self.ngroups, self.d_state)))
            for norm, t in ((self.B_norm, B), (self.C_norm, C))
        )
        return Reading(z, value, B, C, dt, -dt * rate.clamp_min(self.A_floor), trapezoid.sigmoid(), turning)

    def _inputs(self, x: Tensor) -> Tensor:
        """A token's inputs, (..., rank, heads, headdim) of (..., heads, headdim), in its dtype."""
        x = x.unsqueeze(-3)
        return (x * self.mimo_x.transpose(0, 1).contiguous()).to(x.dtype) if self.is_mimo else x

    @staticmethod
    def _scale(parameter: Tensor) -> Tensor:
        """(rank, channels) of (heads, rank, headdim)."""
        return parameter.transpose(0, 1).flatten(1)

    def _angles(self, turning: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Angle of every state pair at every token, (batch, paths, length, heads, angles), and after the last step."""
        batch, length = turning.shape[:2]
        order, initial = call.order, None if call.state is None else call.state.angle
        order = order[None] if order is not None and order.dim() == 2 else order
        way = Paths(order, call.seq_idx, batch, 1 if order is None else self.paths, length, turning.device)
        angle = running_angle(way.visit(turning[:, None]), way.restart, initial, self.backend)
        if way.steps:
            last = angle[:, -1].clone()
        else:
            last = angle.new_zeros(batch, *angle.shape[2:]) if initial is None else initial.clone()
        return way.merge(angle, "none"), last

    def _check_options(self, rope_fraction: float) -> None:
        for option, value in (("A_activation", self.A_activation), ("rotation", self.rotation)):
            check_choice(option, value, CHOICES[option])
        if self.d_inner % self.headdim:
            raise UserError(
                "headdim must divide the inner channels", given=f"headdim={self.headdim}, {self.d_inner} channels",
                allowed=[size for size in range(1, self.d_inner + 1) if self.d_inner % size == 0],
            )  # fmt: skip
        if self.ngroups < 1 or self.nheads % self.ngroups:
            raise UserError(
                "heads must divide evenly into groups", given=f"{self.nheads} heads, ngroups={self.ngroups}"
            )
        if not 0 < rope_fraction <= 1 or self.angles < 1:
            raise UserError(
                "no states are left to turn", given=f"rope_fraction={rope_fraction}, d_state={self.d_state}",
                allowed="a fraction up to 1 that leaves a pair",
            )  # fmt: skip
        if self.rank < 1:
            raise UserError("a step has one input or more", given=f"mimo_rank={self.rank}", allowed="1, 2, ...")

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}, rotation={self.rotation}, A_activation={self.A_activation}"


def _last_input(x: Tensor, order: Tensor | None, before: Tensor | None) -> Tensor:
    """What the last token that a raster path visits holds, (batch, heads, headdim), else what came before, else zeros: a copy.

    Args:
        x: (batch, length, heads, headdim).
        order: (batch, 1, steps), ascending, -1 behind a short path's end; None: every token is visited.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    before = x.new_zeros(x.shape[0], *x.shape[2:]) if before is None else before
    if not x.shape[1]:
        return before.clone()
    if order is None:
        return x[:, -1].clone()
    token = order[:, 0].amax(1).long()[:, None, None, None]
    return torch.where(token[:, 0] >= 0, x.gather(1, token.clamp_min(0).expand(-1, 1, *x.shape[2:]))[:, 0], before)


def heavy_tail(x: Tensor) -> Tensor:
    """1 + x where x is not negative, else 1 / (1 - x)."""
    return torch.where(x >= 0, 1 + x, 1 / (1 - x.clamp_max(0)))
