"""A step on memory of its own. Where there is no card, running the step again stands for the graph that repeats it."""

import pytest
import torch

from polymamba.domains.nlp import replay
from polymamba.domains.nlp.generation import generate
from polymamba.domains.nlp.models.language_model import LanguageModel

OPTIONS = {"max_new_tokens": 9, "temperature": 0.7, "seed": 3, "end_token": -1, "return_states": True}
PROMPTS = [[3, 4, 5], [6], [7, 8]]


def model_of(**options):
    torch.manual_seed(0)
    return LanguageModel(41, d_model=16, n_layer=2, **options).double().eval()


def again(step):
    for _ in range(replay.WARM_UP):
        step()
    return step


@pytest.fixture
def used(monkeypatch):
    """The Replays that generation makes here."""
    made, whole = [], replay.Replay.__init__

    def remember(self, *given):
        whole(self, *given)
        made.append(self)

    monkeypatch.setattr(replay, "DEVICES", ("cpu",))
    monkeypatch.setattr(replay, "captured", again)
    monkeypatch.setattr(replay.Replay, "__init__", remember)
    return made


@torch.no_grad()
def test_it_says_what_the_model_says_and_leaves_the_given_states_alone():
    model, token = model_of(), torch.tensor([[3], [5]])
    _, states = model(token)
    before = [t.clone() for t in replay.tensors_of(states)]
    step = replay.Replay(model, token, states, again)
    assert all(torch.equal(a, b) for a, b in zip(before, replay.tensors_of(states), strict=True))
    for number in range(4):
        token = token + number
        expected, states = model(token, states)
        torch.testing.assert_close(step(token), expected[:, -1])
    for a, b in zip(replay.tensors_of(step.states), replay.tensors_of(states), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("mixer", ["mamba", "mamba2", "mamba3"])
def test_texts_are_those_without_it(mixer, monkeypatch, used):
    model = model_of(mixer=mixer, mixer_options={} if mixer == "mamba" else {"headdim": 8, "d_state": 8})
    found = generate(model, PROMPTS, **OPTIONS)
    assert len(used) == 1
    monkeypatch.setattr(replay, "DEVICES", ())
    expected = generate(model, PROMPTS, **OPTIONS)
    assert found.tokens == expected.tokens
    for a, b in zip(replay.tensors_of(found.states), replay.tensors_of(expected.states), strict=True):
        torch.testing.assert_close(a, b)


def test_states_that_grow_are_not_repeated(used):
    model = model_of(attention_layers=[1], attention_options={"num_heads": 2})
    assert len(generate(model, PROMPTS, **OPTIONS).tokens[0]) == 9
    assert not used


def test_what_cannot_be_captured_runs_step_by_step(monkeypatch, used):
    model = model_of()
    expected = generate(model, PROMPTS, **OPTIONS).tokens

    def refuse(step):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(replay, "captured", refuse)
    del used[:]
    assert generate(model, PROMPTS, **OPTIONS).tokens == expected
    assert not used
