import pytest
import torch
from torch.nn import functional as F

from polymamba.core.errors import UserError
from polymamba.domains.recommendation.models.mamba4rec import Mamba4Rec, build

DESCRIBE = {"items": 199, "length": 50}


def test_meets_the_record(meets_scores):
    meets_scores("rec_mamba4rec", build(DESCRIBE, compat="published"))


def norm(layer, x):
    return F.layer_norm(x, x.shape[-1:], layer.weight, layer.bias, 1e-12)


@pytest.mark.parametrize(
    ("layers", "compat", "residual"), [(1, "published", 0), (1, "corrected", 1), (2, "published", 1)]
)
@torch.no_grad()
def test_where_residuals_are(golden, layers, compat, residual):
    model = golden.fill(Mamba4Rec(30, 12, 32, layers, d_state=4, compat=compat)).double()
    items = torch.tensor([[3, 9, 27, 1, 3]])
    x = norm(model.LayerNorm, model.item_embedding.weight[items])
    for layer in model.mamba_layers:
        x = norm(layer.LayerNorm, layer.mamba(x)[0] + residual * x)
        y = F.gelu(x @ layer.ffn.w_1.weight.T + layer.ffn.w_1.bias) @ layer.ffn.w_2.weight.T + layer.ffn.w_2.bias
        x = norm(layer.ffn.LayerNorm, x + y)
    torch.testing.assert_close(model(items)[0], x)


def test_the_published_start_overwrites_mambas():
    torch.manual_seed(0)
    ours, theirs = build(DESCRIBE), build(DESCRIBE, compat="published")
    steps = [F.softplus(model.mamba_layers[0].mamba.dt_proj.bias) for model in (ours, theirs)]
    assert steps[0].max() < 0.11
    assert torch.allclose(steps[1], torch.full((128,), 2.0).log())
    assert theirs.mamba_layers[0].mamba.in_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert ours.mamba_layers[0].mamba.in_proj.weight.std().item() == pytest.approx(64**-0.5 / 3**0.5, rel=0.05)
    assert not ours.item_embedding.weight[0].any()
    assert ours.item_embedding.weight.std().item() == pytest.approx(0.02, rel=0.05)


@torch.no_grad()
def test_a_long_history_event_by_event():
    torch.manual_seed(0)
    model = build({"items": 500, "length": 50}, size="two-layers").eval()
    items = torch.randint(1, 501, (2, 120))
    whole, states, said = model(items)[0], None, []
    for event in range(120):
        hidden, states = model(items[:, event : event + 1], states=states)
        said.append(hidden)
    torch.testing.assert_close(torch.cat(said, 1), whole, rtol=1e-4, atol=1e-5)
    sizes = [part.numel() for state in states.layers for part in state]
    assert sum(sizes) == 2 * 2 * 128 * (3 + 32)  # whatever the history's length


def test_dropout_is_where_the_paper_has_it():
    torch.manual_seed(0)
    model = build({"items": 30, "length": 12}, dropout=0.5).train()
    items = torch.tensor([[3, 9, 27]])
    assert not torch.equal(model(items)[0], model(items)[0])
    model.eval()
    assert torch.equal(model(items)[0], model(items)[0])


def test_scans_and_sizes_that_do_not_exist():
    with pytest.raises(UserError, match="no such order"):
        build(DESCRIBE, mixer="attention", scan="reverse")
    with pytest.raises(UserError, match="mixer"):
        build(DESCRIBE, mixer="lstm")
    with pytest.raises(UserError, match="model size"):
        build(DESCRIBE, size="three-layers")
    with pytest.raises(UserError, match=r"model\.channels"):
        build(DESCRIBE, channels=0)
