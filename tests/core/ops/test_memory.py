"""Kept memory: what is lent comes back, and nobody shares it meanwhile."""

import gc
import sys

import pytest
import torch

from polymamba.core.ops.cpu import memory
from polymamba.core.ops.cpu.memory import Pool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is only kept on Linux")
MIB = 1 << 20


def test_a_freed_block_is_lent_again():
    pool = Pool(limit=8 * MIB)
    first = pool.empty((MIB,))
    address = first.data_ptr()
    first.fill_(1.0)
    del first
    assert pool.kept == 4 * MIB
    second = pool.empty((1024, 1024))
    assert second.data_ptr() == address
    assert second.shape == (1024, 1024)
    assert pool.kept == 0


def test_tensors_alive_at_once_do_not_share():
    pool = Pool(limit=8 * MIB)
    first, second = pool.empty((MIB,)), pool.empty((MIB,))
    first.fill_(1.0)
    second.fill_(2.0)
    assert bool((first == 1).all())
    assert bool((second == 2).all())


@pytest.mark.parametrize("keep", [lambda t: t[5:], lambda t: t.view(-1, 2), lambda t: t.detach(), lambda t: t.numpy()])
def test_a_view_keeps_its_block(keep):
    pool = Pool(limit=8 * MIB)
    tensor = pool.empty((MIB,))
    view = keep(tensor)
    del tensor
    gc.collect()
    assert pool.kept == 0
    del view
    assert pool.kept == 4 * MIB


def test_no_more_than_the_limit_is_kept():
    pool = Pool(limit=6 * MIB)
    tensors = [pool.empty((MIB,)) for _ in range(3)]
    del tensors
    assert pool.kept == 4 * MIB


def test_a_much_larger_block_is_not_wasted_on_a_small_tensor():
    pool = Pool(limit=64 * MIB)
    del [pool.empty((4 * MIB,))][:]
    small = pool.empty((MIB,))
    assert pool.kept == 16 * MIB
    del small
    assert pool.kept == 20 * MIB


def test_autograd_through_kept_memory():
    x = memory.empty(5, MIB).fill_(3.0).requires_grad_()
    assert x.nbytes > memory.LARGE
    (gradient,) = torch.autograd.grad((x * x).sum(), x)
    assert bool((gradient == 6).all())


def test_small_and_empty_tensors_come_from_pytorch():
    before = memory.pool.kept
    assert memory.empty(0).shape == (0,)
    assert memory.empty(3, 4).dtype == torch.float32
    assert memory.pool.kept == before


def test_what_lies_in_a_block_is_a_tensor_of_its_own():
    made = Pool(1 << 20).empty((3, 5))
    assert made._base is None
    y = torch.zeros(3, 5, requires_grad=True) + made.zero_()
    y.mul_(2).sum().backward()
    made.fill_(4)
    assert made.tolist() == [[4.0] * 5] * 3
