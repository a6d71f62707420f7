import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.medical.models import baselines


@pytest.mark.parametrize("name", ["dynunet", "segresnet", "unetr", "swin_unetr"])
@pytest.mark.parametrize("sizes", [(17, 12, 10), (33, 20)])
def test_any_sizes(describe, name, sizes):
    model = getattr(baselines, name)(describe(*sizes, channels=2)).eval()
    assert model(torch.randn(1, 2, *sizes)).shape == (1, 3, *sizes)


def test_dynunet_answers_at_several_scales_in_training(describe):
    found = baselines.dynunet(describe(16, 16))(torch.randn(2, 1, 16, 16))
    assert [each.shape for each in found] == [(2, 3, 16, 16)] * 2


def test_swin_unetr_takes_multiples_of_twelve_channels(describe):
    with pytest.raises(UserError, match="multiple of 12"):
        baselines.swin_unetr(describe(16, 16), features=10)
