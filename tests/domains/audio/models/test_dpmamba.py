import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.audio.models.dpmamba import DPMamba, added, chunked


def test_meets_the_record(meets_the_record, golden):
    mixture = golden.seeded(1, 2000)
    model = DPMamba(2, 32, 2, 16, 50)
    meets_the_record("audio_dpmamba", model, lambda m: [m(mixture).transpose(1, 2), m.masks(mixture).transpose(0, 1)])


@pytest.mark.parametrize("frames", [1, 3, 7, 8, 9, 16, 50])
def test_chunks_laid_over_one_another_are_twice_what_they_were_cut_from(frames):
    x = torch.randn(2, 3, frames)
    torch.testing.assert_close(added(chunked(x, 8), frames), 2 * x)


def test_skips_add_what_comes_in():
    torch.manual_seed(0)
    plain, skips = (DPMamba(2, 8, 1, 16, 10, skip=skip).double() for skip in (False, True))
    skips.load_state_dict(plain.state_dict())
    x = torch.randn(1, 8, 10, 4, dtype=torch.float64)
    block, other = plain.masknet.dual_mdl[0], skips.masknet.dual_mdl[0]
    with torch.no_grad():
        block.inter_mdl.norm_f.weight.zero_()  # so that nothing is said across
        other.inter_mdl.norm_f.weight.zero_()
        torch.testing.assert_close(other(x), block(x) + x)


def test_an_odd_chunk_is_refused():
    with pytest.raises(UserError, match="even"):
        DPMamba(2, 8, 1, 16, 9)
