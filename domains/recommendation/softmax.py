"""Cross-entropy over a whole table of items without the table of scores: loss and gradients a few events at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...core.precision import as_given

# Scores held at once. On a CPU they stay in the cache between their uses, which makes a step three times as quick.
CELLS = {"cpu": 2**20, "cuda": 2**26}
EVENTS = 16  # at once at least: with fewer a pass over a very large table is bound by reading it


def cross_entropy(left: Tensor, right: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of softmax(left right^T), a scalar, float32 at least.

    Gradients are computed beside the loss, so that no score is computed twice or kept; they cannot be differentiated again.

    Args:
        left: (events, channels). right: (classes, channels). targets: (events,) int64, rows of `right`.
    """
    wide = torch.promote_types(torch.promote_types(left.dtype, right.dtype), torch.float32)
    with as_given(left):
        return _CrossEntropy.apply(left.to(wide), right.to(wide), targets, torch.is_grad_enabled())


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, targets: Tensor, learn: bool) -> Tensor:
        count, classes = len(left), len(right)
        tall = min(count, max(EVENTS, CELLS["cpu" if left.device.type == "cpu" else "cuda"] // classes))
        scores = left.new_empty(tall, classes)
        if learn:
            of_left, of_right = torch.empty_like(left), torch.zeros_like(right)
        total = left.new_zeros(())
        for begin in range(0, count, tall):
            rows = slice(begin, begin + tall)
            part, own = left[rows], targets[rows]
            some = scores[: len(part)]
            torch.mm(part, right.T, out=some)
            most = some.amax(1, keepdim=True)
            of_own = some.gather(1, own[:, None])
            some.sub_(most).exp_()
            sums = some.sum(1, keepdim=True)
            total += (sums.log() + most - of_own).sum()
            if learn:
                of_left[rows] = torch.mm(some, right) / sums - right[own]
                of_right.addmm_(some.T, part / sums).index_add_(0, own, part, alpha=-1)
        if learn:
            ctx.save_for_backward(of_left.div_(count), of_right.div_(count))
        return total / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        of_left, of_right = ctx.saved_tensors
        return of_left * gradient, of_right * gradient, None, None
