"""Text classification: the residual stack of a language model, its tokens' mean, a linear head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ....core.errors import check_choice
from ....core.ranges import Rate, Size, checked
from .language_model import LanguageModel

POOLS = ("mean", "last")


class TextClassifier(nn.Module):
    """Classifies sequences of tokens; its stack has the parameter names of a language model's.

    Args:
        model: gives its `backbone`; with a bidirectional scan every token sees the whole text.
        num_classes: outputs of the head.
        pool: what the head reads: "mean" over the tokens that are not padding, or "last", the last of them.
        drop_rate: dropout before the head.
    """

    @checked
    def __init__(self, model: LanguageModel, num_classes: Size, pool: str = "mean", drop_rate: Rate = 0.0):
        super().__init__()
        check_choice("pool", pool, POOLS)
        like = model.lm_head.weight
        self.backbone, self.vocab_size, self.tokens, self.pool = model.backbone, model.vocab_size, model.tokens, pool
        self.drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(model.d_model, num_classes, device=like.device, dtype=like.dtype)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor, seq_idx: Tensor | None = None) -> Tensor:
        """Class scores (batch, num_classes) of token numbers (batch, length); seq_idx is negative on padding."""
        hidden, _ = self.backbone(input_ids, None, seq_idx)
        real = torch.ones_like(input_ids, dtype=torch.bool) if seq_idx is None else seq_idx >= 0
        if self.pool == "mean":
            weight = real.to(hidden.dtype)
            pooled = (hidden * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).clamp(min=1)
        else:
            positions = torch.arange(input_ids.shape[1], device=input_ids.device)
            last = torch.where(real, positions, 0).amax(1)
            pooled = hidden[torch.arange(len(last), device=last.device), last]
        return self.head(self.drop(pooled))

    def flops(self, batch: int = 1, length: int | None = None) -> int | None:
        """Floating point operations of a forward pass over texts of `length` tokens (None: self.tokens)."""
        length = length or self.tokens
        return None if length is None else batch * (self.backbone.flops(length) + 2 * self.head.weight.numel())

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the layers again in the backward pass instead of keeping what it needs."""
        self.backbone.grad_checkpointing = enable
