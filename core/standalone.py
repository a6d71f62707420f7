"""A model as a TorchScript module that runs without this package: PyTorch alone loads it, for inputs of one shape.

    standalone(model, example).save("model.ts")
    torch.jit.load("model.ts")(example)

torch.export writes the model out in PyTorch's own operators and in two of this package's, the causal convolution and the selective
scan; these are replaced by scripted functions with the same results, slower than the kernels, whose memory is that of a chunk.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.nn import functional as F

from .errors import UserError

CHUNK = 64  # steps whose states are in memory at once


def scan_in_chunks(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool, order: Tensor | None, merge: str, chunk: int
) -> Tensor:  # fmt: skip
    """selective_scan_reference without packing and states to go on from, real A; the states of a chunk by doubling."""
    batch, paths, length = x.size(0), A.size(0), x.size(2)
    step = delta
    if delta_bias is not None:
        step = step + delta_bias[None, :, None]
    if delta_softplus:
        step = F.softplus(step)
    if B.size(3) > 1:
        B = B.repeat_interleave(x.size(3) // B.size(3), 3)
        C = C.repeat_interleave(x.size(3) // C.size(3), 3)
    token = torch.arange(length, device=x.device).expand(batch, paths, length)
    if order is not None:
        token = order.long().expand(batch, paths, order.size(2))
    visited, rows, row = token >= 0, token.clamp_min(0), torch.arange(batch, device=x.device)[:, None, None]
    path = torch.arange(paths, device=x.device)[None, :, None]
    own = [path if each.size(1) > 1 else torch.zeros_like(path) for each in [x, step, B, C]]
    out = x.new_zeros(batch, paths, length + 1, x.size(3))
    state = x.new_zeros(batch, paths, 1, x.size(3), A.size(2))
    for start in range(0, token.size(2), chunk):
        at, here = rows[:, :, start : start + chunk], visited[:, :, start : start + chunk]
        u, dt = x[row, own[0], at], step[row, own[1], at] * here[..., None]
        b, c = B[row, own[2], at], C[row, own[3], at]
        decay = torch.exp(dt[..., None] * A[None, :, None])
        states = (dt * u)[..., None] * b
        shift = 1
        while shift < at.size(2):
            states = torch.cat(
                [states[:, :, :shift], states[:, :, shift:] + decay[:, :, shift:] * states[:, :, :-shift]], 2
            )
            decay = torch.cat([decay[:, :, :shift], decay[:, :, shift:] * decay[:, :, :-shift]], 2)
            shift = shift * 2
        states = states + decay * state
        state = states[:, :, -1:]
        y = (states * c).sum(-1)
        if D is not None:
            y = y + D[None, :, None] * u
        # what stands past the end of a short path goes to a row of its own
        out[row, path, torch.where(here, at, torch.full_like(at, length))] = y
    out = out[:, :, :length]
    if merge == "sum":
        out = out.sum(1)
    elif merge == "mean":
        out = out.mean(1)
    if z is not None:
        gate = F.silu(z)
        out = out * (gate[:, None] if merge == "none" else gate)
    return out


def convolution_along(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, order: Tensor | None
) -> Tensor:
    """causal_conv1d_reference without packing and inputs to go on from."""
    batch, length, paths, channels, width = x.size(0), x.size(2), weight.size(0), weight.size(1), weight.size(2)
    x = x.expand(batch, paths, length, channels)
    row, path = torch.arange(batch, device=x.device)[:, None, None], torch.arange(paths, device=x.device)[None, :, None]
    token = torch.arange(length, device=x.device).expand(batch, paths, length)
    if order is not None:
        token = order.long().expand(batch, paths, order.size(2))
    visited, rows = token >= 0, token.clamp_min(0)
    steps = x[row, path, rows] * visited[..., None]
    steps = F.pad(steps.permute(0, 1, 3, 2).reshape(batch, paths * channels, -1), [width - 1, 0])
    y = F.conv1d(steps, weight.reshape(paths * channels, 1, width), groups=paths * channels)
    y = y.reshape(batch, paths, channels, -1).permute(0, 1, 3, 2)
    if bias is not None:
        y = y + bias[None, :, None]
    if activation is not None:
        y = F.silu(y)
    out = x.new_zeros(batch, paths, length + 1, channels)
    out[row, path, torch.where(visited, rows, torch.full_like(rows, length))] = y
    return out[:, :, :length]


def standalone(model: nn.Module, example: Tensor) -> torch.jit.ScriptModule:
    """A TorchScript module that answers as the model does to inputs of the example's shape.

    Args:
        model: in eval mode, in float32.

    Raises:
        UserError: the model has operators of this package other than Mamba's.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PyTorch has to say of its own tracing and scripting
        module = torch.export.export(model, (example,), strict=False).module(check_guards=False)
        _write_out(module.graph)
        module.recompile()
        return torch.jit.trace(module, (example,), check_trace=False)


def _write_out(graph: Graph) -> None:
    """Puts the scripted functions in the place of this package's operators, in place."""
    graph.eliminate_dead_code()
    for node in list(graph.nodes):
        name = str(node.target)
        if name == "aten._assert_tensor_metadata.default":
            graph.erase_node(node)
        elif name == "polymamba.selective_scan.default":
            *tensors, order, seq_idx, state, merge, _, _ = node.args
            _put(graph, node, _scan, (*tensors, order, merge, CHUNK), (seq_idx, state))
        elif name == "polymamba.causal_conv1d.default":
            x, weight, bias, activation, order, seq_idx, state, _ = node.args
            _put(graph, node, _convolution, (x, weight, bias, activation, order), (seq_idx, state))
        elif name.startswith("polymamba."):
            raise _unknown(name)
    graph.lint()


# Called by a graph's Python code, which can name functions but no scripted ones; a trace looks through them.
def _scan(*arguments) -> Tensor:
    return _scripted(scan_in_chunks)(*arguments)


def _convolution(*arguments) -> Tensor:
    return _scripted(convolution_along)(*arguments)


@cache
def _scripted(function: Callable) -> torch.jit.ScriptFunction:
    return torch.jit.script(function)


def _put(graph: Graph, node: Node, function: Callable, arguments: tuple, unknown: tuple) -> None:
    """One output of an operator in place of its tuple; `unknown` are arguments that the function does not know."""
    if any(each is not None for each in unknown) or any(user.args[1] != 0 for user in node.users):
        raise _unknown(f"{node.target} with packing or a state")
    with graph.inserting_before(node):
        found = graph.call_function(function, arguments)
    for user in list(node.users):
        assert user.target is operator.getitem
        user.replace_all_uses_with(found)
        graph.erase_node(user)
    graph.erase_node(node)


def _unknown(what: str) -> UserError:
    return UserError(
        "this model cannot be written as TorchScript", given=what, allowed="Mamba's selective scan and convolution"
    )
