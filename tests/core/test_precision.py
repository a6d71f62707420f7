"""What autocast does not reach."""

import pytest
import torch
from torch import nn

from polymamba.core.mixers import get
from polymamba.core.moe import MixtureOfExperts
from polymamba.core.precision import as_given, pad_before_convolving


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


CONVOLUTIONS = [  # kind, kernel, stride, padding, sizes
    (nn.Conv3d, 3, 1, 1, (2, 2, 2)), (nn.Conv3d, 3, 1, "same", (2, 6, 6)), (nn.Conv3d, 3, 2, 1, (1, 1, 1)),
    (nn.Conv3d, 5, 1, 2, (4, 4, 4)), (nn.Conv3d, (1, 3, 5), 1, (0, 1, 2), (1, 2, 3)),
    (nn.Conv2d, 3, 2, 1, (6, 1)), (nn.Conv1d, 5, 2, 2, (1,)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "kernel", "stride", "padding", "sizes"), CONVOLUTIONS)
def test_maps_smaller_than_the_kernel_have_their_gradients_in_bfloat16(kind, kernel, stride, padding, sizes):
    torch.manual_seed(0)
    exact = kind(24, 32, kernel, stride, padding).bfloat16().double()
    layer = kind(24, 32, kernel, stride, padding).bfloat16()
    layer.load_state_dict(exact.state_dict())
    pad_before_convolving(nn.Sequential(layer))
    x = torch.randn(2, 24, *sizes).bfloat16()
    given = [x.clone().requires_grad_(), x.double().requires_grad_()]
    answers = [each(inputs) for each, inputs in zip((layer, exact), given, strict=True)]
    weight = torch.randn_like(answers[0])
    for answer in answers:
        answer.backward(weight.to(answer.dtype))
    for one, other in zip(
        (answers[0], given[0].grad, *(p.grad for p in layer.parameters())),
        (answers[1], given[1].grad, *(p.grad for p in exact.parameters())), strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(one.double(), other, atol=0.02 * float(other.detach().abs().max()), rtol=0)


def test_padding_by_hand_changes_no_answer():
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect")
    )
    x = torch.randn(1, 3, 5, 6)
    expected = layers(x)
    pad_before_convolving(layers)
    assert [layer.padding_mode for layer in layers] == ["constant", "zeros", "reflect"]
    torch.testing.assert_close(layers(x), expected)
