"""S4D in Mamba's block: against the recurrence written out, by convolution and by scan, and that it does not select."""

import plain_recurrences
import pytest
import torch
from torch.nn import functional as F

from polymamba.core.mixers import get


def made(**options):
    torch.manual_seed(0)
    mixer = get("s4d")(6, d_state=5, **options, dtype=torch.float64)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return mixer


def written_out(mixer, x):
    inner, z = mixer.in_proj(x).transpose(1, 2).chunk(2, 1)
    inner = plain_recurrences.convolution(inner, mixer.conv1d.weight[:, 0], mixer.conv1d.bias)
    step = F.softplus(mixer.dt_bias)[None, :, None].expand_as(inner)
    y, state = plain_recurrences.scan(inner, step, -mixer.A_log.exp(), mixer.B, mixer.C, mixer.D, z)
    return mixer.out_proj(y.transpose(1, 2)), state


@pytest.mark.parametrize("options", [{}, {"bias": True, "conv_bias": False, "d_conv": 2, "expand": 1}])
@pytest.mark.parametrize("length", [1, 2, 37, 64])
@pytest.mark.parametrize("packed", [False, True], ids=["convolution", "scan"])
def test_it_is_the_recurrence(options, length, packed):
    mixer = made(**options)
    x = torch.randn(2, length, 6, dtype=torch.float64, requires_grad=True)
    # a second sequence behind the first sends the first through the scan
    given = torch.cat([x, torch.randn(2, 3, 6, dtype=torch.float64)], 1) if packed else x
    seq_idx = torch.tensor([0] * length + [1] * 3).expand(2, -1) if packed else None
    y, state = mixer(given, seq_idx=seq_idx)
    expected, end = written_out(mixer, x)
    torch.testing.assert_close(y[:, :length], expected)
    if not packed:
        torch.testing.assert_close(state.ssm, end)
    wanted = [x, *mixer.parameters()]
    found = torch.autograd.grad(y[:, :length].square().sum(), wanted)
    torch.testing.assert_close(found, torch.autograd.grad(expected.square().sum(), wanted))


def test_numbers_of_one_sequence_a_row_change_nothing():
    mixer, x = made(), torch.randn(2, 9, 6, dtype=torch.float64)
    same = mixer(x, seq_idx=torch.tensor([[4] * 9, [0] * 9]))[0]
    torch.testing.assert_close(same, mixer(x)[0], rtol=0, atol=0)


def test_it_does_not_select():
    """Between convolution and gate it is linear, unlike the selective scan."""
    mixer = made()
    inner = torch.randn(1, 20, 12, dtype=torch.float64)
    y, state = mixer._convolve(inner, None)
    torch.testing.assert_close(mixer._convolve(3 * inner, None), (3 * y, 3 * state))


@pytest.mark.parametrize("scan", ["raster", "cross"])
def test_floating_point_operations_count_every_path(scan):
    mixer = made(scan=scan, axes=2)
    outer = 2 * 12 * 6 * (24 + 12)
    assert outer < mixer.flops((3, 4)) < outer * (40 if scan == "cross" else 20)
