"""S4D (arXiv 2206.11893) in Mamba's block: the layer that does not select, beside those that do (arXiv 2312.00752, table 1).

Step size, B and C are parameters instead of functions of the token, so the state space is the same convolution at every token.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..initialisation import init_step_bias, log_decay
from ..linear import applied
from ..ops.selective_scan import selective_scan
from ..ops.transforms import watched
from ..precision import as_given
from ..ranges import Positive, Size, Weight, checked
from ..scans import Grid, Scan
from .mixer import Call, PathMixer
from .path_layers import convolved

# Of a state of which less than exp of this is left, nothing is: subnormal numbers make a matrix product 25 times as slow (Xeon).
SMALLEST = -80.0


class S4DState(NamedTuple):
    """What a mixer carries from one piece of a sequence to the next, float32.

    conv: (batch, channels, width - 1), the last inputs of the convolution. ssm: (batch, channels, states).
    """

    conv: Tensor
    ssm: Tensor


class Selection(NamedTuple):
    """What the state space is given.

    x: (batch, [paths,] length, channels), convolved. z: (batch, length, channels), the gate. conv: the convolution's part of the
    state to continue from. order: of selective_scan.
    """

    x: Tensor
    z: Tensor
    conv: Tensor
    order: Tensor | None


class S4D(PathMixer):
    """Diagonal state space mixer with real decays and no selection: h = exp(Δ A) h + Δ B x, y = C h + D x.

    Whole sequences in raster order are one long convolution (by Fourier transforms); packed ones, single tokens and other
    scans run through the selective scan with as many groups as channels, which gives the same and takes longer.

    Args:
        d_model: channels of the tokens.
        d_state: states per inner channel.
        d_conv: taps of the depthwise convolution before the state space.
        expand: inner channels per channel.
        dt_min, dt_max, dt_init_floor: step sizes at the start.
        bias, conv_bias: biases of the two outer projections and of the convolution.
        scan, axes, merge: see PathMixer.
        backend: backend of the operators.
        device, dtype: of the parameters; those of the state space are float32 at least.
    """

    State = S4DState

    @checked
    def __init__(
        self,
        d_model: Size,
        d_state: Size = 16,
        d_conv: Size = 4,
        expand: Positive = 2,
        dt_min: Positive = 0.001,
        dt_max: Positive = 0.1,
        dt_init_floor: Weight = 1e-4,
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
        self.d_model, self.d_state, self.d_conv, self.backend = d_model, d_state, d_conv, backend
        self.d_inner = inner = int(expand * d_model)
        factory = {"device": device, "dtype": dtype}
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias, **factory)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner, bias=conv_bias, **factory)
        kept = {"device": device, "dtype": torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)}
        self.A_log = nn.Parameter(log_decay(inner, d_state, device).to(kept["dtype"]))
        self.B = nn.Parameter(torch.ones(inner, d_state, **kept))
        self.C = nn.Parameter(torch.randn(inner, d_state, **kept))
        self.D = nn.Parameter(torch.ones(inner, **kept))
        self.dt_bias = nn.Parameter(torch.empty(inner, **kept))
        init_step_bias(self.dt_bias, dt_min, dt_max, dt_init_floor)
        for parameter in (self.A_log, self.B, self.C, self.D):
            parameter._no_weight_decay = True
        self.out_proj = nn.Linear(inner, d_model, bias=bias, **factory)

    def call(self, x: Tensor, grid, state: S4DState | None, seq_idx: Tensor | None, share: bool = True) -> Call:
        # Whole sequences need no scan.
        alone = seq_idx is not None and seq_idx.shape == x.shape[:2] and _one_sequence(seq_idx)
        return super().call(x, grid, state, None if alone else seq_idx)

    def project(self, call: Call) -> Selection:
        x, z = applied(self.in_proj, call.x).chunk(2, -1)
        before = None if call.state is None else call.state.conv
        x, conv = convolved([self.conv1d], x, self.d_conv, "silu", call.order, call.seq_idx, before, self.backend)
        return Selection(x, z, conv, call.order)

    def mix_tokens(self, given: Selection, call: Call) -> tuple[Tensor, S4DState]:
        before, x = None if call.state is None else call.state.ssm, given.x
        if given.order is None and call.seq_idx is None and x.shape[1] > 1 and x.numel():
            with as_given(x):
                y, ssm = self._convolve(x, before)
            y = y * F.silu(given.z)
        else:
            y, ssm = self._scan(x, given.z, given.order, call.seq_idx, before)
        return y, S4DState(given.conv, ssm)

    def finish(self, y: Tensor, given: Selection) -> Tensor:
        return applied(self.out_proj, y)

    def state_shapes(self, batch: int) -> S4DState:
        return S4DState((batch, self.d_inner, self.d_conv - 1), (batch, self.d_inner, self.d_state))

    def flops(self, grid: Grid | tuple[int, ...]) -> int:
        """Floating point operations of a forward pass over one sequence; a Fourier transform counts 5 n log2 n."""
        length, visits = self._visits(grid)
        outer = 2 * length * self.d_model * 3 * self.d_inner
        if self.paths > 1:
            return outer + visits * self.d_inner * (2 * self.d_conv + 9 * self.d_state)
        transform = 5 * 2 * length * math.log2(2 * length)
        return outer + int(self.d_inner * (2 * length * (self.d_conv + 2 * self.d_state) + 2.5 * transform))

    def _convolve(self, x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """One path in raster order, as a convolution: outputs before the gate, and the state after the last token.

        Args:
            x: (batch, length, channels). before: (batch, channels, states).
        """
        kind, length = x.dtype, x.shape[1]
        step, rate, B, C, D = self.state_space()
        x = x.to(step.dtype).transpose(1, 2)
        # (channels, states, length + 1): what is left of a state after so many tokens.
        exponent = rate[..., None] * torch.arange(length + 1, device=x.device, dtype=x.dtype)
        left = exponent.clamp(min=SMALLEST).exp().masked_fill(exponent < SMALLEST, 0)
        kernel = torch.einsum("cn,cnl->cl", step * B * C, left[..., :-1])
        # Along the last axis, contiguous: torch.compile expects other strides of transforms along another one.
        padded = 2 * length if watched() else _quick_length(2 * length)
        spectrum = torch.fft.rfft(x.contiguous(), padded) * torch.fft.rfft(kernel, padded)
        y = torch.fft.irfft(spectrum, padded)[..., :length] + D[:, None] * x
        after = step * B * torch.einsum("bcl,cnl->bcn", x, left[..., :-1].flip(-1))
        if before is not None:
            before = before.to(x.dtype)
            y = y + torch.einsum("bcn,cnl->bcl", before * C, left[..., 1:])
            after = after + before * left[..., -1]
        return y.transpose(1, 2).to(kind), after

    def state_space(self) -> tuple[Tensor, ...]:
        """Step size (channels, 1), Δ A, B, C (channels, states) and D (channels,), in float32 at least."""
        log, B, C, D, bias = (
            t.to(torch.promote_types(t.dtype, torch.float32))
            for t in (self.A_log, self.B, self.C, self.D, self.dt_bias)
        )
        step = F.softplus(bias)[:, None]
        return step, -torch.exp(log) * step, B, C, D

    def _scan(self, x, z, order, seq_idx, before) -> tuple[Tensor, Tensor]:
        """Any paths: each channel is a group with its own B and C, the same at every token."""
        batch, length = x.shape[0], x.shape[-2]
        log = self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32))
        B, C = (t.to(x.dtype).expand(batch, 1, length, -1, -1) for t in (self.B, self.C))
        y, after = selective_scan(
            x, torch.zeros_like(x), -torch.exp(log), B, C, self.D, z, self.dt_bias, True, order, seq_idx, before, True,
            self.merge, self.backend,
        )  # fmt: skip
        return y if x.dim() == 4 or self.merge != "none" else y.squeeze(1), after.squeeze(1)


@functools.cache
def _quick_length(least: int) -> int:
    """The first number from `least` on without prime factors above 5: the inverse transform of 2,064 takes twice that of 2,160."""
    length = least
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


def _one_sequence(seq_idx: Tensor) -> bool:
    """Whether every row is one sequence without padding; where asking would break a trace, the answer is no."""
    if watched() or not seq_idx.numel() or seq_idx.is_floating_point():
        return False
    return bool((seq_idx == seq_idx[:, :1]).all() and (seq_idx[:, 0] >= 0).all())
