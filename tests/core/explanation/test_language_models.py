"""Language models of every mixer and of several: what each token's answer rests on."""

import pytest
import torch

from polymamba.core.explanation import METHODS, attribution, explain, hidden_attention, raw, rollout
from polymamba.domains.nlp.models import LanguageModel

DOUBLE = {"dtype": torch.float64}
SMALL = {"d_state": 6, "headdim": 8}
KINDS = {
    "mamba": {"mixer": "mamba", "mixer_options": {"d_state": 6}},
    "mamba2": {"mixer": "mamba2", "mixer_options": SMALL},
    "mamba3": {"mixer": "mamba3", "mixer_options": SMALL},
    "mamba3 of rank 2": {"mixer": "mamba3", "mixer_options": {**SMALL, "is_mimo": True, "mimo_rank": 2}},
    "hybrid": {
        "mixer": "mamba2", "mixer_options": SMALL, "attention_layers": [1], "d_intermediate": 16,
        "attention_options": {"num_heads": 4, "num_heads_kv": 2, "rotary_fraction": 1.0},
    },
}  # fmt: skip


def model(kind, **options):
    torch.manual_seed(0)
    made = LanguageModel(50, 16, 3, initializer_range=1.0, **KINDS[kind], **options, **DOUBLE)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def ids(batch=2, length=9):
    return torch.randint(50, (batch, length), generator=torch.Generator().manual_seed(1))


def last(answer):
    """The likeliest next token's score after each row."""
    return answer[0][:, -1].amax(-1)


def by_hand(made, method, tokens, seq_idx=None):
    """The map from the layers run one after the other."""
    residual, matrices, outputs = made.backbone.embedding(tokens), [], []
    for layer in made.layers:
        given = layer.norm(residual)
        matrices.append(hidden_attention(layer.mixer, given.detach(), None, seq_idx))
        outputs.append(layer.mixer(given, None, None, seq_idx)[0])
        residual = residual + outputs[-1]
        if layer.has_mlp:
            residual = residual + layer.mlp(layer.norm2(residual))
    if method == "raw":
        return raw([m.mean(1) for m in matrices])
    if method == "rollout":
        return rollout([m.abs().mean(1) for m in matrices])
    logits = made.lm_head(made.backbone.norm_f(residual))
    gradients = torch.autograd.grad(last((logits,)).sum(), outputs)
    seen = torch.ones(*[tokens.shape[1]] * 2, dtype=torch.bool).tril().expand(len(tokens), -1, -1)
    return attribution([m.mean(1) for m in matrices], gradients, [seen] * len(matrices))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_is_made_of_every_layers_matrices(kind, method, checkpointing):
    made, tokens = model(kind), ids()
    made.set_grad_checkpointing(checkpointing)
    found = explain(made, tokens, method=method, score=last if method == "attribution" else None)
    torch.testing.assert_close(found, by_hand(made, method, tokens).detach(), rtol=1e-9, atol=1e-12)
    assert not found.triu(1).any()
    assert found.diagonal(dim1=1, dim2=2).all()
    if method != "raw":
        torch.testing.assert_close(found.sum(-1), torch.ones(2, 9, **DOUBLE))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_padded_and_packed_is_explained_like_the_text_alone(kind):
    made, tokens = model(kind), ids()
    seq_idx = torch.tensor([[-1, -1, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, -1, -1]])
    found = explain(made, tokens, seq_idx=seq_idx)
    together = (seq_idx[:, :, None] == seq_idx[:, None]) & (seq_idx >= 0)[:, None]
    assert not found[~(together | torch.eye(9, dtype=torch.bool))].any()
    for row, begin, end in ((0, 2, 6), (0, 6, 9), (1, 0, 7)):
        alone = explain(made, tokens[row : row + 1, begin:end])
        torch.testing.assert_close(found[row, begin:end, begin:end], alone[0], rtol=1e-9, atol=1e-12)


def test_chosen_layers_of_a_hybrid():
    made, tokens = model("hybrid"), ids()
    attention = explain(made, tokens, method="raw", layers=[1])
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 9, **DOUBLE))
    assert (attention.tril() == attention).all()
    found = explain(made, tokens, method="raw", layers=[0, 1])
    torch.testing.assert_close(found, (attention + explain(made, tokens, method="raw", layers=[0])) / 2)
