"""mamba_ssm's decoding (utils/generation.py)."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..domains.nlp.sampling import Sampling

GenerationOutput = namedtuple("GenerationOutput", ["sequences", "scores"])


@dataclass
class InferenceParams:
    """What upstream's layers are handed to find their caches."""

    max_seqlen: int
    max_batch_size: int
    seqlen_offset: int = 0
    batch_size_offset: int = 0
    key_value_memory_dict: dict = field(default_factory=dict)
    lengths_per_sample: Tensor | None = None

    def reset(self, max_seqlen: int, max_batch_size: int) -> None:
        """Begin new sequences; caches stay where they are."""
        self.max_seqlen, self.max_batch_size, self.seqlen_offset = max_seqlen, max_batch_size, 0
        if self.lengths_per_sample is not None:
            self.lengths_per_sample.zero_()


@torch.inference_mode()
def decode(
    input_ids: Tensor, model, max_length: int, top_k=1, top_p=0.0, min_p=0.0, temperature=1.0, repetition_penalty=1.0,
    eos_token_id=None, teacher_outputs: Tensor | None = None, vocab_size: int | None = None, cg=False, enable_timing=False,
    streamer=None, seed=0,
) -> GenerationOutput:  # fmt: skip
    """Continue prompts of one length to max_length tokens, prompt included; top_k=1 takes the likeliest token.

    Rows that end early are filled up with the end token.

    Args:
        input_ids: (batch, length). model: called as MambaLMHeadModel is.
        teacher_outputs: (batch, tokens): as far as they reach, these tokens are taken instead of drawn ones.
        vocab_size: only the first so many tokens are drawn and scored; None: those that are not padding are drawn.
        streamer: its put() is given the prompt and every new token, its end() is called.
        cg, enable_timing: accepted and ignored. seed: row i draws with seed + i.

    Returns:
        sequences (batch, tokens), and for each new token the scores (batch, vocabulary) that it was chosen by.
    """
    sampling = Sampling(
        repetition_penalty=repetition_penalty, temperature=0.0 if top_k == 1 else temperature, top_k=top_k or 0,
        top_p=top_p or 1.0, min_p=min_p,
    )  # fmt: skip
    batch, known = input_ids.shape[0], 0 if teacher_outputs is None else teacher_outputs.shape[1]
    draws = [torch.Generator().manual_seed(seed + row) for row in range(batch)]
    cache = InferenceParams(max_length, batch)
    sequences, scores, new = input_ids, [], input_ids
    ended = torch.zeros(batch, dtype=torch.bool, device=input_ids.device)
    tell = streamer.put if streamer is not None else lambda tokens: None
    tell(input_ids.cpu())
    while sequences.shape[1] < max_length and not ended.all():
        said = model(new, inference_params=cache, num_last_tokens=1).logits[:, -1, :vocab_size]
        cache.seqlen_offset += new.shape[1]
        scores.append(said)
        if sequences.shape[1] < known:
            new = teacher_outputs[:, sequences.shape[1], None].to(input_ids.dtype)
        else:
            size = vocab_size or getattr(model, "vocab_size", said.shape[-1])
            numbers = torch.cat([torch.rand(1, generator=each, dtype=torch.float64) for each in draws])
            seen = torch.zeros_like(said, dtype=torch.bool).scatter_(1, sequences, True)
            new = sampling.choose(said[:, :size], seen[:, :size], numbers)[:, None].to(input_ids.dtype)
        if eos_token_id is not None:
            new = new.masked_fill(ended[:, None], eos_token_id)
            ended = ended | (new[:, 0] == eos_token_id)
        sequences = torch.cat([sequences, new], 1)
        tell(new.cpu())
    if streamer is not None:
        streamer.end()
    return GenerationOutput(sequences, tuple(scores))


class GenerationMixin:
    """`generate` with upstream's arguments."""

    def generate(
        self, input_ids: Tensor, max_length: int, top_k=1, top_p=0.0, min_p=0.0, temperature=1.0, return_dict_in_generate=False,
        output_scores=False, **kwargs,
    ) -> Tensor | GenerationOutput:  # fmt: skip
        """The sequences (batch, tokens) of `decode`, with return_dict_in_generate beside their scores, None unless asked for."""
        output = decode(input_ids, self, max_length, top_k, top_p, min_p, temperature, **kwargs)
        output = output if output_scores else output._replace(scores=None)
        return output if return_dict_in_generate else output.sequences
