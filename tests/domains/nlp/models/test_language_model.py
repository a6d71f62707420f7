"""The language model against the original's answers and counts, in pieces, packed, and its first weights."""

from __future__ import annotations

import math

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.nlp.models.build import SIZES
from polymamba.domains.nlp.models.language_model import LanguageModel


def tiny(seed=0, **options):
    torch.manual_seed(seed)
    return LanguageModel(**{"vocab_size": 50, "d_model": 32, "n_layer": 3, "dtype": torch.float64, **options}).eval()


def tokens(*shape, seed=1, high=50):
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def test_matches_the_original_model(golden):
    model = golden.fill(LanguageModel(250, d_model=64, n_layer=2))
    with torch.no_grad():
        logits, _ = model(golden.seeded(2, 64, low=0, high=250))
    result = golden.compare("core_lm_mamba1", logits, model)
    assert max(result["errors"]) < 1e-5
    assert (result["missing"], result["extra"], result["shapes"]) == ([], [], [])
    assert len(set(result["parameters"])) == 1


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("130m", 129_135_360), ("370m", 371_516_416), ("790m", 793_204_224), ("1.4b", 1_372_178_432),
        ("2.8b", 2_768_345_600),
    ],
)  # fmt: skip
def test_published_parameter_counts(size, count):
    model = LanguageModel(50277, **SIZES[size], device="meta")
    assert model.lm_head.weight is model.backbone.embedding.weight
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_pieces_equal_the_whole():
    model, text = tiny(), tokens(2, 23)
    whole, final = model(text)
    pieces, states = [], None
    for piece in text.split([1, 7, 1, 1, 13], dim=1):
        logits, states = model(piece, states)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    torch.testing.assert_close(states[-1].ssm, final[-1].ssm, rtol=1e-5, atol=1e-6)


def test_packed_texts_do_not_see_each_other():
    model, text = tiny(), tokens(1, 20)
    packed, _ = model(text, seq_idx=torch.tensor([[0] * 9 + [1] * 11]))
    alone = torch.cat([model(text[:, :9])[0], model(text[:, 9:])[0]], 1)
    torch.testing.assert_close(packed, alone)


def test_the_future_is_not_seen():
    model, text = tiny(), tokens(1, 20)
    other = text.clone()
    other[:, 12:] = (other[:, 12:] + 1) % 50
    torch.testing.assert_close(model(text)[0][:, :12], model(other)[0][:, :12])
    assert not torch.equal(model(text)[0][:, 12], model(other)[0][:, 12])


def test_checkpointing_gives_the_same_gradients():
    text, found = tokens(2, 11), []
    for enable in (False, True):
        model = tiny().train()
        model.set_grad_checkpointing(enable)
        model(text)[0].square().sum().backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in found[0].items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(found[1][name], gradient)


def test_first_weights():
    model = tiny(vocab_size=5000, d_model=64, n_layer=9, dtype=torch.float32)
    assert model.backbone.embedding.weight.std().item() == pytest.approx(0.02, rel=0.02)
    bound = 1 / math.sqrt(128 * 9)
    projection = model.layers[4].mixer.out_proj.weight
    assert 0.98 * bound < projection.abs().max().item() <= bound
    steps = torch.nn.functional.softplus(model.layers[0].mixer.dt_proj.bias)
    assert steps.min() >= 1e-4
    assert steps.max() <= 0.1001
    untied = tiny(tie_embeddings=False)
    assert untied.lm_head.weight is not untied.backbone.embedding.weight


def test_flops_count_what_a_forward_pass_multiplies():
    from torch.utils.flop_counter import FlopCounterMode

    model = tiny(length=16)
    with FlopCounterMode(display=False) as counter:
        model(tokens(1, 16))
    # The counter's hooks let every layer be called, the convolutions too; the scan it does not see.
    scan = 3 * 16 * 64 * 9 * 16
    assert model.flops() == counter.get_total_flops() + scan
    assert model.flops(3) == 3 * model.flops()
    assert tiny().flops() is None


def test_mistakes_are_explained():
    with pytest.raises(UserError, match="mixer=mamba2"):
        tiny(mixer="mamba_2")
    with pytest.raises(UserError, match="does not exist"):
        tiny(attention_layers=[3])


def test_matches_the_original_model_of_mamba2(golden):
    options = {"d_state": 16, "headdim": 32}
    model = golden.fill(LanguageModel(250, d_model=64, n_layer=2, mixer="mamba2", mixer_options=options))
    with torch.no_grad():
        logits, _ = model(golden.seeded(2, 64, low=0, high=250))
    result = golden.compare("core_lm_mamba2", logits, model)
    assert max(result["errors"]) < 1e-5
    assert (result["missing"], result["extra"], result["shapes"]) == ([], [], [])
    assert len(set(result["parameters"])) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"mixer": "mamba2", "mixer_options": {"d_state": 8, "headdim": 16}},
        {"attention_layers": [1], "attention_options": {"num_heads": 2}, "d_intermediate": 48},
        {"experts": 4, "d_intermediate": 24, "experts_every": 2, "experts_options": {"top_k": 2}},
    ],
    ids=["mamba2", "hybrid", "experts"],
)
def test_other_mixers_in_pieces_and_packed(options):
    model, text = tiny(**options), tokens(1, 20)
    whole, _ = model(text)
    first, states = model(text[:, :9])
    torch.testing.assert_close(torch.cat([first, model(text[:, 9:], states)[0]], 1), whole, rtol=1e-5, atol=1e-6)
    packed, _ = model(text, seq_idx=torch.tensor([[0] * 9 + [1] * 11]))
    torch.testing.assert_close(packed[:, 9:], model(text[:, 9:])[0], rtol=1e-5, atol=1e-6)
    assert model.flops(1, 20) > 0


def test_experts_are_where_they_were_asked_for_and_balanced():
    from polymamba.core.moe import balance_loss

    model = tiny(experts=4, d_intermediate=24, experts_every=2).train()
    assert [layer.has_mlp for layer in model.layers] == [False, True, False]
    assert model.auxiliary_loss() is None
    model(tokens(2, 20))
    assert balance_loss(model) >= 1 - 1e-6
    torch.testing.assert_close(model.auxiliary_loss(), 0.01 * balance_loss(model))
    (gradient,) = torch.autograd.grad(model.auxiliary_loss(), model.layers[1].mlp.router.weight)
    assert gradient.any()


def test_without_experts_nothing_is_added_to_the_loss():
    model = tiny().train()
    model(tokens(2, 20))
    assert model.auxiliary_loss() is None
