"""The Mamba-1 mixer over any scan (Mamba, arXiv 2312.00752, figure 3; Vision Mamba, arXiv 2401.09417, algorithm 1).

Parameter names are those of mamba_ssm; a second path's carry `_b` (conv1d_b, x_proj_b, dt_proj_b, A_b_log, D_b), as in Vim,
further ones `_c`, `_d`, ... or the suffixes asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError, check_choice
from ..initialisation import init_step_bias, init_step_projection, log_decay
from ..linear import applied
from ..ops.arguments import MERGES
from ..ops.selective_scan import selective_scan
from ..packing import has_padding, skip_padding, without_padding
from ..ranges import Positive, Size, Weight, checked
from ..scans import Grid, Scan
from ..scans import get as get_scan
from . import mamba_steps
from .call import check_state, check_tokens
from .path_layers import bias_left_out, convolved, convolved_on_grid, normed, product
from .path_parameters import check_path_parameters
from .walk import Shares, Walk, Walks, sizes_of

CHOICES = {
    "parameters": ("separate", "shared", "decay"),
    "conv": ("path", "grid", "none"),
    "merge": MERGES,
    "norms": ("none", "weightless", "learned"),
}
NORMED = ("dt", "b", "c")


class MambaState(NamedTuple):
    """What a mixer carries from one piece of a sequence to the next.

    conv: (batch, channels, width - 1) float32, the last inputs of the convolution; None without one.
    ssm: (batch, channels, states) float32.
    """

    conv: Tensor | None
    ssm: Tensor


class Selection(NamedTuple):
    """What a mixer gives to selective_scan.

    tensors: x, delta (before bias and softplus), A, B, C, D, z, shaped as there. delta_bias: ([paths,] channels); None: delta
    has it already. order: as there. conv: the convolution's part of the state to continue from.
    """

    tensors: tuple[Tensor | None, ...]
    delta_bias: Tensor | None
    order: Tensor | None
    conv: Tensor | None


class Mamba(nn.Module):
    """Selective state space mixer whose tokens are visited in the order of a scan.

    Args:
        d_model: channels of the tokens.
        d_state: states per inner channel.
        d_conv: kernel size of the depthwise convolution; None: 4 along the path, 3 on the grid.
        expand: inner channels per channel.
        dt_rank: rank of the step projection; "auto": d_model / 16, rounded up.
        dt_min, dt_max, dt_init_floor: step sizes at the start. dt_init ("random" or "constant"), dt_scale: their projection.
        bias, conv_bias: biases of the two outer projections and of the convolution.
        scan: a mode's name, several joined with "+", or a Scan.
        axes: number of grid axes, where the scan's number of paths or the grid convolution depends on it.
        parameters: "separate" (each path its own convolution, projections, decay), "shared" (one set), "decay" (one set,
            convolved and projected once in raster order, but a decay per path: Vim's v1).
        conv: "path" (causal, along each path), "grid" (over the grid, not causal; extra tokens take the centre tap) or
            "none"; SiLU follows in each case.
        gate: multiply by SiLU of a second half of the input projection.
        merge: "sum" or "mean" over the paths, or "none".
        norms: RMS norms over what x_proj says for the step, B and C, before they are used: "none", "weightless"
            (FalconMamba, arXiv 2410.05355) or "learned" (Jamba, arXiv 2403.19887, section 6.4: dt_layernorm, b_layernorm,
            c_layernorm). norm_eps: added to their mean squares.
        suffixes: name suffix of each path's parameters.
        backend: backend of the operators.
        device, dtype: of the parameters; A_log and D are float32 at least.
    """

    @checked
    def __init__(
        self,
        d_model: Size,
        d_state: Size = 16,
        d_conv: Size | None = None,
        expand: Positive = 2,
        dt_rank: Size | str = "auto",
        dt_min: Positive = 0.001,
        dt_max: Positive = 0.1,
        dt_init: str = "random",
        dt_scale: Positive = 1.0,
        dt_init_floor: Weight = 1e-4,
        bias: bool = False,
        conv_bias: bool = True,
        scan: str | Scan = "raster",
        axes: int = 1,
        parameters: str = "separate",
        conv: str = "path",
        gate: bool = True,
        merge: str = "sum",
        norms: str = "none",
        norm_eps: Positive = 1e-6,
        suffixes: Sequence[str] | None = None,
        backend: str = "auto",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        for option, value in (("parameters", parameters), ("conv", conv), ("merge", merge), ("norms", norms)):
            check_choice(option, value, CHOICES[option])
        self.scan = get_scan(scan) if isinstance(scan, str) else scan
        self.paths = self.scan.paths(axes)
        self.d_model, self.d_state, self.axes = d_model, d_state, axes
        self.d_inner = int(expand * d_model)
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self.d_conv = 0 if conv == "none" else (4 if conv == "path" else 3) if d_conv is None else d_conv
        self.parameters_per_path, self.conv, self.gate, self.merge = parameters, conv, gate, merge
        self.norms, self.norm_eps, self.backend = norms, norm_eps, backend
        self._walks = Walks(self.scan, axes, type(self).__name__)
        self.one_raster_path = self._walks.raster and conv == "path" and merge != "none"
        if conv == "grid" and self.d_conv % 2 == 0:
            raise UserError(
                "a convolution on the grid needs an odd kernel", given=f"d_conv={d_conv}", allowed="3, 5, 7, ..."
            )

        factory = {"device": device, "dtype": dtype}
        suffixes = list(suffixes) if suffixes is not None else _suffixes(self.paths)
        if len(suffixes) < self.paths:
            raise UserError("each path needs a suffix", given=suffixes, allowed=f"{self.paths} suffixes")
        ends = [f"_{suffix}" if suffix else "" for suffix in suffixes[: self.paths]]
        self._ends = ends if parameters == "separate" else ends[:1]
        self._decay_ends = ends[:1] if parameters == "shared" else ends
        self._conv_ends = self._ends if conv == "path" else [""]
        self._conv_name = f"conv{axes}d" if conv == "grid" else "conv1d"

        self.in_proj = nn.Linear(d_model, self.d_inner * (2 if gate else 1), bias=bias, **factory)
        self._add_decays_and_skips(device, dtype)
        if conv != "none":
            self._add_convolutions(conv_bias, factory)
        for end in self._ends:
            self.add_module(f"x_proj{end}", nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False, **factory))
            projection = nn.Linear(self.dt_rank, self.d_inner, **factory)
            init_step_projection(projection.weight, dt_init, dt_scale)
            init_step_bias(projection.bias, dt_min, dt_max, dt_init_floor)
            self.add_module(f"dt_proj{end}", projection)
            if norms == "learned":
                for name, size in zip(NORMED, (self.dt_rank, d_state, d_state), strict=True):
                    self.add_module(f"{name}_layernorm{end}", nn.RMSNorm(size, norm_eps, **factory))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias, **factory)

    def forward(
        self,
        x: Tensor,
        grid: Grid | tuple[int, ...] | None = None,
        state: MambaState | None = None,
        seq_idx: Tensor | None = None,
    ) -> tuple[Tensor, MambaState | None]:
        """Mix the tokens.

        Args:
            x: (batch, length, d_model).
            grid: the tokens' grid, or its sizes; None: (length,).
            state: what the call on the piece before this one returned; None: the sequence begins here.
            seq_idx: (batch, length), integer: no state and no tap reaches across a change of it (packing); negative at
                padding, which no path visits: the state is the one after each row's last real token. A state given goes
                on with the first real token, whatever its number.

        Returns:
            (batch, length, d_model), for merge "none" (batch, paths, length, d_model), and the state to continue from,
            None where the scan is not causal (anything but one path in raster order, or a convolution on the grid).

        Raises:
            UserError: a grid of another length, a state for a scan that is not causal, seq_idx with a grid convolution.
        """
        if self.one_raster_path and grid is None and seq_idx is None:
            found = mamba_steps.step(self, x, state)
            if found is not None:
                return found[0], MambaState(*found[1])
        check_tokens(self, x, grid, seq_idx)
        way = self._way(x, grid)
        causal = way.order is None and self.conv != "grid"
        self._check(causal, state, seq_idx)
        check_state(self, state, x.shape[0])
        if self._shares_tokens(way) and seq_idx is None:
            return applied(self.out_proj, self._mix_shares(x, way.shares, grid)), None
        given = self.select(x, grid, state, seq_idx)
        y, ssm_state = selective_scan(
            *given.tensors, delta_bias=given.delta_bias, delta_softplus=True, order=given.order, seq_idx=seq_idx,
            initial_state=None if state is None else state.ssm, return_final_state=True, merge=self.merge,
            backend=self.backend,
        )  # fmt: skip
        return applied(self.out_proj, y), MambaState(given.conv, ssm_state) if causal else None

    def select(
        self,
        x: Tensor,
        grid: Grid | tuple[int, ...] | None = None,
        state: MambaState | None = None,
        seq_idx: Tensor | None = None,
    ) -> Selection:
        """What the scan is given for these tokens; arguments as of forward."""
        order, raster = self._way(x, grid).order, None
        if seq_idx is not None and has_padding(seq_idx):
            order, raster = skip_padding(order, seq_idx), skip_padding(None, seq_idx)
        x, z = self._project_in(without_padding(x, seq_idx))
        x, conv = self._convolve(x, raster if self.parameters_per_path == "decay" else order, grid, state, seq_idx)
        delta, B, C = self._project(x)
        tensors = (x, delta, self._decay(), B, C, self._skip(), z)
        return Selection(tensors, bias_left_out(self._layers("dt_proj")), order, conv)

    def state_shapes(self, batch: int) -> MambaState:
        """The shapes of a state of so many sequences."""
        return MambaState((batch, self.d_inner, self.d_conv - 1), (batch, self.d_inner, self.d_state))

    @staticmethod
    def step_through(mixers: Sequence[Mamba], hidden: Tensor, norms: Sequence, states: Sequence) -> tuple | None:
        """One token through the layers of a stack, see core/stack.py; None where there is no quick way."""
        found = mamba_steps.step_through(mixers, hidden, norms, states)
        return None if found is None else (*found[:2], [MambaState(*state) for state in found[2]])

    def flops(self, grid: Grid | tuple[int, ...]) -> int:
        """Floating point operations of a forward pass over one sequence; a scan counts 9 a step, channel and state."""
        sizes, extra = sizes_of(grid, 0)
        length, inner = math.prod(sizes) + len(extra), self.d_inner
        visits = self._walks.over(sizes, extra, torch.device("cpu")).visits
        each = self.parameters_per_path == "separate" or (self.parameters_per_path == "shared" and self.conv == "path")
        projected = visits if each else length
        convolved = projected if self.conv == "path" else length
        taps = self.d_conv ** (self.axes if self.conv == "grid" else 1)
        outer = length * self.d_model * inner * (3 if self.gate else 2)
        step = projected * inner * (self.dt_rank + 2 * self.d_state + self.dt_rank)
        return 2 * (outer + step + convolved * inner * taps) + 9 * visits * inner * self.d_state

    def extra_repr(self) -> str:
        return f"scan={self.scan}, paths={self.paths}, parameters={self.parameters_per_path}, conv={self.conv}, merge={self.merge}"

    def _convolve(self, x, order, grid, state, seq_idx) -> tuple[Tensor, Tensor | None]:
        if self.conv == "none":
            return F.silu(x), None
        layers = self._layers(self._conv_name, self._conv_ends)
        if self.conv == "grid":
            return F.silu(convolved_on_grid(layers[0], x, self.d_conv, *sizes_of(grid, x.shape[1]))), None
        before = None if state is None else state.conv
        return convolved(layers, x, self.d_conv, "silu", order, seq_idx, before, self.backend)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """delta without the bias left out, B and C of every path from (batch, [paths,] length, channels); B and C are views."""
        layers = self._layers("x_proj")
        both, bias = product(layers, x), bias_left_out(layers)
        if bias is not None:
            both = both + (bias if bias.dim() == 1 else bias[:, None])
        step, B, C = both.split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        if self.norms != "none":
            step, B, C = (self._normed(t, name) for t, name in zip((step, B, C), NORMED, strict=True))
        return product(self._layers("dt_proj"), step), B, C

    def _normed(self, t: Tensor, name: str) -> Tensor:
        if self.norms == "weightless":
            return F.rms_norm(t, t.shape[-1:], eps=self.norm_eps)
        return normed(self._layers(f"{name}_layernorm"), t, self.norm_eps)

    def _project_in(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        x = applied(self.in_proj, x)
        return x.chunk(2, dim=-1) if self.gate else (x, None)

    def _mix_shares(self, x: Tensor, shares: Shares, grid) -> Tensor:
        """The same result, with each token convolved and projected only for the path that it is on."""
        x, z = self._project_in(x)
        if self.conv != "path":
            x, _ = self._convolve(x, None, grid, None, None)
        x = x.index_select(1, shares.tokens.flatten())
        x = x.unflatten(1, (self.paths, x.shape[1] // self.paths))
        if self.conv == "path":
            x, _ = self._convolve(x, None, None, None, None)
        delta, B, C = self._project(x)
        y = selective_scan(
            x, delta, self._decay(), B, C, self._skip(), None, bias_left_out(self._layers("dt_proj")), True,
            merge="none", backend=self.backend,
        )  # fmt: skip
        y = y.flatten(1, 2)
        tokens = y.index_select(1, shares.slot)
        if shares.met is not None:
            met = y.index_select(1, shares.meeting.flatten()).unflatten(1, shares.meeting.shape).sum(2)
            tokens = tokens.index_copy(1, shares.met, met)
        if self.merge == "mean":
            tokens = tokens / self.paths
        return tokens if z is None else tokens * F.silu(z)

    def _shares_tokens(self, way: Walk) -> bool:
        """Whether gathering each path's tokens saves work: where what a token is projected to depends on the path."""
        if way.shares is None or self.merge == "none":
            return False
        return self.parameters_per_path == "separate" or (self.parameters_per_path == "shared" and self.conv == "path")

    def _way(self, x: Tensor, grid) -> Walk:
        sizes, extra = self._walks.grid(x, grid)
        if self.conv == "grid" and len(sizes) != self.axes:
            raise UserError(
                f"this mixer was made for grids of {self.axes} axes", given=f"grid {sizes}",
                allowed=f"{self.axes} axes", do=f"Mamba(..., axes={len(sizes)})",
            )  # fmt: skip
        return self._walks.over(sizes, extra, x.device)

    def _check(self, causal: bool, state: MambaState | None, seq_idx: Tensor | None) -> None:
        if state is not None and not causal:
            raise UserError(
                "a state can only be carried along one path in raster order", given=f"scan={self.scan}, conv={self.conv}",
                allowed='scan="raster" with conv="path" or "none"',
            )  # fmt: skip
        if seq_idx is not None and self.conv == "grid":
            raise UserError(
                "packed sequences cannot be convolved on a grid", given="conv=grid with seq_idx",
                allowed="conv=path, conv=none",
            )  # fmt: skip

    def _decay(self) -> Tensor:
        logs = [getattr(self, f"A{end}_log") for end in self._decay_ends]
        log = logs[0] if len(logs) == 1 else torch.stack(logs)
        return -torch.exp(log if log.dtype == torch.float64 else log.float())

    def _skip(self) -> Tensor:
        parts = [getattr(self, f"D{end}") for end in self._ends]
        return parts[0] if len(parts) == 1 else torch.stack(parts)

    def _layers(self, name: str, ends: Sequence[str] | None = None) -> list[nn.Module]:
        """The one layer of that name, or those of the paths."""
        return [getattr(self, name + end) for end in (self._ends if ends is None else ends)]

    def _add_decays_and_skips(self, device: torch.device | None, dtype: torch.dtype | None) -> None:
        kept = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        values = {f"A{end}_log": log_decay(self.d_inner, self.d_state, device) for end in self._decay_ends}
        values |= {f"D{end}": torch.ones(self.d_inner, device=device) for end in self._ends}
        for name, value in values.items():
            parameter = nn.Parameter(value.to(kept))
            parameter._no_weight_decay = True
            self.register_parameter(name, parameter)

    def _add_convolutions(self, bias: bool, factory: dict) -> None:
        kind = nn.Conv1d if self.conv == "path" else (nn.Conv1d, nn.Conv2d, nn.Conv3d)[self.axes - 1]
        for end in self._conv_ends:
            convolution = kind(self.d_inner, self.d_inner, self.d_conv, groups=self.d_inner, bias=bias, **factory)
            self.add_module(self._conv_name + end, convolution)

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        """As for every module; a checkpoint that holds the parameters of other paths is named as such (UserError)."""
        if strict:
            check_path_parameters(self, state_dict)
        return super().load_state_dict(state_dict, strict, assign)


def _suffixes(paths: int) -> list[str]:
    letters = [chr(ord("a") + i) if i < 26 else f"path{i}" for i in range(paths)]
    return ["", *letters[1:]]
