"""Models as TorchScript: the functions written out are the operators' definitions, and a saved model says what the model says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polymamba.core.errors import UserError
from polymamba.core.mixers.mamba import Mamba
from polymamba.core.mixers.mamba2 import Mamba2
from polymamba.core.ops.causal_conv1d import causal_conv1d
from polymamba.core.ops.selective_scan import selective_scan
from polymamba.core.standalone import convolution_along, scan_in_chunks, standalone


def seeded(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def orders():
    """Raster; two whole paths; two paths of other lengths, which visit some of the tokens."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.stack([torch.randperm(23, generator=generator) for _ in range(2)])
    short = whole[:, :17].clone()
    short[1, 9:] = -1
    return {"raster": None, "whole": whole, "short": short}


@pytest.mark.parametrize("order", orders())
@pytest.mark.parametrize("merge", ["sum", "mean", "none"])
@pytest.mark.parametrize("chunk", [1, 8, 64])
def test_the_scan_written_out(order, merge, chunk):
    order = orders()[order]
    paths = 1 if order is None else 2
    given = {"x": seeded(2, 1, 23, 8), "delta": seeded(2, paths, 23, 8), "A": -seeded(paths, 8, 4).exp()}
    given |= {
        "B": seeded(2, paths, 23, 2, 4),
        "C": seeded(2, 1, 23, 2, 4),
        "D": seeded(paths, 8),
        "z": seeded(2, 23, 8),
    }
    given |= {"delta_bias": seeded(paths, 8), "delta_softplus": True, "merge": merge}
    expected = selective_scan(**given, order=order, backend="reference")
    found = scan_in_chunks(**given, order=None if order is None else order[None], chunk=chunk)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", orders())
def test_the_convolution_written_out(order):
    order = orders()[order]
    paths = 1 if order is None else 2
    given = {"x": seeded(2, 1, 23, 6), "weight": seeded(paths, 6, 4), "bias": seeded(paths, 6), "activation": "silu"}
    expected = causal_conv1d(**given, order=order, backend="reference")
    found = convolution_along(**given, order=None if order is None else order[None])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


class Layer(nn.Module):
    def __init__(self, mixer, grid=(4, 5)):
        super().__init__()
        self.mixer, self.grid = mixer, grid

    def forward(self, x):
        return self.mixer(x, self.grid)[0]


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")
def test_a_saved_model_says_what_the_model_says(tmp_path):
    torch.manual_seed(0)
    model, x = Layer(Mamba(16, scan="cross", axes=2)).eval(), torch.randn(2, 20, 16)
    standalone(model, x).save(tmp_path / "model.ts")
    loaded = torch.jit.load(tmp_path / "model.ts")
    assert "polymamba::" not in str(loaded.inlined_graph)  # none of this package's operators
    with torch.no_grad():
        torch.testing.assert_close(loaded(3 * x), model(3 * x), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_written_out_is_named():
    with pytest.raises(UserError, match="state_space_duality"):
        standalone(Layer(Mamba2(16, headdim=8, d_state=8), None).eval(), torch.randn(1, 20, 16))
