import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.recommendation.models.echomamba4rec import EchoMamba4Rec, FilterLayer, build

DESCRIBE = {"items": 199, "length": 50}


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_meets_the_record(meets_scores):
    meets_scores("rec_echomamba4rec", build(DESCRIBE, compat="published"))


def test_pairs_and_what_nobody_calls():
    one, two = (build(DESCRIBE, size=size, compat="published") for size in ("one-layer", "two-layers"))
    assert count(one) - count(build(DESCRIBE)) == 62_592
    assert [len(layer.mamba_forwards) for layer in two.mamba_layers] == [2, 2]
    ours = build(DESCRIBE, size="two-layers")
    assert [len(layer.mamba_backwards) for layer in ours.mamba_layers] == [1, 1]
    assert not [name for name, _ in ours.named_parameters() if "multi_query" in name]


@pytest.mark.parametrize("length", [1, 2, 7, 8])
def test_the_filter_is_a_circular_convolution(length):
    """Of any length, even or not: the inverse transform of the weights, taken round the row."""
    torch.manual_seed(0)
    layer = FilterLayer(length, 3, 0.0).double()
    with torch.no_grad():
        layer.complex_weight.normal_()
    x = torch.randn(2, length, 3, dtype=torch.float64)
    kernel = torch.fft.irfft(torch.view_as_complex(layer.complex_weight), n=length, dim=1)[0]
    y = torch.stack([sum(kernel[back] * x[:, at - back] for back in range(length)) for at in range(length)], 1)
    torch.testing.assert_close(layer(x), layer.LayerNorm(x + y))


@torch.no_grad()
def test_both_directions_by_hand(golden):
    model = golden.fill(EchoMamba4Rec(30, 9, 32, d_state=4)).double()
    layer, x = model.mamba_layers[0], golden.seeded(1, 9, 32).double()
    filtered = layer.filter_layer(x)
    ahead, back = layer.mamba_forwards[0](filtered)[0], layer.mamba_backwards[0](filtered)[0]
    forwards = golden.fill(EchoMamba4Rec(30, 9, 32, d_state=4)).double().mamba_layers[0].mamba_forwards[0]
    forwards.load_state_dict(layer.mamba_backwards[0].state_dict())
    torch.testing.assert_close(back, forwards(filtered.flip(1))[0].flip(1))
    expected = layer.norms_forward[0](ahead + filtered) + layer.norms_backward[0](back + filtered)
    torch.testing.assert_close(layer(x, None), layer.glu(expected))


@torch.no_grad()
def test_what_stands_behind_a_history_is_not_read(golden):
    layer = golden.fill(EchoMamba4Rec(30, 9, 32, d_state=4)).double().mamba_layers[0]
    x, seq_idx = golden.seeded(1, 9, 32).double(), torch.tensor([[0] * 6 + [-1] * 3])
    other = torch.cat([x[:, :6], torch.full((1, 3, 32), 7.0, dtype=torch.float64)], 1)
    torch.testing.assert_close(layer(x, seq_idx)[:, :6], layer(other, seq_idx)[:, :6])


@torch.no_grad()
def test_the_published_form_fills_rows_up_itself(golden):
    model = golden.fill(EchoMamba4Rec(30, 12, 32, layers=2, d_state=4, compat="published")).double()
    items = torch.tensor([[3, 9, 27, 1, 3], [4, 5, 0, 0, 0]])
    wide = torch.nn.functional.pad(items, (0, 7))
    torch.testing.assert_close(model(items)[0], model(wide)[0][:, :5])
    with pytest.raises(UserError, match="padded on the right"):
        model(items.flip(1))


def test_attention_does_not_read_backwards():
    with pytest.raises(UserError, match="backward"):
        EchoMamba4Rec(30, 12, mixer="attention")
