import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.recommendation.models.sigma import SIGMA, build

DESCRIBE = {"items": 199, "length": 50}


def test_meets_the_record(meets_scores):
    meets_scores("rec_sigma", build(DESCRIBE, compat="published"))


def test_what_is_flipped():
    corrected = build(DESCRIBE).mamba_layers[0].gmamba
    flip = corrected.flip(torch.tensor([8, 6, 5, 2, 0]), 8)
    assert flip.tolist() == [[2, 1, 0, 3, 4, 5, 6, 7], *[list(range(8))] * 4]
    published = build(DESCRIBE, compat="published").mamba_layers[0].gmamba
    assert published.flip(torch.tensor([3]), 48)[0].tolist() == [*range(44, -1, -1), 45, 46, 47]
    assert published.flip(torch.tensor([3]), 4)[0].tolist() == [3, 2, 1, 0]


@torch.no_grad()
def test_the_block_by_hand(golden):
    """One history of 8 events, the first 3 flipped, event by event."""
    model = golden.fill(SIGMA(30, 12, 32, d_state=4)).double()
    block, x = model.mamba_layers[0].gmamba, golden.seeded(1, 8, 32).double()
    flipped = x[:, [2, 1, 0, 3, 4, 5, 6, 7]]

    def gate(t):
        (_, sigmoid), (_, silu) = block.selective_gate_sig, block.selective_gate_si
        return (
            torch.nn.functional.silu(t) @ silu.weight.T + silu.bias + torch.sigmoid(t) @ sigmoid.weight.T + sigmoid.bias
        )

    ahead, back = block.mamba(x)[0], block.mamba(flipped)[0]
    ahead = ahead * (1 + gate(x + block.dense1(x)))
    back = (back * (1 + gate(flipped + block.dense2(flipped))))[:, [2, 1, 0, 3, 4, 5, 6, 7]]
    recent = block.gru(block.conv1d(x.transpose(1, 2)).transpose(1, 2))[0]
    shares = block.combining_weights.exp() / block.combining_weights.exp().sum()
    expected = block.projection(shares[0] * recent + shares[1] * back + shares[2] * ahead)
    torch.testing.assert_close(block(x, torch.tensor([8]), None)[0], expected)


def test_the_shares_begin_as_published():
    for compat in ("published", "corrected"):
        weights = build(DESCRIBE, compat=compat).mamba_layers[0].gmamba.combining_weights
        shares = weights if compat == "published" else weights.softmax(0)
        torch.testing.assert_close(shares, torch.tensor([0.1, 0.1, 0.8]))


@torch.no_grad()
def test_the_published_form_reads_padding_and_ours_does_not(golden):
    items = torch.tensor([[3, 9, 27, 1, 3, 8, 2, 5, 4]])
    wide = torch.nn.functional.pad(items, (0, 3))
    for compat in ("published", "corrected"):
        model = golden.fill(SIGMA(30, 12, 32, d_state=4, compat=compat)).double()
        found = model.encode(items)
        torch.testing.assert_close(model.encode(wide), found)  # the published form fills rows up itself
        model.item_embedding.weight[0] = model.item_embedding.weight[5]
        assert torch.allclose(model.encode(wide), found) == (compat == "corrected")
    model = golden.fill(SIGMA(30, 12, 32, d_state=4, compat="published"))
    for left in (torch.nn.functional.pad(items, (3, 0)), items.repeat(2, 1)):
        seq_idx = torch.tensor([0] * 4 + [1] * 5).expand(len(left), -1) if left.shape[1] == 9 else None
        with pytest.raises(UserError, match="padded on the right"):
            model(left, seq_idx)


@torch.no_grad()
def test_two_published_layers_have_residuals(golden):
    model = golden.fill(SIGMA(30, 50, 32, layers=2, d_state=4, compat="published")).double()
    assert all(layer.residual for layer in model.mamba_layers)
    layer, x = model.mamba_layers[1], golden.seeded(1, 6, 32).double()
    expected = layer.ffn(layer.LayerNorm(layer.gmamba(x, torch.tensor([6]), None)[0] + x))
    torch.testing.assert_close(layer(x, torch.tensor([6]), None)[0], expected)
