"""What autocast does not reach."""

import pytest
import torch

from polymamba.core.mixers import get
from polymamba.core.moe import MixtureOfExperts
from polymamba.core.precision import as_given


def test_products_stay_in_the_precision_of_what_is_multiplied():
    x = torch.randn(3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with as_given(x):
            assert (x @ x).dtype == torch.float32


def test_the_long_convolution_of_s4d_is_not_rounded(monkeypatch):
    torch.manual_seed(0)
    mixer, seen = get("s4d")(6, d_state=5), []
    transform = torch.fft.rfft
    monkeypatch.setattr(torch.fft, "rfft", lambda t, n: (seen.append(t), transform(t, n))[1])
    x = torch.randn(2, 9, 6)
    with torch.no_grad():
        mixer(x)
        with torch.autocast("cpu", torch.bfloat16):
            mixer(x)
    kernels = seen[1::2]  # of tokens and of the kernel, in turn
    assert all(t.dtype == torch.float32 for t in seen)
    assert torch.equal(*kernels)


@pytest.mark.parametrize(
    "made", [lambda: get("s4d")(6, d_state=5), lambda: MixtureOfExperts(6, 5, 4)], ids=["s4d", "experts"]
)
def test_sizes_alone_are_enough(made):
    with torch.device("meta"):
        said = made()(torch.empty(2, 9, 6))
    assert (said[0] if isinstance(said, tuple) else said).shape == (2, 9, 6)
