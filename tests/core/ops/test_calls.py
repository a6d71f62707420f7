"""Kernels are told only of tensors that they read rightly, and their records by field name."""

import numpy as np
import pytest
import torch

from polymamba.core.ops.causal_conv1d import cpu_kernels as convolution
from polymamba.core.ops.causal_conv1d import decode_kernel
from polymamba.core.ops.cpu import calls
from polymamba.core.ops.cpu.calls import KernelCall, address, addresses, record, rows, whole
from polymamba.core.ops.linear import cpu_kernels as linear
from polymamba.core.ops.mamba2_decode import cpu_kernels as mamba2
from polymamba.core.ops.mamba_decode import cpu_kernels as mamba
from polymamba.core.ops.selective_scan import decode_kernel as scan

WRONG = {
    "float64": torch.zeros(2, 3, dtype=torch.float64),
    "bfloat16": torch.zeros(2, 3, dtype=torch.bfloat16),
    "another shape": torch.zeros(3, 2),
    "another number of axes": torch.zeros(2, 3, 1),
    "turned": torch.zeros(3, 2).t(),
    "gaps": torch.zeros(2, 6)[:, ::2],
    "no memory": torch.zeros(2, 3, device="meta"),
    "negated": torch.zeros(2, 3, dtype=torch.complex64).conj().imag,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_tensor_that_a_kernel_would_misread_is_named(wrong):
    with pytest.raises(TypeError, match=r"a kernel would misread states: torch\.\w+ \(.*float32 \(2, 3\) on the CPU"):
        address("states", WRONG[wrong], (2, 3))
    assert addresses(states=(WRONG[wrong], (2, 3), torch.float32)) is None
    call = KernelCall(np.dtype([("states", np.int64)]), {"states": (2, 3)})
    with pytest.raises(TypeError, match="misread states"):
        call.point(states=WRONG[wrong])


def test_what_fits_is_told():
    tensor = torch.zeros(2, 3)
    assert address("x", tensor, (2, 3)) == tensor.data_ptr()
    assert address("x", None, (2, 3)) == 0
    if calls.memory.guard is None:
        assert addresses(x=(tensor, (2, 3), torch.float32), y=(None, (), torch.float32)) == {
            "x": tensor.data_ptr(),
            "y": 0,
        }


def test_only_axes_with_a_stride_of_their_own_may_lie_apart():
    tensor = torch.zeros(2, 4, 6)[:, :3, :5]
    call = KernelCall(np.dtype([(name, np.int64) for name in ("x", "x_batch", "x_token")]), {"x": (2, 3, 5)})
    call.walk("x", tensor, "batch", "token")
    assert call.record[0].item() == (tensor.data_ptr(), 96, 24)
    with pytest.raises(TypeError, match="misread x"):
        call.walk("x", tensor, "batch")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.float32])
def test_what_a_kernel_reads_is_made_to_fit(dtype):
    tensor = torch.randn(4, 3, 2).to(dtype).transpose(0, 2)
    for found in (rows(tensor), whole(tensor)):
        assert found.dtype == torch.float32
        assert found.stride(-1) == 1
        torch.testing.assert_close(found, tensor.float(), rtol=0, atol=0)
    assert whole(None) is None


def test_negated_views_are_read_with_their_sign():
    tensor = torch.randn(4, 3, dtype=torch.complex64).conj().imag
    assert tensor.is_neg()
    for found in (rows(tensor), whole(tensor)):
        assert not found.is_neg()
        torch.testing.assert_close(found, tensor + 0, rtol=0, atol=0)


@pytest.mark.parametrize(
    "kernel", [decode_kernel.convolve_rows, linear.multiply, mamba.decode, mamba2.decode, scan.update_state]
)
def test_records_are_written_by_name(kernel):
    names = [name for name in kernel.kind.names if not name.startswith(calls.COUNTERS)]
    values = {name: number for number, name in enumerate(names, 1)}
    written = np.frombuffer(record(kernel, **values), kernel.kind)
    assert written.nbytes == kernel.kind.itemsize
    for name, number in values.items():
        assert written[name].view(np.int64)[0] == number
    for name in set(kernel.kind.names) - set(names):
        assert written[name][0] == 0
    with pytest.raises(TypeError, match=names[0]):
        record(kernel, **dict.fromkeys(names[1:], 0))
    with pytest.raises(TypeError, match="unheard_of"):
        record(kernel, **values, unheard_of=1)


def test_a_record_of_other_numbers_is_no_record_of_words():
    with pytest.raises(AssertionError):
        record(convolution.Kernel(lambda address: None, np.dtype([("x", np.int64), ("half", np.int32)])), x=1, half=1)
