"""What lies between the outer projections of a Mamba-1 mixer, as one step of autograd on the CPU: convolution, projections, scan.

It calls the kernels of causal_conv1d and selective_scan itself. Beside those operators one after the other it saves the
copies between them, gradients that are added up or put side by side afterwards, and most of the Python, which for narrow
layers takes as long as their matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from ..arguments import total
from ..causal_conv1d import causal_conv1d
from ..linear import linear
from ..registration import backend_module, plain, wants_gradient
from ..selective_scan import selective_scan

__all__ = ["LayerWeights", "selective_layer", "selective_layer_reference", "takes"]


# A parameter of all paths, with a paths axis or the same for all, or a list of each path's own, or of one for all.
Parts = Tensor | Sequence[Tensor]


class LayerWeights(NamedTuple):
    """conv: ([paths,] channels, 1, width), conv_bias, D, dt_bias: ([paths,] channels),
    x_proj: ([paths,] rank + 2 states, channels), dt_proj: ([paths,] channels, rank), A_log: ([paths,] channels, states), log(-A).

    A tensor without the paths axis is the same for all paths; the two projections both have it or neither.
    """

    conv: Parts
    conv_bias: Parts | None
    x_proj: Parts
    dt_proj: Parts
    A_log: Parts
    D: Parts
    dt_bias: Parts

    def flat(self) -> tuple[list[Tensor], tuple[int, ...]]:
        """All tensors, one behind the other, and how many there are of each parameter."""
        lists = [[] if field is None else [field] if isinstance(field, Tensor) else field for field in self]
        return [tensor for each in lists for tensor in each], tuple(map(len, lists))

    @classmethod
    def joined(cls, flat: Sequence[Tensor], counts: Sequence[int]) -> LayerWeights:
        """Of what `flat` says, each parameter in one tensor."""
        given = iter(flat)
        lists = ([next(given) for _ in range(count)] for count in counts)
        return cls(*(torch.stack(each) if len(each) > 1 else each[0] if each else None for each in lists))


def takes(x: Tensor, weights: LayerWeights, order: Tensor | None, backend: str = "auto") -> bool:
    """Whether a call is a plain one, which selective_layer computes: one device and dtype, nothing that traces or transforms."""
    given = (x, *weights.flat()[0])
    if backend not in ("auto", "cpu") or not plain((*given, order)) or not x.numel():
        return False
    return all(t.dtype == torch.float32 for t in given) and not torch.is_autocast_enabled("cpu")


def selective_layer(
    x: Tensor, gated: bool, weights: LayerWeights, order: Tensor | None, merge: str, backend: str = "auto"
) -> tuple[Tensor, Tensor, Tensor] | None:
    """u = silu(convolution of x), (step, B, C) = x_proj u, and the scan of u with the steps dt_proj step.

    Args:
        x: (batch, length, channels), float32, or, `gated`, (batch, length, 2 channels): the gate behind it.
        order: (paths, steps) or None.
        merge: of the scan.

    Returns:
        (batch, length, channels), for merge "none" (batch, paths, length, channels), and the final states of convolution and
        scan; None where it does not take the call.
    """
    if not takes(x, weights, order, backend):
        return None
    flat, counts = weights.flat()
    if wants_gradient((x, *flat)):
        y, kept, state = _Layer.apply(order, gated, merge, counts, x, *flat)
    else:
        (y, kept, state), _ = _forward(order, gated, merge, x, LayerWeights.joined(flat, counts), save=False)
    one = order is None and (not isinstance(weights.A_log, Tensor) or weights.A_log.dim() == 2)
    return (y, kept.squeeze(1), state.squeeze(1)) if one else (y, kept, state)


def selective_layer_reference(
    x: Tensor, gated: bool, weights: LayerWeights, order: Tensor | None, merge: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The same by the operators one after the other: differentiable without end."""
    conv, conv_bias, x_proj, dt_proj, A_log, D, dt_bias = LayerWeights.joined(*weights.flat())
    x, z = x.chunk(2, -1) if gated else (x, None)
    A = -A_log.exp()
    u, kept = causal_conv1d(x, conv.squeeze(-2), conv_bias, "silu", order, return_final_state=True)
    both = u @ x_proj.mT
    step, B, C = both.split([dt_proj.shape[-1], A.shape[-1], A.shape[-1]], -1)
    y, state = selective_scan(
        u, step @ dt_proj.mT, A, B, C, D, z, dt_bias, True, order, return_final_state=True, merge=merge
    )
    return y, kept, state


class _Parts(NamedTuple):
    """What forward and backward give to the kernels alike: parameters with their paths axis, x and gate, B and C."""

    x: Tensor
    z: Tensor | None
    conv: tuple[Tensor, Tensor | None]
    A: Tensor
    D: Tensor
    dt_bias: Tensor

    @classmethod
    def of(cls, x: Tensor, gated: bool, weights: LayerWeights, A: Tensor, paths: int) -> _Parts:
        x, z = x.chunk(2, -1) if gated else (x, None)
        conv = _of_paths(weights.conv.squeeze(-2), paths, 2), _of_paths(weights.conv_bias, paths, 1)
        D, bias = (_of_paths(t, paths, 1) for t in (weights.D, weights.dt_bias))
        return cls(x, z, conv, _of_paths(A, paths, 2), D, bias)

    def selection(self, u: Tensor, both: Tensor, delta: Tensor, order: Tensor | None, merge: str) -> tuple:
        """The arguments of the scan."""
        batch, states = u.shape[0], self.A.shape[-1]
        delta, B, C = (
            t.unflatten(1, (batch, u.shape[2])).transpose(0, 1)
            for t in (delta, *both[..., -2 * states :].split(states, -1))
        )
        B, C = B.unsqueeze(3), C.unsqueeze(3)
        return u, delta, self.A, B, C, self.D, self.z, self.dt_bias, True, order, None, None, merge


def _forward(order, gated, merge, x, weights: LayerWeights, save: bool) -> tuple[tuple, tuple]:
    """The results, and what backward wants of what lies between."""
    convolution, scan = _kernels()
    paths, order = (1, None) if order is None else (order.shape[0], order[None])
    A, rank = weights.A_log.exp().neg_(), weights.dt_proj.shape[-1]
    parts = _Parts.of(x, gated, weights, A, paths)
    u, kept = convolution.forward(parts.x[:, None], *parts.conv, "silu", order, None, None)
    both = _multiplied(_rows(u), weights.x_proj)
    delta = _multiplied(both[..., :rank], weights.dt_proj)
    y, state, chunks, ungated = scan.forward(*parts.selection(u, both, delta, order, merge), save)
    return (y, kept, state), (order, A, u, both, delta, chunks, ungated)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, order, gated, merge, counts, x, *flat):
        weights = LayerWeights.joined(flat, counts)
        results, between = _forward(order, gated, merge, x, weights, save=True)
        ctx.save_for_backward(x, *flat, *weights, *between)
        ctx.gated, ctx.merge, ctx.counts, ctx.paths = gated, merge, counts, 1 if order is None else order.shape[0]
        ctx.set_materialize_grads(False)
        return results

    @staticmethod
    def backward(ctx, *grads):
        (x, *saved), count, fields = ctx.saved_tensors, sum(ctx.counts), len(LayerWeights._fields)
        flat, weights, between = saved[:count], LayerWeights(*saved[count : count + fields]), saved[count + fields :]
        order, A, u, both, delta, chunks, ungated = between
        if torch.is_grad_enabled() or not plain((*grads, x)):
            return None, None, None, None, *_by_reference(ctx, grads, x, flat, order, torch.is_grad_enabled())
        convolution, scan = _kernels()
        parts, (grad_y, grad_kept, grad_state) = _Parts.of(x, ctx.gated, weights, A, ctx.paths), grads
        dx, channels = torch.empty_like(x, memory_format=torch.contiguous_format), u.shape[-1]
        if grad_y is None:
            batch, length = x.shape[:2]
            grad_y = x.new_zeros(*((batch, ctx.paths) if ctx.merge == "none" else (batch,)), length, channels)
        du, ddelta, dA, dB, dC, dD, _, dbias, _ = scan.backward(
            grad_y, grad_state, *parts.selection(u, both, delta, order, ctx.merge), chunks, ungated,
            dx[..., channels:] if ctx.gated else None,
        )  # fmt: skip
        dx_proj, ddt_proj = _projected(weights, u, both, du, ddelta, dB, dC)
        _, dconv, dconv_bias, _ = convolution.backward(
            du, grad_kept, parts.x[:, None], *parts.conv, "silu", order, None, None, dx[:, None, :, :channels]
        )
        found = LayerWeights(dconv.unsqueeze(-2), dconv_bias, dx_proj, ddt_proj, dA.mul_(A), dD, dbias)
        told = []
        for gradient, weight, parts_of_it in zip(found, weights, ctx.counts, strict=True):
            if parts_of_it > 1:
                told += gradient.unbind(0)
            elif parts_of_it:
                told.append(gradient if gradient.dim() == weight.dim() else total(gradient))
        return None, None, None, None, dx, *told


def _projected(weights: LayerWeights, u, both, du, ddelta, dB, dC) -> tuple[Tensor, Tensor]:
    """Gradients of both projections' weights; what they tell u is added to du itself.

    A product whose few columns are the rank takes the BLAS 4 to 13 times as long as its transpose (rank 4, 128 channels).
    """
    rank, states = weights.dt_proj.shape[-1], dB.shape[-1]
    rows, drows, dsteps = _rows(u), _rows(du), _rows(ddelta)
    dboth = torch.empty_like(both)
    dboth[..., rank : rank + states].copy_(_rows(dB.squeeze(3)))
    dboth[..., rank + states :].copy_(_rows(dC.squeeze(3)))
    if weights.dt_proj.dim() == 2:
        rows, drows, dsteps, both, dboth = (t.flatten(0, 1) for t in (rows, drows, dsteps, both, dboth))
        dboth[:, :rank] = (weights.dt_proj.mT @ dsteps.mT).mT
        drows.addmm_(dboth, weights.x_proj)
    else:
        dboth[..., :rank] = (weights.dt_proj.mT @ dsteps.mT).mT
        drows.baddbmm_(dboth, weights.x_proj)
    return dboth.mT @ rows, (both[..., :rank].mT @ dsteps).mT


def _by_reference(ctx, grads, x, flat, order, create_graph: bool) -> list[Tensor | None]:
    """Gradients that have gradients themselves, or that a transform asks for."""
    with torch.enable_grad():
        # Aliases: what is differentiated is this use of a tensor, not what else it does.
        inputs = [t.view_as(t) for t in (x, *flat)]
        weights, order = LayerWeights.joined(inputs[1:], ctx.counts), None if order is None else order[0]
        outputs = selective_layer_reference(inputs[0], ctx.gated, weights, order, ctx.merge)
        told = [(out, g.view_as(out)) for out, g in zip(outputs, grads, strict=True) if g is not None]
        wanted = [t for t in inputs if t.requires_grad]
        found = iter(torch.autograd.grad([t for t, _ in told], wanted, [g for _, g in told], create_graph=create_graph))
    return [next(found) if t.requires_grad else None for t in inputs]


@cache
def _kernels() -> tuple[ModuleType, ModuleType]:
    """Those of the convolution and of the scan: read when they are first wanted, since they need Numba."""
    return tuple(
        backend_module("cpu", f"{__package__.rpartition('.')[0]}.{name}")
        for name in ("causal_conv1d", "selective_scan")
    )


def _multiplied(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows of all paths times one weight, or each path's times its own."""
    return linear(rows, weight) if weight.dim() == 2 else torch.bmm(rows, weight.mT)


def _of_paths(t: Tensor | None, paths: int, axes: int) -> Tensor | None:
    """A parameter of so many axes with the paths axis before them, expanded."""
    return t if t is None or t.dim() > axes else t.expand(paths, *t.shape)


def _rows(t: Tensor) -> Tensor:
    """(batch, paths, length, columns) as (paths, batch * length, columns), a view where the paths lie outermost in memory."""
    return t.transpose(0, 1).flatten(1, 2)
