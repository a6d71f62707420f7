"""The state space layer of TiM4Rec and of its authors' SSD4Rec: Mamba-2's, with two differences of theirs.

Where the number of heads is no multiple of 8 their convolution is followed by Hardswish instead of SiLU (a fall-back for a
kernel's sake), and a scale a step and head may multiply the step sizes before bias and softplus. Names are mamba_ssm's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError
from ....core.initialisation import init_step_bias
from ....core.linear import applied
from ....core.mixers.gated_norm import GatedRMSNorm
from ....core.mixers.mamba2 import Mamba2State
from ....core.ops.causal_conv1d import causal_conv1d
from ....core.ops.state_space_duality import state_space_duality
from ....core.packing import has_padding, skip_padding, without_padding
from .mixing import Backend


class StateSpace(nn.Module):
    """Mamba-2 along the events, forwards: (batch, length, channels) to the same.

    Args:
        channels, d_state, d_conv, expand, head_channels: of the events; states a channel; taps; inner channels a channel;
            inner channels of a head.
        hardswish: behind the convolution, instead of SiLU. eps: of the norm. backend: of the operators.
    """

    def __init__(
        self, channels: int, d_state: int, d_conv: int, expand: float, head_channels: int, hardswish: bool = False,
        eps: float = 1e-12, backend: Backend = "auto",
    ):  # fmt: skip
        super().__init__()
        inner = int(expand * channels)
        check_heads(inner, head_channels)
        self.heads, self.d_state, self.d_conv = inner // head_channels, d_state, d_conv
        self.hardswish, self.backend = hardswish, backend
        self._sizes = [inner, inner + 2 * d_state, self.heads]
        self.in_proj = nn.Linear(channels, sum(self._sizes))
        self.conv1d = nn.Conv1d(self._sizes[1], self._sizes[1], d_conv, groups=self._sizes[1])
        self.dt_bias = nn.Parameter(torch.empty(self.heads))
        init_step_bias(self.dt_bias, 0.001, 0.1, 1e-4)
        self.A_log = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(self.heads))
        self.A_log._no_weight_decay = self.D._no_weight_decay = True
        self.norm, self.out_proj = GatedRMSNorm(inner, eps=eps, backend=backend), nn.Linear(inner, channels)

    def forward(
        self,
        x: Tensor,
        grid=None,
        state: Mamba2State | None = None,
        seq_idx: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> tuple[Tensor, Mamba2State]:
        """As every mixer of the core; scale: (batch, length, heads), of the step sizes."""
        z, xbc, dt = applied(self.in_proj, without_padding(x, seq_idx)).split(self._sizes, -1)
        xbc, conv = self.convolved(xbc, self.conv1d, None if state is None else state.conv, seq_idx)
        inner, B, C = xbc.split([self._sizes[0], self.d_state, self.d_state], -1)
        rates = self.A_log if self.A_log.dtype == torch.float64 else self.A_log.float()
        y, ssm = state_space_duality(
            inner.unflatten(-1, (self.heads, -1)), dt if scale is None else dt * scale, -rates.exp(),
            B.unsqueeze(-2), C.unsqueeze(-2), self.D, dt_bias=self.dt_bias, dt_softplus=True, order=_order(seq_idx),
            seq_idx=seq_idx, initial_state=None if state is None else state.ssm, return_final_state=True, backend=self.backend,
        )  # fmt: skip
        return applied(self.out_proj, self.norm(y.flatten(-2), z)), Mamba2State(conv, ssm)

    def state_shapes(self, batch: int) -> Mamba2State:
        """The shapes of a state of so many sequences."""
        inner, mixed, _ = self._sizes
        return Mamba2State((batch, mixed, self.d_conv - 1), (batch, self.heads, inner // self.heads, self.d_state))

    def convolved(
        self, x: Tensor, layer: nn.Conv1d, state: Tensor | None, seq_idx: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(batch, length, channels) through a causal depthwise convolution and the activation, and the last inputs."""
        weight, activation = layer.weight.squeeze(1), None if self.hardswish else "silu"
        y, state = causal_conv1d(x, weight, layer.bias, activation, _order(seq_idx), seq_idx, state, True, self.backend)
        return F.hardswish(y) if self.hardswish else y, state


def check_heads(inner: int, head_channels: int) -> None:
    """Raise a UserError where heads of so many channels do not divide the inner channels."""
    if inner % head_channels:
        raise UserError(
            "the heads must divide the inner channels", given=f"{inner} channels, heads of {head_channels}",
            allowed=[size for size in range(1, inner + 1) if inner % size == 0],
        )  # fmt: skip


def falls_back(inner: int, head_channels: int) -> bool:
    """Whether the authors' code takes Hardswish for SiLU."""
    return inner // head_channels % 8 != 0


def _order(seq_idx: Tensor | None) -> Tensor | None:
    return skip_padding(None, seq_idx) if seq_idx is not None and has_padding(seq_idx) else None
