"""The Transformer to compare with: called as the other language models are, and the same function as transformers' own."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from polymamba.core.errors import UserError
from polymamba.domains.nlp.generation import generate
from polymamba.domains.nlp.models.build import build as build_mamba
from polymamba.domains.nlp.models.transformer import build

pytest.importorskip("transformers")

TEXT = {"vocab_size": 250, "length": 32, "model_size": "micro", "task": "language_modelling"}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build(TEXT, d_model=32, n_layer=2, num_heads=2).double().eval()


@pytest.fixture
def text():
    return torch.randint(0, 250, (2, 13), generator=torch.Generator().manual_seed(1))


def test_scores_are_those_of_the_library(model, text):
    with torch.no_grad():
        expected = model.network(text).logits
        scores, states = model(text)
    torch.testing.assert_close(scores, expected, atol=1e-12, rtol=1e-12)
    assert states[0].key.shape == (2, 2, 13, 16)


@pytest.mark.parametrize("cuts", [(1, 13), (5, 6, 13), tuple(range(1, 14))])
def test_pieces_equal_the_whole(model, text, cuts):
    with torch.no_grad():
        expected, _ = model(text)
        states, found, start = None, [], 0
        for end in cuts:
            scores, states = model(text[:, start:end], states)
            found.append(scores)
            start = end
    torch.testing.assert_close(torch.cat(found, 1), expected, atol=1e-10, rtol=1e-10)


def test_packed_equals_separate_and_padding_is_not_seen(model, text):
    seq_idx = torch.tensor([-1, -1, 4, 4, 4, 4, 7, 7, 7, 7, 7, -1, -1]).expand(2, -1)
    with torch.no_grad():
        packed, states = model(text, seq_idx=seq_idx)
        first, _ = model(text[:, 2:6])
        second, state = model(text[:, 6:11])
        more, _ = model(text[:, :3], states)
        wanted, _ = model(text[:, :3], state)
    torch.testing.assert_close(packed[:, 2:6], first, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(packed[:, 6:11], second, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(more, wanted, atol=1e-10, rtol=1e-10)


def test_it_generates_what_its_scores_say(model, text):
    with torch.no_grad():
        ids = text[:1]
        for _ in range(4):
            ids = torch.cat([ids, model(ids)[0][:, -1:].argmax(-1)], 1)
    said = generate(model, text[:1].tolist(), max_new_tokens=4, temperature=0)
    assert said.tokens[0] == ids[0, 13:].tolist()


def test_a_size_has_about_the_parameters_of_the_mamba_model():
    ours, theirs = (sum(p.numel() for p in each(TEXT).parameters()) for each in (build, build_mamba))
    assert 0.8 < ours / theirs < 1.2


def test_its_floating_point_operations_are_those_counted(text):
    model = build(TEXT, d_model=32, n_layer=2, num_heads=2).eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(text[:1])
    pairs = 2 * 2 * 2 * 32 * 13 * 13  # the counter counts the pairs that causality hides too
    assert model.flops(1, 13) == counter.get_total_flops() - pairs + pairs // 13 * 14 // 2


def test_wrong_sizes_and_data_are_explained():
    with pytest.raises(UserError, match=r"model\.size=130m"):
        build(TEXT, size="130M")
    with pytest.raises(UserError, match="model=mamba_lm"):
        build({**TEXT, "task": "classification"})
