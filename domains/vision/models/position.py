"""Learned position embeddings of a sequence that holds class tokens: reading them for another grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from ....core.errors import UserError
from ....core.mixers.extra_tokens import with_extra, without_extra
from ....core.scans import Grid

PLACES = {0: "none", 1: "middle", 2: "double"}


def fit_position_embedding(
    embedding: Tensor, class_tokens: int, place: str, grid: Grid, made_for: Sequence[int] | None = None
) -> Tensor:
    """The embedding resampled (bicubic) to another grid, the class tokens' rows unchanged at their new positions.

    Args:
        embedding: (1, tokens, channels), as saved.
        class_tokens: how many of its rows belong to class tokens.
        place: where the model puts its class token(s): "none", "front", "middle", "end", "double".
        grid: the model's.
        made_for: rows and columns of the grid that it was saved for; None: as far as the number of rows tells.

    Returns:
        (1, grid.length, channels); the embedding itself where it fits.

    Raises:
        UserError: a number of class tokens that cannot become the model's.
    """
    if len(grid.extra) not in (0, class_tokens):
        raise UserError(
            "the checkpoint has another number of class tokens than the model", given=class_tokens,
            allowed=str(len(grid.extra)), do=f"class_token={PLACES.get(class_tokens, 'middle')}",
        )  # fmt: skip
    same = grid.sizes if made_for is None else tuple(made_for)
    if embedding.shape[1] == grid.length and class_tokens == len(grid.extra) and same == grid.sizes:
        return embedding
    saved_place = place if class_tokens == len(grid.extra) else PLACES[class_tokens]
    made_for = grid_of(embedding.shape[1] - class_tokens, grid) if made_for is None else made_for
    saved = Grid.with_class_token(made_for, saved_place)
    rows = without_extra(embedding, saved.extra)
    rows = resample_abs_pos_embed(rows, list(grid.sizes), list(saved.sizes), num_prefix_tokens=0)
    return with_extra(rows, embedding[:, list(saved.extra)], grid.extra) if grid.extra else rows


def grid_of(tokens: int, like: Grid) -> tuple[int, int]:
    """The grid that so many tokens come from: a square, else one of the model's proportions."""
    side = math.isqrt(tokens)
    if side * side == tokens:
        return side, side
    height, width = like.sizes
    rows = round(math.sqrt(tokens * height / width))
    if rows and tokens % rows == 0 and rows * width == tokens // rows * height:
        return rows, tokens // rows
    raise UserError(
        "cannot tell which grid the saved position embedding belongs to", given=f"{tokens} tokens",
        allowed=f"a square, or the proportions of {height}x{width}",
    )  # fmt: skip


def strip_wrapping(state_dict: dict) -> dict[str, Tensor]:
    """The weights of a saved checkpoint, which may hold them under "model" or "state_dict" beside other things."""
    for key in ("model", "state_dict"):
        if isinstance(state_dict.get(key), dict):
            return state_dict[key]
    return {key: value for key, value in state_dict.items() if isinstance(value, torch.Tensor)}
