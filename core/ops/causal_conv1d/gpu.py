"""The causal convolution on a GPU: Triton kernels over blocks of steps × channels, sums in float32.

A step's taps are gathered through the order where they lie; nothing is permuted. The backward first finds the gradient before
the activation (path by step), with the weights' gradients as one partial sum a block of steps, then gathers it for the
inputs; partial sums are added in a fixed order, without atomics, so results repeat bit for bit.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from ..blocks import cdiv, next_power_of_2
from .gpu_kernels import conv_backward_input_kernel, conv_backward_weight_kernel, conv_kernel, conv_state_kernel


class Plan(NamedTuple):
    """Sizes of one call, and its blocks: `rows` steps × `columns` channels, run by `warps`."""

    batch: int
    paths: int
    length: int
    steps: int
    channels: int
    width: int
    rows: int
    columns: int
    warps: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """P, L, S, D of the kernels."""
        return self.paths, self.length, self.steps, self.channels

    @property
    def constants(self) -> dict[str, int]:
        return {"W": self.width, "BS": self.rows, "BD": self.columns, "num_warps": self.warps}

    @property
    def column_blocks(self) -> int:
        return cdiv(self.channels, self.columns)

    def programs(self, steps: int) -> int:
        return self.batch * self.paths * cdiv(steps, self.rows) * self.column_blocks


def blocks_of(steps: int, channels: int, width: int) -> tuple[int, int, int]:
    """Steps and channels of a block, and its warps: 16 numbers a thread, 4 where there are many taps."""
    few = width <= 4
    columns = min(128, max(16, next_power_of_2(channels)))
    rows = min(16 if few else 8, max(4, next_power_of_2(steps)))
    return rows, columns, max(1, rows * columns // (512 if few else 128))


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, order: Tensor | None, seq_idx: Tensor | None,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Output (batch, paths, length, channels) and final state (batch, paths, channels, width - 1), float32."""
    plan = _plan(x, weight, order)
    inputs = _inputs(plan, x, weight, bias, order, seq_idx, initial_state)
    shape = (plan.batch, plan.paths, plan.length, plan.channels)
    out = x.new_empty(shape) if order is None else x.new_zeros(shape)  # the order may leave tokens out
    final_state = x.new_zeros((*shape[:2], plan.channels, plan.width - 1), dtype=torch.float32)
    with _on(x):
        if out.numel() and plan.steps:
            conv_kernel[(plan.programs(plan.steps),)](
                *inputs.tensors, out, *inputs.strides, *plan.sizes, SILU=activation == "silu", **plan.constants
            )
        if final_state.numel():
            conv_state_kernel[(plan.batch * plan.paths * plan.column_blocks,)](
                inputs.tensors[0], *inputs.tensors[3:], inputs.count, final_state, *inputs.strides, *plan.sizes,
                W=plan.width, BS=next_power_of_2(plan.width - 1), BD=plan.columns,
            )  # fmt: skip
    return out, final_state


def backward(
    grad_out: Tensor, grad_state: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None,
    order: Tensor | None, seq_idx: Tensor | None, initial_state: Tensor | None,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of x, weight, bias, initial_state; None where the argument is None."""
    plan = _plan(x, weight, order)
    inputs = _inputs(plan, x, weight, bias, order, seq_idx, initial_state)
    grad = _rows(grad_out)
    stride = grad.stride()[:-1]
    grad_state = None if grad_state is None else grad_state.float().contiguous()
    batch, paths, channels, width = plan.batch, plan.paths, plan.channels, plan.width
    summed = x.shape[1] != paths
    empty = torch.empty if order is None else torch.zeros  # the order may leave tokens out
    dx = empty((batch, paths, plan.length, channels), dtype=torch.float32 if summed else x.dtype, device=x.device)
    dpre = dx.new_empty((batch, paths, plan.steps, channels), dtype=torch.float32)
    blocks = cdiv(plan.steps, plan.rows)
    dweight = dpre.new_empty((batch, paths, blocks, width, channels))
    dbias = None if bias is None else dpre.new_empty((batch, paths, blocks, channels))
    dinitial = None if initial_state is None else dpre.new_zeros((batch, paths, channels, width - 1))
    with _on(x):
        if dpre.numel():
            conv_backward_weight_kernel[(plan.programs(plan.steps),)](
                *inputs.tensors, grad, dpre, dweight, dbias, *inputs.strides, stride, *plan.sizes,
                SILU=activation == "silu", **plan.constants,
            )  # fmt: skip
        reach = plan.steps + width - 1
        if plan.programs(reach):  # also where there is no token: the state's gradient passes by
            conv_backward_input_kernel[(plan.programs(reach),)](
                inputs.tensors[1], *inputs.tensors[3:5], inputs.count, dpre, grad_state, dx, dinitial, *inputs.strides,
                *plan.sizes, **plan.constants,
            )  # fmt: skip
    if summed:
        dx = dx.sum(1, keepdim=True)
    return (
        dx.to(x.dtype),
        dweight.sum((0, 2)).transpose(1, 2).to(weight.dtype).contiguous(),
        None if dbias is None else dbias.sum((0, 2)).to(bias.dtype),
        None if dinitial is None else dinitial.to(initial_state.dtype),
    )  # fmt: skip


class _Inputs(NamedTuple):
    """x, weight, bias, order, seq_idx, state as the kernels read them; strides of x, order, seq_idx; steps of each path."""

    tensors: tuple[Tensor | None, ...]
    strides: tuple[tuple[int, ...], ...]
    count: Tensor | None


def _inputs(plan: Plan, x, weight, bias, order, seq_idx, initial_state) -> _Inputs:
    x = _rows(x.expand(-1, plan.paths, -1, -1))
    weight, bias, state = (None if t is None else t.float().contiguous() for t in (weight, bias, initial_state))
    count = None
    if order is not None:
        order = _rows(order.expand(plan.batch, -1, -1))
        count = ((order >= 0) & (order < plan.length)).sum(-1, dtype=torch.int32)
    seq_idx = None if seq_idx is None else _rows(seq_idx)
    strides = tuple((0, 0) if t is None else t.stride()[:-1] for t in (x, order, seq_idx))
    return _Inputs((x, weight, bias, order, seq_idx, state), strides, count)


def _plan(x: Tensor, weight: Tensor, order: Tensor | None) -> Plan:
    (batch, _, length, channels), (paths, _, width) = x.shape, weight.shape
    steps = length if order is None else order.shape[-1]
    return Plan(batch, paths, length, steps, channels, width, *blocks_of(steps, channels, width))


def _rows(t: Tensor) -> Tensor:
    """The tensor with the last axis contiguous; other strides stay as they are."""
    return t if t.shape[-1] <= 1 or t.stride(-1) == 1 else t.contiguous()


def _on(x: Tensor):
    """Kernels are launched on the current device: make it the tensors' own."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
