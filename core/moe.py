"""A mixture of experts in place of an MLP: every token chooses its experts (Switch Transformer, arXiv 2101.03961; MoE-Mamba,
arXiv 2401.04081; Jamba, arXiv 2403.19887).

What keeps the experts evenly used is a loss of its own: after a forward pass in training mode each layer holds it in
`balance_loss`, and `balance_loss(model)` sums that of all layers. The task adds it to its loss, after the forward and before
the backward pass: `loss = task_loss + 0.01 * balance_loss(model)` (0.01: MoE-Mamba's and Switch's factor).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import UserError, check_choice
from .linear import is_plain
from .mlp import ACTIVATIONS, check_activation
from .precision import as_given
from .ranges import Positive, Size, checked

# Weight of the experts' balance in the loss (MoE-Mamba, arXiv 2401.04081, as Switch Transformers).
BALANCE = 0.01
SCORES = ("softmax", "sigmoid")


class MixtureOfExperts(nn.Module):
    """Each token goes to the `top_k` experts that the router scores highest, and gets the sum of what they say, weighted.

    Args:
        d_model: channels of the tokens.
        d_hidden: channels between an expert's two layers.
        num_experts, top_k: experts, and how many of them a token goes to.
        capacity_factor: in training an expert takes at most capacity_factor * top_k * tokens / num_experts tokens of a call
            (padding counts as none), those at earlier positions first (what a token gets does not depend on later ones), and
            says nothing to the rest; None: as many as come.
        eval_capacity_factor: the same in evaluation, where None makes every token independent of the others.
        activation: "relu", "silu", "gelu" or "sigmoid". gated: experts are gated MLPs (fc2(a * activation(b))).
        scores: what the router makes of its logits, "softmax" over the experts or "sigmoid" of each.
        normalise: divide a token's top_k scores by their sum.
        device, dtype: of the parameters; the router computes in float32.

    Attributes:
        takes_seq_idx: the residual block hands on which tokens are padding.
        balance_loss: of the last forward pass in training mode, a float32 scalar with its gradient: num_experts times the
            sum over experts of (share of the choices that fell on it) * (mean score); 1 where evenly used. None before.
    """

    takes_seq_idx = True

    @checked
    def __init__(
        self,
        d_model: Size,
        d_hidden: Size,
        num_experts: Size = 8,
        top_k: Size = 1,
        capacity_factor: Positive | None = 1.0,
        eval_capacity_factor: Positive | None = None,
        activation: str = "relu",
        gated: bool = False,
        scores: str = "softmax",
        normalise: bool = False,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        check_activation(activation)
        check_choice("scores", scores, SCORES)
        if top_k > num_experts:
            raise UserError("no such number of experts a token", given=f"top_k={top_k}", allowed=f"1 to {num_experts}")
        self.num_experts, self.top_k, self.scores, self.normalise = num_experts, top_k, scores, normalise
        self.capacity_factor, self.eval_capacity_factor = capacity_factor, eval_capacity_factor
        self.activation, self.gated = activation, gated
        factory = {"device": device, "dtype": dtype}
        self.router = nn.Linear(d_model, num_experts, bias=False, **factory)
        self.fc1 = nn.Parameter(torch.empty(num_experts, d_hidden * (2 if gated else 1), d_model, **factory))
        self.fc2 = nn.Parameter(torch.empty(num_experts, d_model, d_hidden, **factory))
        for weight in (self.fc1, self.fc2):
            bound = weight.shape[-1] ** -0.5
            nn.init.uniform_(weight, -bound, bound)
        self.balance_loss: Tensor | None = None

    def forward(self, x: Tensor, seq_idx: Tensor | None = None) -> Tensor:
        """(batch, length, d_model) -> the same shape; zero for a token that no expert had room for.

        Args:
            seq_idx: (batch, length), integer: tokens with a negative number (padding) go to no expert.
        """
        batch, length, _ = x.shape
        tokens = x.transpose(0, 1).flatten(0, 1)  # by position, then by sample: earlier positions choose first
        kind = torch.promote_types(x.dtype, torch.float32)
        with as_given(x):
            logits = self._logits(tokens, kind)
        scores = logits.softmax(-1) if self.scores == "softmax" else logits.sigmoid()
        weight, expert = scores.topk(self.top_k, -1)
        if self.normalise:
            weight = weight / weight.sum(-1, keepdim=True)
        real = None if seq_idx is None else (seq_idx >= 0).t().reshape(-1)
        # Not longer than the step that it is of: it holds the step's graph.
        self.balance_loss = self._balance(scores, expert, real) if self.training else None
        if real is not None:
            expert = expert.masked_fill(~real[:, None], self.num_experts)
        factor = self.capacity_factor if self.training else self.eval_capacity_factor
        if factor is None:
            y = self._without_limit(tokens, weight, expert)
        else:
            y = self._with_capacity(tokens, weight, expert, factor, real)
        return y.to(x.dtype).unflatten(0, (length, batch)).transpose(0, 1)

    def flops(self, length: int) -> int:
        """Floating point operations of a forward pass over so many tokens, none of them dropped."""
        expert = self.fc1[0].numel() + self.fc2[0].numel()
        return 2 * length * (self.num_experts * self.fc1.shape[-1] + self.top_k * expert)

    def extra_repr(self) -> str:
        return f"experts={self.num_experts}, top_k={self.top_k}, capacity_factor={self.capacity_factor}, gated={self.gated}"

    def _logits(self, tokens: Tensor, kind: torch.dtype) -> Tensor:
        if is_plain(self.router) and self.router.bias is None:
            return F.linear(tokens.to(kind), self.router.weight.to(kind))
        kept = next(self.router.parameters(), None)
        return self.router(tokens.to(kind if kept is None else kept.dtype)).to(kind)

    def _balance(self, scores: Tensor, expert: Tensor, real: Tensor | None) -> Tensor:
        chosen = F.one_hot(expert, self.num_experts).sum(1).to(scores.dtype) / self.top_k
        if real is None:
            share, mean = chosen.mean(0), scores.mean(0)
        else:
            count = real.sum().clamp_min(1)
            share, mean = (t.masked_fill(~real[:, None], 0).sum(0) / count for t in (chosen, scores))
        return self.num_experts * (share * mean).sum()

    def _with_capacity(self, tokens, weight, expert, factor: float, real: Tensor | None) -> Tensor:
        """Every expert computes on a table of `capacity` rows: shapes depend on no value."""
        count, chances = tokens.shape[0], factor * self.top_k
        capacity = room = min(count, math.ceil(chances * count / self.num_experts))
        if real is not None:
            kind = torch.float32 if real.device.type == "mps" else torch.float64
            room = (chances * real.sum(dtype=kind) / self.num_experts).ceil()
        chosen = expert.flatten()
        place = F.one_hot(chosen, self.num_experts + 1).cumsum(0).gather(1, chosen[:, None])[:, 0] - 1
        kept = (place < capacity) & (place < room) & (chosen < self.num_experts)
        slot = torch.where(kept, chosen * capacity + place, self.num_experts * capacity)
        owner = torch.arange(count, device=tokens.device).repeat_interleave(self.top_k)
        rows = torch.zeros(self.num_experts * capacity + 1, dtype=torch.int64, device=tokens.device)
        rows = rows.scatter(0, slot, owner)[:-1]
        said = self._experts(tokens[rows].unflatten(0, (self.num_experts, capacity)), self.fc1, self.fc2).flatten(0, 1)
        said = torch.cat([said, said.new_zeros(1, said.shape[1])])[slot]
        weighted = said * torch.where(kept, weight.flatten(), 0)[:, None].to(said.dtype)
        return weighted.unflatten(0, (count, self.top_k)).sum(1)

    def _without_limit(self, tokens: Tensor, weight: Tensor, expert: Tensor) -> Tensor:
        """Every expert computes on the tokens that chose it, one expert after the other."""
        chosen = expert.flatten()
        by_expert = chosen.argsort(stable=True)
        counts = chosen.bincount(minlength=self.num_experts + 1).tolist()
        parts = []
        for number, rows in enumerate(by_expert.split(counts)[: self.num_experts]):
            if len(rows):
                parts.append(self._experts(tokens[rows // self.top_k], self.fc1[number], self.fc2[number]))
        taken = by_expert[: sum(counts[: self.num_experts])]
        said = torch.cat(parts) if parts else tokens[:0]
        said = said * weight.flatten()[taken, None].to(said.dtype)
        return (
            said.new_zeros(len(chosen), tokens.shape[1])
            .index_copy(0, taken, said)
            .unflatten(0, (-1, self.top_k))
            .sum(1)
        )

    def _experts(self, rows: Tensor, fc1: Tensor, fc2: Tensor) -> Tensor:
        """([experts,] rows, d_model) through ([experts,] ...) weights."""
        hidden = rows @ fc1.transpose(-1, -2)
        if self.gated:
            value, gate = hidden.chunk(2, -1)
            return (value * ACTIVATIONS[self.activation](gate)) @ fc2.transpose(-1, -2)
        return ACTIVATIONS[self.activation](hidden) @ fc2.transpose(-1, -2)


def balance_loss(model: nn.Module) -> Tensor | None:
    """Sum of the balance losses of all mixtures of experts in a model after its forward pass; None where it has none."""
    found = [m.balance_loss for m in model.modules() if isinstance(m, MixtureOfExperts) and m.balance_loss is not None]
    return torch.stack(found).sum() if found else None


def auxiliary_loss(model: nn.Module) -> Tensor | None:
    """What training adds to any model's loss after a forward pass: BALANCE times its balance loss; None without experts."""
    balance = balance_loss(model)
    return None if balance is None else BALANCE * balance
