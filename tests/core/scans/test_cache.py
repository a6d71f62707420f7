"""The cache of orders."""

import pytest
import torch

from polymamba.core.scans.cache import OrderCache


def test_the_longest_unused_tensor_goes_first():
    cache, built = OrderCache(2), []

    def ask(key):
        return cache.get(key, lambda: built.append(key) or torch.tensor([key]))

    one = ask(1)
    ask(2)
    assert ask(1) is one
    ask(3)
    assert built == [1, 2, 3]
    assert ask(1) is one
    ask(2)
    assert built == [1, 2, 3, 2]


def test_a_failed_build_is_not_kept():
    cache = OrderCache(2)
    for _ in range(2):
        try:
            cache.get("key", lambda: 1 / 0)
        except ZeroDivisionError:
            continue
        raise AssertionError("the error must come through")
    assert cache.get("key", lambda: torch.tensor(3)) == 3


@pytest.mark.filterwarnings("ignore:.*jit.trace")
def test_kept_tensors_are_ordinary_ones():
    from torch._subclasses.fake_tensor import FakeTensorMode

    cache = OrderCache(4)
    with torch.inference_mode():
        assert not cache.get(1, lambda: torch.arange(3)).is_inference()
    with FakeTensorMode():
        assert type(cache.get(2, lambda: torch.arange(3))) is torch.Tensor
    seen = torch.func.grad(lambda x: x * cache.get(3, lambda: torch.arange(3).flatten()).sum())(torch.tensor(2.0))
    assert seen == 3
    torch.jit.trace(lambda x: x + cache.get(4, lambda: torch.arange(3).flatten()), torch.ones(3))
    for key in (3, 4):
        kept = cache.get(key, lambda: 1 / 0)
        assert not torch._C._functorch.is_functorch_wrapped_tensor(kept)
        assert kept.tolist() == [0, 1, 2]
