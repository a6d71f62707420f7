"""The Mamba-1 mixer over any scan (Mamba, arXiv 2312.00752, figure 3; Vision Mamba, arXiv 2401.09417, algorithm 1).

Parameter names are those of published checkpoints: path_parameters.py, convolutions.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import check_choice
from ..initialisation import init_step_bias, init_step_projection
from ..linear import CONVOLUTION, applied, plain_parameters
from ..ops.mamba_decode import MambaWeights, mamba_decode
from ..ops.selective_layer import LayerWeights, selective_layer, takes
from ..ops.selective_scan import selective_scan
from ..ranges import Positive, Size, Weight, checked
from ..scans import Grid, Scan
from .convolutions import CONVOLUTIONS, GridConvolution, NoConvolution, PathConvolution
from .mixer import Call, PathMixer
from .path_parameters import NORMED, PARAMETERS, PathParameters, check_path_parameters

NORMS = ("none", "weightless", "learned")


class MambaState(NamedTuple):
    """What a mixer carries from one piece of a sequence to the next.

    conv: (batch, channels, width - 1) float32, the last inputs of the convolution; None without one.
    ssm: (batch, channels, states) float32.
    """

    conv: Tensor | None
    ssm: Tensor


class Selection(NamedTuple):
    """What a mixer gives to selective_scan, and what its answer meets.

    x, delta (before bias and softplus), A, B, C, D, order: as there. delta_bias: ([paths,] channels); None: delta has it already.
    z: (batch, length, channels), the gate that the scan applies, gate: that `finish` applies; None: none. conv: the convolution's
    part of the state to continue from.
    """

    x: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    delta_bias: Tensor | None
    order: Tensor | None
    z: Tensor | None
    gate: Tensor | None
    conv: Tensor | None


# What `finish` is given where the gate has been applied.
NO_SELECTION = Selection(*[None] * len(Selection._fields))


class Mamba(PathMixer):
    """Selective state space mixer whose tokens are visited in the order of a scan.

    Args:
        d_model: channels of the tokens.
        d_state: states per inner channel.
        d_conv: kernel size of the depthwise convolution; None: 4 along the path, 3 on the grid.
        expand: inner channels per channel.
        dt_rank: rank of the step projection; "auto": d_model / 16, rounded up.
        dt_min, dt_max, dt_init_floor: step sizes at the start. dt_init ("random" or "constant"), dt_scale: their projection.
        bias, conv_bias: biases of the two outer projections and of the convolution.
        scan, axes, merge: see PathMixer.
        parameters: "separate" (each path its own), "shared" (one set), "decay" (one set, but a decay per path) or "stacked"
            (each path its own, in one tensor each), or what makes such an object of the number of paths: path_parameters.py.
        conv: "path" (causal, along each path), "grid" (over the grid, not causal) or "none", or what makes such an object:
            convolutions.py. SiLU follows in each case.
        gate: multiply by SiLU of a second half of the input projection.
        norms: RMS norms over what x_proj says for the step, B and C, before they are used: "none", "weightless"
            (FalconMamba, arXiv 2410.05355) or "learned" (Jamba, arXiv 2403.19887, section 6.4: dt_layernorm, b_layernorm,
            c_layernorm). norm_eps: added to their mean squares.
        backend: backend of the operators.
        device, dtype: of the parameters; A_log and D are float32 at least.

    A subclass that does more to what comes out of the scan than to gate it says `scan_gates = False` and replaces `finish`.
    """

    State, decoder = MambaState, mamba_decode
    # Whether the scan applies the gate, which is quicker, or `finish` does.
    scan_gates = True

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
        parameters: str | Callable[[int], PathParameters] = "separate",
        conv: str | Callable[..., PathConvolution | GridConvolution | NoConvolution] = "path",
        gate: bool = True,
        merge: str = "sum",
        norms: str = "none",
        norm_eps: Positive = 1e-6,
        backend: str = "auto",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(scan, axes, merge)
        check_choice("norms", norms, NORMS)
        self.d_model, self.d_state, self.d_inner = d_model, d_state, int(expand * d_model)
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self.gate, self.norms, self.norm_eps, self.backend = gate, norms, norm_eps, backend
        self.path_parameters = _made("parameters", parameters, PARAMETERS)(self.paths)
        ends = self.path_parameters.ends
        self.convolution = _made("conv", conv, CONVOLUTIONS)(d_conv, axes, ends)
        self.d_conv, self.causal = self.convolution.width, self.convolution.name != "grid"
        # A part's own, not inherited: what extends a part may compute otherwise.
        decoded = all(vars(type(part)).get("decoded") for part in (self.path_parameters, self.convolution))
        self.one_raster_path = self._walks.raster and merge != "none" and decoded

        factory = {"device": device, "dtype": dtype}
        self.in_proj = nn.Linear(d_model, self.d_inner * (2 if gate else 1), bias=bias, **factory)
        self.convolution.add(self, conv_bias, factory)

        def begin(weight: Tensor, bias: Tensor) -> None:
            init_step_projection(weight, dt_init, dt_scale)
            init_step_bias(bias, dt_min, dt_max, dt_init_floor)

        self.path_parameters.add(self, begin, norm_eps if norms == "learned" else None, factory)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias, **factory)

    def mixed(self, call: Call) -> tuple[Selection, Tensor, MambaState]:
        """As of every mixer; on a CPU in one step, where nothing of it is a subclass's own."""
        weights = self._layer_weights() if call.state is None and call.seq_idx is None and call.shares is None else None
        if weights is not None and takes(call.x, weights, call.order, self.backend):
            x = applied(self.in_proj, call.x)
            found = selective_layer(x, self.gate, weights, call.order, self.merge, self.backend)
            if found is not None:
                return NO_SELECTION, found[0], MambaState(*found[1:])
        return super().mixed(call)

    def _layer_weights(self) -> LayerWeights | None:
        """What selective_layer reads; None where it does not compute the same."""
        kind, parameters = type(self), self.path_parameters
        if any(
            getattr(kind, name) is not getattr(Mamba, name)
            for name in ("project", "project_in", "selection", "mix_tokens", "finish", "gated")
        ):
            return None
        if not self.scan_gates or self.norms != "none" or type(self.convolution) is not PathConvolution:
            return None
        parts, conv = parameters.parts(self), self.convolution.parts(self)
        return None if parts is None or conv is None else LayerWeights(*conv, *parts)

    def _decay(self) -> Tensor:
        log = self.path_parameters.decay_log(self)
        return -torch.exp(log if log.dtype == torch.float64 else log.float())

    def project(self, call: Call) -> Selection:
        x, z = self.project_in(call.x)
        parameters, convolution, shares = self.path_parameters, self.convolution, call.shares
        if shares is not None and convolution.along_path:
            x = shares.take(x)
        x, conv = convolution(self, x, call, call.order if parameters.follows else call.raster)
        if shares is not None and not convolution.along_path:
            x = shares.take(x)
        delta, B, C = self.selection(x, call)
        z, gate = (z, None) if self.scan_gates and shares is None else (None, z)
        skip, bias = parameters.skip(self), parameters.step_bias(self)
        return Selection(x, delta, self._decay(), B, C, skip, bias, call.order, z, gate, conv)

    def project_in(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """What goes to the convolution, (batch, length, channels), and the gate."""
        x = applied(self.in_proj, x)
        return x.chunk(2, dim=-1) if self.gate else (x, None)

    def selection(self, x: Tensor, call: Call) -> tuple[Tensor, Tensor, Tensor]:
        """delta (without `step_bias`), B and C, of what comes out of the convolution, (batch, [paths,] length, channels)."""
        return self.path_parameters.read(self, x)

    def mix_tokens(self, given: Selection, call: Call) -> tuple[Tensor, MambaState]:
        y, ssm = selective_scan(
            given.x, given.delta, given.A, given.B, given.C, given.D, given.z,
            given.delta_bias, True, given.order, call.seq_idx, None if call.state is None else call.state.ssm, True,
            self.merge if call.shares is None else "none", self.backend,
        )  # fmt: skip
        return y if call.shares is None else call.shares.put_back(y, self.merge), MambaState(given.conv, ssm)

    def finish(self, y: Tensor, given: Selection) -> Tensor:
        return applied(self.out_proj, self.gated(y, given))

    def gated(self, y: Tensor, given: Selection) -> Tensor:
        """What came out of the scan with the gate applied, where the scan has not."""
        if given.gate is None:
            return y
        return y * F.silu(given.gate[:, None] if self.merge == "none" else given.gate)

    def shares_tokens(self) -> bool:
        """Where what a token is projected to depends on the path."""
        parameters = self.path_parameters
        return self.merge != "none" and (parameters.own or (parameters.follows and self.convolution.along_path))

    def weights(self) -> MambaWeights | None:
        if not self.one_raster_path:
            return None
        layers, parameters, end = self._modules, self._parameters, self.path_parameters.ends[0]
        found = [plain_parameters(layers[name]) for name in ("in_proj", f"x_proj{end}", f"dt_proj{end}", "out_proj")]
        found.append(plain_parameters(layers[f"conv1d{end}"], CONVOLUTION))
        if None in found or found[1][1] is not None:
            return None
        (in_proj, in_bias), (x_proj, _), (dt_proj, dt_bias), (out_proj, out_bias), (conv, conv_bias) = found
        norms = None if self.norms == "none" else (None,) * 3
        if self.norms == "learned":
            normed = [plain_parameters(layers[f"{name}_layernorm{end}"], (nn.RMSNorm,)) for name in NORMED]
            if None in normed:
                return None
            norms = tuple(weight for weight, _ in normed)
        return MambaWeights(
            in_proj, in_bias, conv, conv_bias, x_proj, dt_proj, dt_bias, parameters[f"A{end}_log"], parameters[f"D{end}"],
            out_proj, out_bias, norms, self.norm_eps,
        )  # fmt: skip

    def state_shapes(self, batch: int) -> MambaState:
        return MambaState((batch, self.d_inner, self.d_conv - 1), (batch, self.d_inner, self.d_state))

    def flops(self, grid: Grid | tuple[int, ...]) -> int:
        """Floating point operations of a forward pass over one sequence; a scan counts 9 a step, channel and state."""
        length, visits = self._visits(grid)
        parameters, convolution, inner = self.path_parameters, self.convolution, self.d_inner
        projected = visits if parameters.own or (parameters.follows and convolution.along_path) else length
        convolved = projected if convolution.along_path else length
        outer = length * self.d_model * inner * (3 if self.gate else 2)
        step = projected * inner * (self.dt_rank + 2 * self.d_state + self.dt_rank)
        return 2 * (outer + step + convolved * inner * convolution.taps) + 9 * visits * inner * self.d_state

    def extra_repr(self) -> str:
        parts = f"parameters={self.path_parameters.name}, conv={self.convolution.name}"
        return f"scan={self.scan}, paths={self.paths}, {parts}, merge={self.merge}"

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        """As for every module; a checkpoint that holds the parameters of other paths is named as such (UserError)."""
        if strict:
            check_path_parameters(self, state_dict)
        return super().load_state_dict(state_dict, strict, assign)


def _made(option: str, value: str | Callable, known: dict[str, Callable]) -> Callable:
    if not isinstance(value, str):
        return value
    check_choice(option, value, known)
    return known[value]
