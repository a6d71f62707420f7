"""The Transformer to compare with: Llama as the transformers library builds it, at the sizes of the Mamba models.

RMSNorm, rotary positions, SwiGLU: the "Transformer++" of the Mamba papers. A layer of it has the parameters of two Mamba layers
(Mamba, arXiv 2312.00752, appendix E.2), so a size has half as many layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ....core.errors import UserError, check_choice
from ....core.mixers.attention import attention_mask, sequence_numbers
from ....core.ranges import Depth, Positive, Size, checked
from .build import HEAD_CHANNELS, SIZES, SizeName


class LayerState(NamedTuple):
    """What a layer carries from one piece of a sequence to the next; it grows with every token.

    key, value: (batch, heads, past, channels of a head). sequence: (batch, past) int64, the number of the sequence that
    each token belongs to, -1 at padding; None where all belong to one.
    """

    key: Tensor
    value: Tensor
    sequence: Tensor | None


class Transformer(nn.Module):
    """A causal language model around transformers' LlamaForCausalLM, called as LanguageModel is.

    Args:
        vocab_size: tokens of the vocabulary.
        d_model, n_layer, num_heads: width, layers, heads of a layer.
        d_intermediate: channels of the gated MLP.
        tie_embeddings: the head's weight is the embedding's.
        length: tokens of a sample, for what is printed about costs; None: not known.

    Raises:
        UserError: transformers is not installed.
    """

    @checked
    def __init__(
        self,
        vocab_size: Size,
        d_model: Size,
        n_layer: Depth,
        num_heads: Size,
        d_intermediate: Size,
        tie_embeddings: bool = True,
        length: Size | None = None,
    ):
        super().__init__()
        try:
            with torch.device("cpu"):  # tensors that the import makes are real where the model's are not
                from transformers import LlamaConfig, LlamaForCausalLM
        except ImportError as reason:
            raise UserError(
                f"transformers is not installed: {reason}",
                given="model=transformer_lm",
                do="pip install 'polymamba[baselines]'",
            ) from reason
        self.vocab_size, self.d_model, self.tokens = vocab_size, d_model, length
        config = LlamaConfig(
            vocab_size=vocab_size, hidden_size=d_model, num_hidden_layers=n_layer, num_attention_heads=num_heads,
            intermediate_size=d_intermediate, tie_word_embeddings=tie_embeddings, rms_norm_eps=1e-5, use_cache=False,
            bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
        self.network = LlamaForCausalLM(config)

    @property
    def lm_head(self) -> nn.Module:
        """From what `hidden` returns to scores."""
        return self.network.lm_head

    def forward(
        self, input_ids: Tensor, states: Sequence[LayerState] | None = None, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, list[LayerState]]:
        """Scores (batch, length, vocabulary) and the states to continue from; arguments as LanguageModel's."""
        hidden, states = self.hidden(input_ids, states, seq_idx)
        return self.lm_head(hidden), states

    def hidden(
        self, input_ids: Tensor, states: Sequence[LayerState] | None = None, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, list[LayerState]]:
        """What the head reads, (batch, length, d_model), and the states to continue from, one a layer."""
        from transformers.cache_utils import DynamicCache

        batch, length = input_ids.shape
        past = states[0].key.shape[2] if states else 0
        before = states[0].sequence if states else None
        sequence, position = sequence_numbers(batch, length, past, before, seq_idx, input_ids.device)
        mask = attention_mask(length, past, sequence, True, input_ids.device)
        if mask is not None:
            mask = mask.expand(batch, 1, length, past + length)
        cache = DynamicCache([(state.key, state.value) for state in states or ()])
        hidden = self.network.model(
            input_ids, attention_mask=mask, position_ids=position.expand(batch, -1), past_key_values=cache
        ).last_hidden_state
        return hidden, [LayerState(layer.keys, layer.values, sequence) for layer in cache.layers]

    def flops(self, batch: int = 1, length: int | None = None) -> int | None:
        """Floating point operations of a forward pass over sequences of `length` tokens (None: self.tokens)."""
        length = length or self.tokens
        if length is None:
            return None
        layers = self.network.model.layers
        products = sum(m.weight.numel() for m in self.network.modules() if isinstance(m, nn.Linear))
        pairs = len(layers) * self.d_model * length * (length + 1)
        return batch * 2 * (length * products + pairs)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the layers again in the backward pass instead of keeping what it needs."""
        if enable:
            self.network.gradient_checkpointing_enable()
        else:
            self.network.gradient_checkpointing_disable()


@checked(group="model")
def build(
    describe: Mapping[str, Any],
    size: SizeName | None = None,
    d_model: Size | None = None,
    n_layer: Depth | None = None,
    num_heads: Size | None = None,
    mlp_ratio: Positive = 8 / 3,
    tie_embeddings: bool = True,
    checkpointing: bool = False,
) -> Transformer:
    """A Transformer with about the parameters of the Mamba model of the same size.

    Args:
        describe: the data set's own description: vocab_size, length, task, model_size.
        size: a Mamba size; None: what the data set asks for.
        d_model, n_layer, num_heads: other than the size's: its width, half its layers, heads of 64 channels (micro: 32).
        mlp_ratio: channels of the MLP a channel of the model.

    Raises:
        UserError: an unknown size, data for another task.
    """
    size = describe.get("model_size", "micro") if size is None else size
    check_choice("model.size", size, SIZES, "model size")
    if describe.get("task") == "classification":
        raise UserError(
            "this model predicts tokens", given=f"data={describe.get('name')}", allowed="data for language modelling and recall",
            do="model=mamba_lm",
        )  # fmt: skip
    width = SIZES[size]["d_model"] if d_model is None else d_model
    layers = SIZES[size]["n_layer"] // 2 if n_layer is None else n_layer
    heads = max(1, width // HEAD_CHANNELS.get(size, 64)) if num_heads is None else num_heads
    model = Transformer(
        int(describe["vocab_size"]),
        width,
        layers,
        heads,
        int(mlp_ratio * width),
        tie_embeddings,
        describe.get("length"),
    )
    if checkpointing:
        model.set_grad_checkpointing()
    return model
