import pytest
import torch
from torch.nn import functional as F

from polymamba.core.errors import UserError
from polymamba.domains.timeseries.models.einfft import EinFFT


def test_matches_the_original_layer(golden):
    layer = golden.fill(EinFFT(64))
    with torch.no_grad():
        result = golden.compare("layer_einfft", layer(golden.seeded(2, 49, 64) * 2), layer)
    assert max(result["errors"]) < 1e-5
    assert not result["missing"]
    assert not result["extra"]
    assert not result["shapes"]
    assert result["parameters"][0] == result["parameters"][1]


@pytest.mark.parametrize(("blocks", "length"), [(4, 7), (2, 1), (1, 6)])
def test_against_complex_arithmetic(blocks, length):
    torch.manual_seed(0)
    layer, x = EinFFT(8, blocks, deviation=0.5).double(), torch.randn(2, length, 8, dtype=torch.float64)
    waves = torch.fft.fft2(x.unflatten(2, (blocks, -1)).to(torch.complex128), dim=(1, 2), norm="ortho")
    first, second = (torch.complex(*getattr(layer, f"complex_weight_{i}")) for i in (1, 2))
    biases = [torch.complex(*getattr(layer, f"complex_bias_{i}")) for i in (1, 2)]
    inner = torch.einsum("nlbi,bio->nlbo", waves, first) + biases[0]
    inner = torch.complex(F.relu(inner.real), F.relu(inner.imag))
    outer = torch.einsum("nlbi,bio->nlbo", inner, second) + biases[1]
    outer = torch.complex(F.softshrink(outer.real, 0.01), F.softshrink(outer.imag, 0.01))
    expected = torch.fft.ifft2(outer, dim=(1, 2), norm="ortho").real.flatten(2)
    torch.testing.assert_close(layer(x), expected)


def test_gradients():
    torch.manual_seed(0)
    layer = EinFFT(4, 2, deviation=0.5).double()
    x = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)


def test_low_precision_and_blocks_that_do_not_divide():
    assert EinFFT(8)(torch.randn(2, 5, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with pytest.raises(UserError, match="divide the channels"):
        EinFFT(10)


def test_autocast_does_not_reach_it():
    torch.manual_seed(0)
    layer, x = EinFFT(8), torch.randn(2, 7, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    torch.testing.assert_close(found, layer(x), rtol=0, atol=0)
