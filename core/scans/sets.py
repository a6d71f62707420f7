"""Orders of sets: points and the nodes of graphs have no grid, each sample is visited in the order of its own keys."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UserError

BITS = 10  # of each coordinate: three of them fit into 63 bits with room


def order_by(*keys: Tensor, valid: Tensor | None = None) -> Tensor:
    """For each sample one path a key, from the smallest key to the largest; equal keys stay as they come.

    Args:
        keys: (batch, tokens) each.
        valid: (batch, tokens) bool, False at what is no token (padding); None: all are.

    Returns:
        int32 (batch, paths, tokens), as the operators' `order`; -1 ends a path that visits fewer tokens.
    """
    if not keys or any(key.shape != keys[0].shape or key.dim() != 2 for key in keys):
        raise UserError("keys are (batch, tokens), all alike", given=[tuple(key.shape) for key in keys])
    paths = []
    for key in keys:
        order = key.argsort(dim=1, stable=True)
        if valid is not None:
            real = valid.gather(1, order)
            # What is a token first, in its order; a stable sort keeps that.
            first = (~real).int().argsort(dim=1, stable=True)
            order = torch.where(real.gather(1, first), order.gather(1, first), -1)
        paths.append(order)
    return torch.stack(paths, 1).int()


def cells(points: Tensor, size: float | None = None) -> Tensor:
    """The cell of a lattice that each point lies in, (batch, points, axes) int64, counted from each sample's smallest.

    Args:
        points: (batch, points, axes).
        size: side of a cell; None: such that each sample's longest side has 2^BITS of them.
    """
    low = points.amin(1, keepdim=True)
    if size is None:
        span = (points.amax(1, keepdim=True) - low).amax(2, keepdim=True).clamp_min(torch.finfo(points.dtype).tiny)
        return ((points - low) / span * (2**BITS - 1)).long()
    return (points / size).floor().long() - (low / size).floor().long()


def z_key(cell: Tensor, bits: int = BITS) -> Tensor:
    """Place on the Z-order curve (Morton 1966): the bits of the coordinates in turn, (batch, points) int64.

    Args:
        cell: (batch, points, axes) int64, each from 0 to below 2^bits.
    """
    _check_cells(cell, bits)
    key = torch.zeros_like(cell[..., 0])
    for bit in reversed(range(bits)):
        for axis in range(cell.shape[-1]):
            key = (key << 1) | ((cell[..., axis] >> bit) & 1)
    return key


def hilbert_key(cell: Tensor, bits: int = BITS, transposed: bool = False) -> Tensor:
    """Place on the Hilbert curve of any number of axes (Skilling 2004, AIP Conf. Proc. 707, 381), (batch, points) int64.

    Args:
        cell: (batch, points, axes) int64, each from 0 to below 2^bits.
        transposed: of the curve whose first two axes are exchanged ("trans-Hilbert" of PointMamba, arXiv 2402.10739).
    """
    _check_cells(cell, bits)
    x = list(cell.unbind(-1))
    if transposed:
        x[0], x[1] = x[1], x[0]
    for bit in reversed(range(1, bits)):
        low = (1 << bit) - 1
        for axis in range(len(x)):
            on = (x[axis] >> bit) & 1 == 1
            exchange = torch.where(on, torch.zeros_like(x[0]), (x[0] ^ x[axis]) & low)
            first = torch.where(on, x[0] ^ low, x[0] ^ exchange)
            x[axis] = first if axis == 0 else x[axis] ^ exchange
            x[0] = first
    for axis in range(1, len(x)):
        x[axis] = x[axis] ^ x[axis - 1]
    turn = torch.zeros_like(x[0])
    for bit in reversed(range(1, bits)):
        turn = torch.where((x[-1] >> bit) & 1 == 1, turn ^ ((1 << bit) - 1), turn)
    return z_key(torch.stack([each ^ turn for each in x], -1), bits)


def degree_key(degrees: Tensor, noise: Tensor | None = None) -> Tensor:
    """Nodes from the fewest neighbours to the most, the last seeing all others (Graph-Mamba, arXiv 2402.00789, section 4.2).

    Args:
        degrees: (batch, nodes), neighbours of each.
        noise: (batch, nodes), from 0 to below 1: nodes of equal degree in another order each time; None: as they come.
    """
    return degrees.double() if noise is None else degrees + noise.double()


def _check_cells(cell: Tensor, bits: int) -> None:
    if bits * cell.shape[-1] > 62:
        raise UserError("the key does not fit into 63 bits", given=f"{bits} bits on {cell.shape[-1]} axes")
    if cell.numel() and (int(cell.min()) < 0 or int(cell.max()) >= 2**bits):
        raise UserError(
            "cells are counted from 0", given=(int(cell.min()), int(cell.max())), allowed=f"below {2**bits}"
        )
