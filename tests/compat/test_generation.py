"""mamba_ssm's decoding: scores, forced tokens, streams, and models that keep a cache a layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polymamba.compat.blocks import MixerModel
from polymamba.compat.generation import GenerationMixin, decode
from polymamba.compat.language_model import CausalLMOutput, MambaConfig, MambaLMHeadModel


class OfBlocks(GenerationMixin, nn.Module):
    """A language model of the user's own around upstream's backbone."""

    def __init__(self):
        super().__init__()
        self.backbone = MixerModel(16, 2, 0, 50, {"d_state": 4}, rms_norm=True)
        self.lm_head = nn.Linear(16, 50, bias=False)

    def forward(self, input_ids, position_ids=None, inference_params=None, num_last_tokens=0):
        hidden = self.backbone(input_ids, inference_params=inference_params)
        return CausalLMOutput(self.lm_head(hidden[:, -num_last_tokens:]))


def model(kind: str = "ours"):
    torch.manual_seed(0)
    made = OfBlocks() if kind == "of blocks" else MambaLMHeadModel(MambaConfig(d_model=16, n_layer=2, vocab_size=50))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made.eval()


def ids(length: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 50, (2, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["ours", "of blocks"])
def test_scores_are_those_of_the_whole_sequence(kind):
    lm = model(kind)
    found = lm.generate(ids(), max_length=10, return_dict_in_generate=True, output_scores=True)
    with torch.no_grad():
        whole = lm(found.sequences).logits
    assert found.sequences.shape == (2, 10)
    assert torch.equal(found.sequences[:, :4], ids())
    assert len(found.scores) == 6
    torch.testing.assert_close(torch.stack(found.scores, 1), whole[:, 3:-1], rtol=1e-4, atol=1e-5)
    assert torch.equal(found.sequences[:, 4:], whole[:, 3:-1, :50].argmax(-1))
    assert lm.generate(ids(), max_length=10, return_dict_in_generate=True).scores is None


def test_a_teachers_tokens_are_taken_as_far_as_they_reach():
    lm, teacher = model(), ids(8, seed=3)
    found = lm.generate(teacher[:, :2], max_length=11, teacher_outputs=teacher)
    assert torch.equal(found[:, :8], teacher)
    assert torch.equal(found, lm.generate(teacher, max_length=11))


def test_a_smaller_vocabulary():
    lm = model()
    found = lm.generate(ids() % 9, max_length=12, vocab_size=9, return_dict_in_generate=True, output_scores=True)
    assert int(found.sequences.max()) < 9
    assert {tuple(scores.shape) for scores in found.scores} == {(2, 9)}


def test_drawing_depends_on_the_seed_and_penalties_change_the_text():
    lm = model()
    draw = {"max_length": 30, "top_k": 0, "top_p": 0.9, "temperature": 1.5}
    assert torch.equal(lm.generate(ids(), seed=1, **draw), lm.generate(ids(), seed=1, **draw))
    assert not torch.equal(lm.generate(ids(), seed=1, **draw), lm.generate(ids(), seed=2, **draw))
    plain = lm.generate(ids(), max_length=30)
    fresh = lm.generate(ids(), max_length=30, repetition_penalty=1e5)
    assert max(len(set(row)) for row in plain.tolist()) < min(len(set(row)) for row in fresh.tolist())


class Streamer:
    def __init__(self):
        self.given, self.ended = [], False

    def put(self, tokens):
        assert not self.ended
        self.given.append(tokens)

    def end(self):
        self.ended = True


def test_a_streamer_hears_every_token_and_ended_rows_stay_ended():
    lm, streamer = model(), Streamer()
    free = lm.generate(ids(), max_length=12)
    end = int(free[0, 6])
    found = decode(ids(), lm, 12, eos_token_id=end, streamer=streamer).sequences
    assert torch.equal(torch.cat(streamer.given, 1), found)
    assert streamer.ended
    first = next(t for t in range(4, 12) if free[0, t] == end)
    assert torch.equal(found[0, : first + 1], free[0, : first + 1])
    assert bool((found[0, first:] == end).all())
