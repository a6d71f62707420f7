"""Language models of any mixer: embedding, residual stack, norm, head (Mamba, arXiv 2312.00752, section 3.4).

Parameter names are those of mamba_ssm's MambaLMHeadModel; attention layers make it a hybrid, `experts` make it MoE-Mamba
(arXiv 2401.04081).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ....core import mixers
from ....core.errors import UserError
from ....core.initialisation import scale_output_projections
from ....core.linear import applied
from ....core.mixers import Attention
from ....core.mlp import GatedMLP
from ....core.moe import MixtureOfExperts, auxiliary_loss
from ....core.ranges import Count, Depth, Positive, Size, Weight, checked
from ....core.stack import ResidualBlock, final_norm, make_norm, run_stack


class Backbone(nn.Module):
    """Embedding, blocks and final norm: (batch, length) token numbers to (batch, length, d_model)."""

    def __init__(self, vocab_size: int, d_model: int, blocks: Sequence[ResidualBlock], norm_f: nn.Module, **factory):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, d_model, **factory)
        self.layers = nn.ModuleList(blocks)
        self.norm_f = norm_f
        self.grad_checkpointing = False

    def forward(
        self, input_ids: Tensor, states: Sequence | None = None, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, list]:
        """What LanguageModel.hidden says."""
        hidden = self.embedding(input_ids)
        result = run_stack(self.layers, hidden, None, states, seq_idx, checkpointing=self.grad_checkpointing)
        return final_norm(result, self.norm_f), result.states

    def flops(self, length: int) -> int:
        """Floating point operations of the layers over one sequence of `length` tokens."""
        mlps = sum(layer.mlp.flops(length) for layer in self.layers if layer.has_mlp)
        return mlps + sum(layer.mixer.flops((length,)) for layer in self.layers)


class LanguageModel(nn.Module):
    """A causal language model.

    Args:
        vocab_size: tokens of the vocabulary.
        d_model, n_layer: width and number of layers.
        mixer: "mamba", "mamba2", "mamba3" or "s4d". mixer_options: its arguments besides d_model, backend, device and dtype.
        attention_layers: layers whose mixer is attention (a hybrid). attention_options: its arguments.
        d_intermediate: channels of a gated MLP after every mixer; 0: none. mlp_options: GatedMLP's further arguments.
        experts: more than 0: the MLP becomes a mixture of this many. experts_options: MixtureOfExperts's further arguments.
            experts_every: only every so manieth layer has one, the first at layer experts_every - 1. expert_layers: instead,
            the layers that have one, where the others keep their gated MLP (Jamba, arXiv 2403.19887).
        norm, norm_eps: every norm of the residual stream, "rms" or "layer", and what is added to its mean square.
        tie_embeddings: the head's weight is the embedding's.
        pad_vocab_size_multiple: the vocabulary is padded to a multiple of it.
        residual_in_fp32: keep the residual stream in float32 at least.
        initializer_range: standard deviation of the embedding at the start.
        rescale_prenorm_residual: divide what projects into the residual stream by the square root of the additions to it.
        length: tokens of a sample, for what is printed about costs; None: not known.
        backend: backend of the operators.
    """

    @checked
    def __init__(
        self,
        vocab_size: Size = 50277,
        d_model: Size = 768,
        n_layer: Depth = 24,
        mixer: str = "mamba",
        mixer_options: Mapping[str, Any] | None = None,
        attention_layers: Collection[int] | None = None,
        attention_options: Mapping[str, Any] | None = None,
        d_intermediate: Count = 0,
        experts: Count = 0,
        experts_options: Mapping[str, Any] | None = None,
        experts_every: Size = 1,
        expert_layers: Collection[int] | None = None,
        mlp_options: Mapping[str, Any] | None = None,
        norm: str = "rms",
        norm_eps: Positive = 1e-5,
        tie_embeddings: bool = True,
        pad_vocab_size_multiple: Size = 8,
        residual_in_fp32: bool = True,
        initializer_range: Weight = 0.02,
        rescale_prenorm_residual: bool = True,
        length: Size | None = None,
        backend: str = "auto",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.vocab_size, self.d_model, self.tokens, self.mixer = vocab_size, d_model, length, mixer
        self.mixer_options, self.attention_options = dict(mixer_options or {}), dict(attention_options or {})
        self.attention_layers = sorted(attention_layers or ())
        self.d_intermediate, self.experts, self.experts_every = d_intermediate, experts, experts_every
        self.experts_options, self.mlp_options = dict(experts_options or {}), dict(mlp_options or {})
        self.expert_layers = None if expert_layers is None else sorted(expert_layers)
        self.norm, self.norm_eps = norm, norm_eps
        self.residual_in_fp32, self.backend = residual_in_fp32, backend
        self.pad_vocab_size_multiple, self.tie_embeddings = pad_vocab_size_multiple, tie_embeddings
        _check_layers("attention", self.attention_layers, n_layer)
        _check_layers("experts", self.expert_layers or (), n_layer)
        factory = {"device": device, "dtype": dtype}
        padded = math.ceil(vocab_size / pad_vocab_size_multiple) * pad_vocab_size_multiple
        blocks = [self._block(index, factory) for index in range(n_layer)]
        norm_f = make_norm(norm, d_model, norm_eps, **factory)
        self.backbone = Backbone(padded, d_model, blocks, norm_f, **factory)
        self.lm_head = nn.Linear(d_model, padded, bias=False, **factory)
        self._init_weights(initializer_range, rescale_prenorm_residual)
        if tie_embeddings:
            self.lm_head.weight = self.backbone.embedding.weight

    @property
    def layers(self) -> nn.ModuleList:
        """The residual blocks."""
        return self.backbone.layers

    def forward(
        self, input_ids: Tensor, states: Sequence | None = None, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, list]:
        """Scores of the next token at every position.

        Args:
            input_ids: (batch, length), integer.
            states: what the call on the piece before this one returned; None: the sequences begin here.
            seq_idx: (batch, length), integer: nothing reaches across a change of it (packing); negative: padding.

        Returns:
            logits (batch, length, padded vocabulary), and the states to continue from, one a layer. The scores of the
            padding entries of the vocabulary mean nothing.
        """
        hidden, states = self.hidden(input_ids, states, seq_idx)
        return applied(self.lm_head, hidden), states

    def hidden(
        self, input_ids: Tensor, states: Sequence | None = None, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, list]:
        """What the head reads, (batch, length, d_model), and the states; arguments as for the model itself."""
        return self.backbone(input_ids, states, seq_idx)

    def flops(self, batch: int = 1, length: int | None = None) -> int | None:
        """Floating point operations of a forward pass over sequences of `length` tokens (None: self.tokens)."""
        length = length or self.tokens
        if length is None:
            return None
        return batch * (self.backbone.flops(length) + 2 * length * self.backbone.embedding.weight.numel())

    def auxiliary_loss(self) -> Tensor | None:
        """What training adds to the loss after a forward pass: the mixtures' balance, a scalar; None without experts."""
        return auxiliary_loss(self)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the layers again in the backward pass instead of keeping what it needs."""
        self.backbone.grad_checkpointing = enable

    def _block(self, index: int, factory: dict) -> ResidualBlock:
        if index in self.attention_layers:
            mixer = Attention(self.d_model, backend=self.backend, **self.attention_options, **factory)
        else:
            mixer = mixers.get(self.mixer)(self.d_model, backend=self.backend, **self.mixer_options, **factory)
        norm = make_norm(self.norm, self.d_model, self.norm_eps, **factory)
        mlp = self._mlp(index, factory)
        norm2 = None if mlp is None else make_norm(self.norm, self.d_model, self.norm_eps, **factory)
        return ResidualBlock(mixer, norm, mlp, norm2, residual_in_fp32=self.residual_in_fp32)

    def _mlp(self, index: int, factory: dict) -> nn.Module | None:
        if self.experts and self._has_experts(index):
            return MixtureOfExperts(self.d_model, self.d_intermediate, self.experts, **self.experts_options, **factory)
        if self.d_intermediate and (not self.experts or self.expert_layers is not None):
            return GatedMLP(self.d_model, self.d_intermediate, **self.mlp_options, **factory)
        return None

    def _has_experts(self, index: int) -> bool:
        return (index + 1) % self.experts_every == 0 if self.expert_layers is None else index in self.expert_layers

    @torch.no_grad()
    def _init_weights(self, embedding_std: float, rescale: bool) -> None:
        nn.init.normal_(self.backbone.embedding.weight, std=embedding_std)
        for module in self.modules():
            bias = getattr(module, "bias", None)
            if isinstance(module, nn.Linear) and bias is not None and not getattr(bias, "_no_reinit", False):
                nn.init.zeros_(bias)
        if rescale:
            additions = sum(2 if layer.has_mlp else 1 for layer in self.layers)
            scale_output_projections(self, additions)
            for layer in self.layers:
                if layer.has_mlp and isinstance(layer.mlp, MixtureOfExperts):
                    layer.mlp.fc2.div_(math.sqrt(additions))


def _check_layers(what: str, chosen: Collection[int], layers: int) -> None:
    wrong = [index for index in chosen if not 0 <= index < layers]
    if wrong:
        raise UserError(f"{what} in a layer that does not exist", given=wrong, allowed=f"0 to {layers - 1}")
