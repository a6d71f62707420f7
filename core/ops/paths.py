"""Walking along paths in plain PyTorch: which token stands at each step, where a sequence begins, rows in visiting order."""

from __future__ import annotations

import torch
from torch import Tensor

from .transforms import watched
from .visits import visits


def token_of_step(
    order: Tensor | None, batch: int, paths: int, length: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The token visited at each step (batch, paths, steps), 0 where a short path has ended, and whether one is visited."""
    if order is None:
        order = torch.arange(length, device=device).expand(1, paths, length)
    order = order.long().expand(batch, -1, -1)
    return order.clamp_min(0), order >= 0


def restart_of_step(seq_idx: Tensor | None, token: Tensor, visited: Tensor) -> Tensor | None:
    """Where along each path a new sequence begins, (batch, paths, steps) bool; never at the first step."""
    if seq_idx is None:
        return None
    sequence = seq_idx.long()[:, None].expand(-1, token.shape[1], -1).gather(2, token)
    later = torch.arange(sequence.shape[2], device=sequence.device) > 0
    return (sequence != sequence.roll(1, 2)) & visited & later


def along_paths(values: Tensor, token: Tensor, visited: Tensor | None = None) -> Tensor:
    """Rows of (batch, paths or 1, length, ...) in visiting order: (batch, paths, steps, ...).

    Args:
        token: (batch, paths, steps), int64.
        visited: (batch, paths, steps), bool: the rows of other steps are zero, and take no gradient. None: of no step.
    """
    paths, inner = token.shape[1], values.shape[3:]
    index = token.reshape(*token.shape, *(1,) * len(inner)).expand(-1, -1, -1, *inner)
    rows = values.expand(-1, paths, *(-1,) * (values.dim() - 2)).gather(2, index)
    if visited is None:
        return rows
    return rows.masked_fill(~visited.reshape(*visited.shape, *(1,) * len(inner)), 0)


def onto_tokens(values: Tensor, token: Tensor, visited: Tensor, length: int) -> Tensor:
    """Rows in visiting order (batch, paths, steps, ...) put back at their tokens: (batch, paths, length, ...), zero elsewhere."""
    inner = values.shape[3:]
    unit = (1,) * len(inner)
    values = values.masked_fill(~visited.reshape(*visited.shape, *unit), 0)
    index = token.reshape(*token.shape, *unit).expand(-1, -1, -1, *inner)
    return values.new_zeros(*token.shape[:2], length, *inner).scatter_add(2, index, values)


class Paths:
    """The paths of one call, folded into the batch (path after path), for operators that are told dense sequences.

    Gradients are summed path by path in a fixed order, so that they repeat bit for bit on every device.

    Args:
        order: (batch or 1, paths, steps) or None for the raster order; checked where it lies on the CPU.
        seq_idx: (batch, length) or None.

    Attributes:
        steps: steps of each path.
        visited: (paths * batch, steps) bool, False after the end of a short path; None: everywhere.
        restart: (paths * batch, steps) bool, where a new sequence begins; None: nowhere.

    Raises:
        UserError: an order on the CPU that leaves the tokens or visits one twice.
    """

    def __init__(
        self, order: Tensor | None, seq_idx: Tensor | None, batch: int, paths: int, length: int, device: torch.device
    ):
        self.batch, self.paths, self.length = batch, paths, length
        self.steps = length if order is None else order.shape[2]
        self.order, self.visited, self.complete = order, None, order is None
        if order is not None:
            self._read_order(order.to(device))
        self.restart = None
        if seq_idx is not None:
            token, visited = token_of_step(order, batch, paths, length, device)
            self.restart = fold(restart_of_step(seq_idx, token, visited))

    def _read_order(self, order: Tensor) -> None:
        if order.device.type == "cpu" and not watched():
            self.complete = visits(order, self.length, self.paths)[1]
        order = order.long().expand(self.batch, -1, -1)
        visited = (order >= 0) & (order < self.length)
        self.visited = fold(visited)
        self.token = order.where(visited, 0)
        step = torch.arange(self.steps, device=order.device).expand_as(order)
        of_token = step.new_full((self.batch, self.paths, self.length + 1), -1)
        self.step_of_token = of_token.scatter(2, order.where(visited, self.length), step)[..., : self.length]
        sample, path = (torch.arange(size, device=order.device) for size in (self.batch, self.paths))
        self._sample, self._path = sample[:, None, None], path[:, None]

    def visit(self, values: Tensor) -> Tensor:
        """(batch, paths or 1, length, ...) in visiting order: (paths * batch, steps, ...); zero after a path's end."""
        if self.order is None:
            return fold(values.expand(-1, self.paths, *(-1,) * (values.dim() - 2)))
        return _Visit.apply(values, self) if self._tells_gradient(values) else self.rows_of_steps(values)

    def merge(self, values: Tensor, how: str) -> Tensor:
        """(paths * batch, steps, ...) put back at the tokens and merged: (batch, [paths,] length, ...).

        Args:
            how: "sum", "mean" or "none".
        """
        if self.order is None:
            if self.paths == 1:
                return values.unsqueeze(1) if how == "none" else values
            values = values.unflatten(0, (self.paths, self.batch))
            if how == "none":
                return values.transpose(0, 1)
            return values.sum(0) if how == "sum" else values.mean(0)
        each = how == "none"
        out = _Merge.apply(values, self, each) if self._tells_gradient(values) else self.rows_of_tokens(values, each)
        if each:
            return out
        return out.squeeze(1) / self.paths if how == "mean" and self.paths > 1 else out.squeeze(1)

    def rows_of_steps(self, values: Tensor) -> Tensor:
        """`visit` along an order."""
        row = self._sample * self.length
        if values.shape[1] > 1:
            row = (self._sample * self.paths + self._path) * self.length
        taken = values.flatten(0, 2).index_select(0, fold(self.token + row).flatten())
        taken = taken.unflatten(0, (self.paths * self.batch, self.steps))
        if self.complete:
            return taken
        return taken.masked_fill(~self.visited.reshape(*self.visited.shape, *(1,) * (taken.dim() - 2)), 0)

    def rows_of_tokens(self, values: Tensor, each: bool) -> Tensor:
        """`merge` along an order: (batch, paths, length, ...), or, not `each`, the paths' sum, (batch, 1, length, ...)."""
        if not self.steps:  # one row of zeros for index_select, from which every token is masked
            values = values.sum(1, keepdim=True)
        row = self.step_of_token.clamp_min(0) + (self._path * self.batch + self._sample) * max(1, self.steps)
        rows, unit = values.flatten(0, 1), (1,) * (values.dim() - 2)
        if each:
            parts = [(row, self.step_of_token)]
        else:  # path after path, so that what is added up repeats bit for bit
            parts = zip(row.split(1, 1), self.step_of_token.split(1, 1), strict=True)
        found = None
        for row, step in parts:
            taken = rows.index_select(0, row.flatten()).unflatten(0, row.shape)
            if not self.complete:
                taken = taken.masked_fill((step < 0).reshape(*step.shape, *unit), 0)
            found = taken if found is None else found.add_(taken)
        return found

    @staticmethod
    def _tells_gradient(values: Tensor) -> bool:
        return values.requires_grad and torch.is_grad_enabled() and not watched()


class _Visit(torch.autograd.Function):
    """Rows of steps, whose gradient is the rows of tokens: PyTorch's own adds row after row to zeros, on one thread."""

    @staticmethod
    def forward(ctx, values: Tensor, way: Paths) -> Tensor:
        ctx.way, ctx.each = way, values.shape[1] > 1
        return way.rows_of_steps(values)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return _Merge.apply(gradient, ctx.way, ctx.each), None


class _Merge(torch.autograd.Function):
    """Rows of tokens, whose gradient is the rows of steps."""

    @staticmethod
    def forward(ctx, values: Tensor, way: Paths, each: bool) -> Tensor:
        ctx.way = way
        return way.rows_of_tokens(values, each)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return _Visit.apply(gradient, ctx.way), None, None


def fold(values: Tensor) -> Tensor:
    """(batch, paths, ...) as (paths * batch, ...), path after path.

    Path after path is what cat makes. Of (batch, paths) joined, PyTorch compares the strides, which a graph for any size takes
    for a limit of its sizes.
    """
    return values.squeeze(1) if values.shape[1] == 1 else torch.cat(values.unbind(1))


def unfold(values: Tensor, paths: int) -> Tensor:
    """(paths * batch, ...) as (batch, paths, ...)."""
    return values.unflatten(0, (paths, values.shape[0] // paths)).transpose(0, 1)
