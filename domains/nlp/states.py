"""Rows of a model's states: one a layer, each a tuple of tensors with the batch first, or None."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.errors import UserError


def take_rows(states: Sequence, rows: Sequence[int]) -> list:
    """Copies of these rows of the batch."""
    return [_each(lambda tensor: tensor[list(rows)].clone(), state) for state in states]


def join_rows(parts: Sequence[Sequence]) -> list:
    """One batch of the rows of several.

    Raises:
        UserError: rows of different lengths where attention remembers every token.
    """
    return [_each(_join, *layers) for layers in zip(*parts, strict=True)]


def _each(function, *states):
    """The function of the states' tensors, in the states' own shape."""
    first = states[0]
    if first is None or isinstance(first, Tensor):
        return None if first is None else function(*states)
    values = [_each(function, *each) for each in zip(*states, strict=True)]
    return type(first)(*values) if hasattr(first, "_fields") else type(first)(values)


def _join(*tensors: Tensor) -> Tensor:
    if len({tensor.shape[1:] for tensor in tensors}) > 1:
        raise UserError(
            "the rows' states differ in length: attention remembers every token", given=[len(t[0]) for t in tensors],
            do="generate row by row where attention is to go on",
        )  # fmt: skip
    return torch.cat(tensors)
