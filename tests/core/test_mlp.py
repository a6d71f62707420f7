import pytest
import torch
from torch.nn import functional as F

from polymamba.core.errors import UserError
from polymamba.core.mlp import GatedMLP


def test_value_times_gate():
    torch.manual_seed(0)
    made, x = GatedMLP(6, 5, multiple_of=1, bias=True), torch.randn(2, 3, 6)
    hidden = x @ made.fc1.weight.T + made.fc1.bias
    expected = (hidden[..., :5] * F.silu(hidden[..., 5:])) @ made.fc2.weight.T + made.fc2.bias
    torch.testing.assert_close(made(x), expected)


def test_sizes_and_keys_are_those_of_mamba_ssm():
    made = GatedMLP(100)
    assert {name: tuple(p.shape) for name, p in made.named_parameters()} == {
        "fc1.weight": (768, 100),
        "fc2.weight": (100, 384),
    }
    assert GatedMLP(64, 200).d_hidden == 256
    assert made.flops(3) == 2 * 3 * 3 * 384 * 100
    with pytest.raises(UserError, match="swish"):
        GatedMLP(4, activation="swish")
