import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.timeseries.models.patches import FlattenHead, check_patches, patch_count, patched


@pytest.mark.parametrize(("length", "patch_len", "stride"), [(10, 3, 2), (11, 4, 4), (5, 5, 1), (7, 1, 1), (9, 2, 5)])
def test_patches(length, patch_len, stride):
    x = torch.arange(length * 2.0).view(1, length, 2)
    cut = patched(x, patch_len, stride)
    assert cut.shape == (1, 2, patch_count(length, patch_len, stride), patch_len)
    for number in range(cut.shape[2]):
        assert torch.equal(cut[0, :, number], x[0, number * stride : number * stride + patch_len].T)


def test_ends_are_repeated():
    x = torch.arange(4.0).view(1, 4, 1)
    assert patched(x, 7, 1, before=2, behind=1).flatten().tolist() == [0, 0, 0, 1, 2, 3, 3]
    assert patched(x, 3, 3, before=2).flatten(1).tolist() == [[0, 0, 0, 1, 2, 3]]


def test_a_patch_longer_than_the_look_back_is_refused():
    with pytest.raises(UserError, match="fit into the look-back"):
        check_patches(4, 5)
    check_patches(5, 5)


def test_heads():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5)
    shared, own = FlattenHead(20, 6), FlattenHead(20, 6, variables=3)
    torch.testing.assert_close(shared(x), x.reshape(2, 3, 20) @ shared.linear.weight.T + shared.linear.bias)
    for variable in range(3):
        torch.testing.assert_close(own(x)[:, variable], own.linears[variable](x[:, variable].flatten(1)))
