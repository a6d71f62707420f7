import pytest
import torch

from polymamba.domains.timeseries.models.instance_norm import InstanceNorm, NoNorm


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("subtract_last", [False, True])
def test_what_is_taken_out_comes_back(affine, subtract_last):
    norm, x = InstanceNorm(3, affine, subtract_last).double(), 5 + 3 * torch.randn(2, 9, 3, dtype=torch.float64)
    if affine:
        with torch.no_grad():
            norm.affine_weight.uniform_(0.5, 2), norm.affine_bias.normal_()
    normal, scale = norm.normalise(x)
    torch.testing.assert_close(norm.undo(normal, scale), x)
    assert scale.centre.shape == scale.spread.shape == (2, 1, 3)


def test_mean_and_deviation():
    x = torch.randn(2, 50, 3, dtype=torch.float64) * 4 + 7
    normal, _ = InstanceNorm().normalise(x)
    torch.testing.assert_close(normal.mean(1), torch.zeros(2, 3, dtype=torch.float64))
    torch.testing.assert_close(normal.var(1, correction=0), torch.ones(2, 3, dtype=torch.float64), rtol=1e-4, atol=0)
    assert InstanceNorm(subtract_last=True).normalise(x)[0][:, -1].abs().max() == 0


def test_constant_windows_and_weights_of_zero_stay_finite():
    norm = InstanceNorm(2, affine=True)
    normal, scale = norm.normalise(torch.full((1, 1, 2), 3.0))
    assert normal.abs().max() == 0
    torch.nn.init.zeros_(norm.affine_weight)
    assert norm.undo(torch.zeros(1, 4, 2), scale).isfinite().all()


def test_no_norm():
    x = torch.randn(2, 5, 3)
    normal, scale = NoNorm().normalise(x)
    assert normal is x
    assert NoNorm().undo(x, scale) is x
