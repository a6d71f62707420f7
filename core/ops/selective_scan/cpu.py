"""The selective scan on the CPU: memory, records and threads around cpu_kernels.py. Contract: registration.py."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..lanes import WIDTH
from ..team import rows, scratch
from ..visits import visits
from .cpu_kernels import RECORD, K, backward_scan, forward_scan

# Work items wanted per call, so that two to sixteen threads share the work evenly; and the widest item, in blocks: what
# its states and one chunk's tiles take stays within a core's second-level cache.
ITEMS_WANTED, WIDEST = 16, 16


def saved_shape(batch, paths, steps, channels, groups, states) -> tuple[int, ...]:
    """Shape of the saved states: one state at the start of every chunk."""
    return (batch, paths, -(-steps // K), groups, -(-channels // groups // WIDTH), states, WIDTH)


def forward(x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge, save):
    """Outputs, final state and what backward needs."""
    (batch, _, length, channels), (paths, _, states), dtype = x.shape, A.shape, x.dtype
    call = _Call(x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge)
    covers = bool(call.covers[0]) if call.merged else bool(call.covers.all())
    shape = (batch, length, channels) if call.merged else (batch, paths, length, channels)
    create = torch.empty if covers else torch.zeros
    ungated = create(shape) if save and z is not None else None
    out = create(shape) if ungated is None or covers else torch.empty(shape)
    final = torch.empty(batch, paths, channels, states)
    kept = torch.empty(saved_shape(batch, paths, call.steps, channels, call.groups, states) if save else (0,))
    call.point(out=out, ungated=ungated, final=final, states=kept if save else None)
    call.run(forward_scan, blocks_in_scratch=2 * states)
    return out.to(dtype), final, kept, torch.empty(0) if ungated is None else ungated


def backward(
    grad_out, grad_state, x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge,
    chunk_states, ungated,
):  # fmt: skip
    """Gradients of every differentiable input."""
    given = (x, delta, A, B, C, D, z, delta_bias, initial_state)
    (batch, _, length, channels), (paths, _, states) = x.shape, A.shape
    call = _Call(x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge)
    splits = call.record["splits"][0]

    def like_rows(t: Tensor) -> Tensor:
        covered = bool(call.covers[0]) if t.shape[1] == 1 else bool(call.covers.all())
        return (torch.empty if covered else torch.zeros)(t.shape)

    dx, ddelta = like_rows(x), like_rows(delta)
    dB, dC = (torch.zeros(splits, *t.shape) for t in (B, C))
    dA, dD, dbias = torch.empty(batch, paths, channels, states), *torch.empty(2, batch, paths, channels)
    dz = None if z is None else torch.empty(z.shape)
    dinitial = None if initial_state is None else torch.empty(initial_state.shape)
    grad_final = None if grad_state is None else grad_state.float().contiguous()
    call.point(
        grad_out=rows(grad_out), grad_final=grad_final, ungated=ungated if z is not None else None, states=chunk_states,
        dx=dx, ddelta=ddelta, dA=dA, dB=dB, dC=dC, dD=dD, dz=dz, dbias=dbias, dinitial=dinitial,
    )  # fmt: skip
    call.run(backward_scan, blocks_in_scratch=3 * states + 2, extra=4 * K + 4 * K * states)
    found = (
        dx, ddelta, dA.sum(0), dB.sum(0), dC.sum(0), None if D is None else dD.sum(0), dz,
        None if delta_bias is None else dbias.sum(0), dinitial,
    )  # fmt: skip
    return tuple(None if t is None else g.to(t.dtype) for t, g in zip(given, found, strict=True))


class _Call:
    """The record of one kernel run, and the tensors that keep its addresses valid."""

    def __init__(
        self, x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge
    ):  # fmt: skip
        (batch, _, length, channels), (paths, _, states) = x.shape, A.shape
        self.merged, self.groups = merge != "none", B.shape[3]
        order = None if order is None else order.to(torch.int32).contiguous()
        self.steps = length if order is None else order.shape[2]
        self.covers = visits(order, length, paths)
        width = channels // self.groups
        blocks = -(-width // WIDTH)
        splits = min(blocks, max(-(-blocks // WIDEST), -(-ITEMS_WANTED // max(1, batch * self.groups))))
        self.width = -(-blocks // max(1, splits))
        self.record, self.alive = np.zeros(1, RECORD), []
        self.set(
            batch=batch, paths=paths, length=length, steps=self.steps, channels=channels, groups=self.groups, N=states,
            splits=splits, blocks=blocks, chunks=-(-self.steps // K), softplus=delta_softplus, merged=self.merged,
            items=batch * self.groups * splits, scale=1 / paths if merge == "mean" else 1,
            out_batch=4 * length * channels * (1 if self.merged else paths), out_path=0 if self.merged else 4 * length * channels,
        )  # fmt: skip
        flat = (t if t is None else t.float().contiguous() for t in (A, D, delta_bias, initial_state))
        seq = None if seq_idx is None else seq_idx.to(torch.int32).contiguous()
        names = ("A", "D", "bias", "initial", "order", "seq", "covers")
        self.point(**dict(zip(names, (*flat, order, seq, self.covers), strict=True)))
        self.point(x=rows(x), delta=rows(delta), B=rows(B), C=rows(C), z=None if z is None else rows(z))
        if order is not None:
            self.set(order_path=4 * self.steps, order_batch=4 * self.steps * paths if order.shape[0] > 1 else 0)

    def set(self, **values) -> None:
        for name, value in values.items():
            self.record[name] = value

    def point(self, **tensors: Tensor | None) -> None:
        """Give the kernel these tensors: their addresses and, where it walks them by token, their strides in bytes."""
        for name, tensor in tensors.items():
            if tensor is None:
                continue
            self.alive.append(tensor)
            self.record[name] = tensor.data_ptr()
            stride = [4 * s if size > 1 else 0 for s, size in zip(tensor.stride(), tensor.shape, strict=True)]
            if name in ("x", "delta"):
                self.set(**{f"{name}_batch": stride[0], f"{name}_path": stride[1], f"{name}_token": stride[2]})
            elif name in ("B", "C"):
                self.set(**dict(zip((f"{name}_{axis}" for axis in ("batch", "path", "token", "group")), stride, strict=False)))
            elif name == "z":
                self.set(z_batch=stride[0], z_token=stride[1])
            elif name == "grad_out":
                path = 0 if self.merged else stride[1]
                self.set(grad_batch=stride[0], grad_path=path, grad_token=stride[-2])
            elif name in ("dx", "ddelta"):
                self.set(**{f"{name}_path": stride[1]})
            elif name == "dB":
                self.set(dB_split=4 * tensor[0].numel(), dB_path=stride[2])

    def run(self, kernel, blocks_in_scratch: int, extra: int = 0) -> None:
        items, threads = int(self.record["items"][0]), torch.get_num_threads()
        if not items:
            return
        memory = scratch((self.width * blocks_in_scratch + extra) * WIDTH, min(threads, items))
        counters = torch.zeros(2, dtype=torch.int64)
        self.alive += [memory, counters]
        self.set(
            scratch=memory.data_ptr(), scratch_bytes=4 * memory.shape[1], tickets=counters.data_ptr(),
            slots=counters.data_ptr() + 8,
        )  # fmt: skip
        kernel.run(self.record, items)
