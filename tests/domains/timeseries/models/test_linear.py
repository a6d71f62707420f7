import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.timeseries.models.decomposition import decompose
from polymamba.domains.timeseries.models.linear import DLinear, NLinear


def test_matches_the_original_model(golden):
    model = golden.fill(DLinear(96, 96, 7))
    with torch.no_grad():
        result = golden.compare("ts_dlinear", model(golden.seeded(4, 96, 7)), model)
    assert max(result["errors"]) < 1e-5
    assert not result["missing"]
    assert not result["extra"]
    assert not result["shapes"]
    assert result["parameters"][0] == result["parameters"][1]


def test_decomposition():
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    rest, trend = decompose(x, 5)
    torch.testing.assert_close(rest + trend, x)
    torch.testing.assert_close(trend[:, 4], x[:, 2:7].mean(1))
    torch.testing.assert_close(trend[:, 0], (3 * x[:, 0] + x[:, 1] + x[:, 2]) / 5)
    torch.testing.assert_close(decompose(x, 1)[1], x)
    assert decompose(x[:, :1], 25)[0].abs().max() < 1e-12
    with pytest.raises(UserError, match="centred"):
        decompose(x, 4)


@pytest.mark.parametrize("kind", [DLinear, NLinear])
def test_individual_layers_are_each_variable_s_own(kind):
    torch.manual_seed(0)
    model, x = kind(10, 4, 3, individual=True).double(), torch.randn(2, 10, 3, dtype=torch.float64)
    names = {name.split(".", 1)[1] for name in model.state_dict()}
    assert names == {f"{i}.{part}" for i in range(3) for part in ("weight", "bias")}
    for variable in range(3):
        alone = kind(10, 4).double()
        state = {name: value for name, value in model.state_dict().items() if f".{variable}." in name}
        alone.load_state_dict({name.replace(f".{variable}.", "."): value for name, value in state.items()})
        one = slice(variable, variable + 1)
        torch.testing.assert_close(model(x)[..., one], alone(x[..., one]))


def test_nlinear_follows_the_level():
    model, x = NLinear(10, 4).double(), torch.randn(2, 10, 3, dtype=torch.float64)
    torch.testing.assert_close(model(x + 5), model(x) + 5)
    with torch.no_grad():
        model.Linear.weight.zero_(), model.Linear.bias.zero_()
    torch.testing.assert_close(model(x), x[:, -1:].expand(-1, 4, -1))


def test_one_step_of_past_and_any_number_of_variables():
    assert DLinear(1, 3)(torch.randn(2, 1, 4)).shape == (2, 3, 4)
    assert NLinear(1, 3)(torch.randn(2, 1, 9)).shape == (2, 3, 9)
