"""SSAMBA (arXiv 2405.11831): an Audio Mamba learns from sounds without names, by guessing patches that it is not shown.

The objectives are SSAST's (arXiv 2110.09784): which of the hidden patches stood where, and what was in them. Names are those of the
authors' code.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .aum import AuM


class Guessed(NamedTuple):
    """contrast: how badly the hidden patches are told apart (InfoNCE). error: mean square. share: told right."""

    contrast: Tensor
    error: Tensor
    share: Tensor


class MaskedPatches(nn.Module):
    """What an AuM is trained with beside its own parameters.

    Args:
        channels: of its tokens. patch: mels and frames of a patch.
    """

    def __init__(self, channels: int, patch: tuple[int, int]):
        super().__init__()
        self.patch = patch
        self.mask_embed = nn.Parameter(torch.zeros(1, 1, channels))
        nn.init.xavier_normal_(self.mask_embed)
        self.cpredlayer, self.gpredlayer = (
            nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, math.prod(patch)))
            for _ in range(2)
        )

    def forward(self, model: AuM, spectrograms: Tensor, hidden: Tensor) -> Guessed:
        """What the model makes of spectrograms (batch, frames, mels) of which patches are hidden.

        Args:
            hidden: numbers of patches, (batch, count), row by row of mels.
        """
        spectrograms = model.filled(spectrograms)
        patches = F.unfold(spectrograms.transpose(1, 2)[:, None], self.patch, stride=self.patch).transpose(1, 2)
        tokens = model.patch_embed(spectrograms.to(self.mask_embed.dtype))
        rows = torch.arange(len(tokens), device=tokens.device)[:, None]
        tokens = torch.index_put(tokens, (rows, hidden), self.mask_embed[:, 0])
        place = model.grid.extra[0]
        said = model.encode(tokens)[rows, hidden + (hidden >= place)]
        truth = patches[rows, hidden]  # (batch, count, mels * frames of a patch)
        guesses = truth @ self.cpredlayer(said).float().transpose(1, 2)  # (batch, true patch, place)
        right = torch.arange(hidden.shape[1], device=hidden.device)
        found = guesses.softmax(2).argmax(1) == right
        contrast = -guesses.log_softmax(2).diagonal(dim1=1, dim2=2).mean()
        return Guessed(contrast, F.mse_loss(self.gpredlayer(said).float(), truth), found.float().mean())


def clusters(grid: tuple[int, int], batch: int, count: int, least: int = 3, most: int = 5) -> Tensor:
    """Numbers of patches to be hidden, in squares of `least` to `most` patches a side: int64 (batch, count).

    Args:
        grid: rows and columns of patches. count: how many are hidden of each sample.
    """
    ranks = torch.rand(batch, 1, *grid).flatten(2).argsort(2).argsort(2).view(batch, 1, *grid).float()
    side = int(torch.randint(least, most + 1, ()))
    # A patch is as early as the earliest corner whose square it lies in.
    early = -F.max_pool2d(F.pad(-ranks, (side - 1, 0, side - 1, 0), value=-torch.inf), side, 1)
    order = (early + 0.5 * torch.rand_like(early)).flatten(1).argsort(1)
    return order[:, :count].sort(1).values
