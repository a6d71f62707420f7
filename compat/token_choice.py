"""mamba_ssm's choice of a token from scores (utils/generation.py), with PyTorch's own random numbers.

Scores are (batch, vocabulary); what is filtered out becomes minus infinity, in place.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def modify_logits_for_min_p_filtering(logits: Tensor, min_p: float) -> None:
    """Filter out scores below min_p."""
    if 0 < min_p < 1:
        logits.masked_fill_(logits < min_p, -math.inf)


def modify_logits_for_top_k_filtering(logits: Tensor, top_k: int) -> None:
    """Filter out all but the top_k highest scores and those equal to the last of them."""
    logits.masked_fill_(logits < logits.topk(top_k).values[..., -1:], -math.inf)


def modify_logits_for_top_p_filtering(logits: Tensor, top_p: float) -> None:
    """Filter out the least probable tokens, which together are at most 1 - top_p."""
    if not 0 < top_p < 1:
        return
    rising, number = logits.sort(dim=-1)
    out = rising.softmax(-1).cumsum(-1) <= 1 - top_p
    logits.masked_fill_(out.scatter(-1, number, out), -math.inf)


def modify_logit_for_repetition_penalty(logits: Tensor, prev_output_tokens: Tensor, repetition_penalty: float = 1.0):
    """Divide positive scores of the tokens said so far, (batch, tokens), by the penalty and multiply negative ones; in place."""
    if repetition_penalty == 1:
        return logits
    said = logits.gather(1, prev_output_tokens)
    said = torch.where(said < 0, said * repetition_penalty, said / repetition_penalty)
    return logits.scatter_(1, prev_output_tokens, said)


def sample(logits: Tensor, top_k: int = 1, top_p: float = 0.0, min_p: float = 0.0, temperature: float = 1.0) -> Tensor:
    """Draw a token of each row, (batch,); top_k=1 takes the likeliest, top_k=0 sets no limit.

    min_p is a share of the likeliest token's probability, and counts where top_k is 0.
    """
    if top_k == 1:
        return logits.argmax(-1)
    number = None
    if top_k > 0:
        logits, number = logits.topk(min(top_k, logits.shape[-1]))
    scores = logits / temperature
    if top_k == 0 and min_p > 0:
        modify_logits_for_min_p_filtering(
            shares := scores.softmax(-1) / scores.softmax(-1).amax(-1, keepdim=True), min_p
        )
        scores = scores.masked_fill(shares == -math.inf, -math.inf)
    modify_logits_for_top_p_filtering(scores, top_p)
    drawn = scores.softmax(-1).multinomial(1)
    return (drawn if number is None else number.gather(-1, drawn)).squeeze(-1)
