"""Generation: the same text however the prompts are cut, padded and continued."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.nlp.generation import generate, stream
from polymamba.domains.nlp.models.language_model import LanguageModel

PROMPTS = ["def f(x):", "a", "class Long", ""]


def model_with(attention=False, **options):
    torch.manual_seed(0)
    if attention:
        options |= {"attention_layers": [1], "attention_options": {"num_heads": 2, "rotary_fraction": 0.5}}
    model = LanguageModel(257, d_model=32, n_layer=3, tie_embeddings=False, **options).double()
    with torch.no_grad():
        model.lm_head.weight.mul_(10)  # far from uniform, so that drawing depends on the scores
    return model


@pytest.fixture(params=[False, True], ids=["mamba", "hybrid"])
def model(request):
    return model_with(request.param)


def test_greedy_is_the_argmax_of_the_whole_text(model):
    prompt = torch.arange(9)
    found = generate(model, prompt, max_new_tokens=12, temperature=0).tokens[0]
    text = prompt[None]
    for _ in range(12):
        text = torch.cat([text, model(text)[0][:, -1, :257].argmax(-1, keepdim=True)], 1)
    assert found == text[0, 9:].tolist()
    assert len(set(found)) > 3


@pytest.mark.parametrize("chunk", [1, 3, 1024])
def test_padding_and_pieces_change_nothing(model, byte_tokenizer, chunk):
    options = {"max_new_tokens": 15, "end_token": -1, "temperature": 0.8, "top_p": 0.9}
    together = generate(model, PROMPTS, byte_tokenizer, chunk=chunk, seed=5, **options)
    alone = [generate(model, each, byte_tokenizer, seed=5 + row, **options) for row, each in enumerate(PROMPTS)]
    assert together.tokens == [each.tokens[0] for each in alone]
    assert together.texts == [each.texts[0] for each in alone]
    assert together.reasons == ["length"] * 4


def test_a_seed_is_a_text(model, byte_tokenizer):
    texts = [generate(model, "x", byte_tokenizer, max_new_tokens=40, seed=seed).texts for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_states_go_on(model):
    options = {"max_new_tokens": 6, "temperature": 0}
    prompt = [[5, 6, 7, 8], [9, 10, 11, 12]]
    first = generate(model, prompt, return_states=True, **options)
    more = generate(model, [[1, 2], [3, 4]], states=first.states, **options)
    texts = [[*p, *new, *then] for p, new, then in zip(prompt, first.tokens, [[1, 2], [3, 4]], strict=True)]
    assert more.tokens == generate(model, texts, **options).tokens
    assert not first.states[0].ssm.is_inference()


def test_states_of_rows_that_end_apart_and_go_on_unevenly(byte_tokenizer):
    model = model_with()
    options = {"max_new_tokens": 30, "temperature": 0}
    free = generate(model, ["ab", "q"], byte_tokenizer, end_token=-1, **options)
    end = next(token for token in free.tokens[0] if token not in free.tokens[1])
    first = generate(model, ["ab", "q"], byte_tokenizer, end_token=end, return_states=True, **options)
    assert first.reasons == ["end", "length"]
    assert first.tokens[0] == free.tokens[0][: free.tokens[0].index(end) + 1]
    more = generate(model, [[7], [1, 2, 3]], states=first.states, **options)
    for row, (prompt, then) in enumerate((([97, 98], [7]), ([113], [1, 2, 3]))):
        assert more.tokens[row] == generate(model, [*prompt, *first.tokens[row], *then], **options).tokens[0]


def test_a_stop_string_ends_a_row_and_not_the_others(byte_tokenizer):
    model = model_with()
    options = {"max_new_tokens": 40, "temperature": 0, "end_token": -1}
    free = generate(model, ["ab", "q"], byte_tokenizer, **options)
    stop = free.texts[0][5:8]
    found = generate(model, ["ab", "q"], byte_tokenizer, stop=stop, **options)
    assert found.texts[0] == free.texts[0][: free.texts[0].index(stop)]
    assert found.reasons[0] == "stop"
    assert len(found.tokens[0]) < 40
    if stop not in free.texts[1]:
        assert found.texts[1] == free.texts[1]


def test_streaming_says_the_same_as_waiting(byte_tokenizer):
    model, said = model_with(), []
    options = {"max_new_tokens": 25, "seed": 3, "repetition_penalty": 1.3, "min_p": 0.02, "top_k": 50}
    waited = generate(model, PROMPTS, byte_tokenizer, stream=said.append, **options)
    steps = list(stream(model, PROMPTS, byte_tokenizer, **options))
    assert steps == said
    for row in range(4):
        assert "".join(step.text[row] for step in steps) == waited.texts[row]
        assert [step.tokens[row] for step in steps if step.tokens[row] is not None] == waited.tokens[row]


def test_a_stream_without_end_can_be_left(byte_tokenizer):
    model = model_with().train()
    steps = stream(model, "x", byte_tokenizer, max_new_tokens=None, end_token=-1)
    assert len([next(steps) for _ in range(30)]) == 30
    assert not model.training
    steps.close()
    assert model.training


def test_repetition_penalty_sees_prompt_and_text():
    model = model_with()
    options = {"max_new_tokens": 20, "temperature": 0}
    assert len(set(generate(model, [1, 2], repetition_penalty=1e6, **options).tokens[0]) - {1, 2}) == 20
    assert len(set(generate(model, [1, 2], **options).tokens[0])) < 20


def test_states_do_not_grow_with_the_text():
    model = model_with()
    sizes = [
        [
            t.shape
            for state in generate(model, [1] * length, max_new_tokens=length, return_states=True).states
            for t in state
        ]
        for length in (3, 30)
    ]
    assert sizes[0] == sizes[1]


def test_mistakes_are_explained(byte_tokenizer):
    model = model_with()
    for prompt, options, message in (
        ("x", {}, "needs a tokenizer"),
        ([1], {"stop": "x"}, "stop strings need a tokenizer"),
        ([], {}, "nothing to go on from"),
        ([[]], {}, "empty prompt"),
        ([300], {}, "does not exist"),
        ([1], {"top_p": 7}, "top_p"),
        ([1], {"chunk": 0}, "chunk"),
        ([1], {"max_new_tokens": None}, "without end"),
    ):
        with pytest.raises(UserError, match=message):
            generate(model, prompt, **options)


NUMBERS = [5, 6, 7]
ONE = {
    "list": NUMBERS, "tuple": tuple(NUMBERS), "range": range(5, 8), "tensor": torch.tensor(NUMBERS),
    "int32": torch.tensor(NUMBERS, dtype=torch.int32), "array": np.array(NUMBERS), "uint16": np.array(NUMBERS, np.uint16),
    "numbers": list(np.array(NUMBERS)), "scalars": list(torch.tensor(NUMBERS)), "bytes": bytes(NUMBERS), "text": "\5\6\7",
    "str_": np.str_("\5\6\7"), "one row": np.array([NUMBERS]), "one text": ["\5\6\7"], "texts": np.array(["\5\6\7"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", ONE)
def test_prompts_of_any_kind(model, byte_tokenizer, kind):
    options = {"max_new_tokens": 4, "temperature": 0}
    expected = generate(model, [NUMBERS], byte_tokenizer, **options)
    assert generate(model, ONE[kind], byte_tokenizer, **options) == expected


@pytest.mark.parametrize("kind", ["list", "array", "tensor", "numbers", "bytes", "text"])
def test_several_prompts_of_any_kind(model, byte_tokenizer, kind):
    found = generate(model, [ONE[kind], "ab"], byte_tokenizer, max_new_tokens=4, temperature=0)
    assert found == generate(model, [NUMBERS, [97, 98]], byte_tokenizer, max_new_tokens=4, temperature=0)
    both = generate(model, np.array([NUMBERS, NUMBERS]), byte_tokenizer, max_new_tokens=4, temperature=0)
    assert both.tokens[0] == both.tokens[1] == found.tokens[0]


@pytest.mark.parametrize(
    "prompt", [1.5, None, 7, [1.5], np.array([0.5]), [None], [[True]], b"\xff", {"a": 1}.items, [[[1]]]]
)
def test_what_is_no_prompt(model, byte_tokenizer, prompt):
    with pytest.raises(UserError, match="prompt"):
        generate(model, prompt, byte_tokenizer)
