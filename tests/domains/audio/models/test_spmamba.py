import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.audio.models.blocks import SideBySide
from polymamba.domains.audio.models.spmamba import SIZES, SPMamba, build

SMALL = {"depth": 1, "channels": 4, "width": 3, "n_fft": 32, "heads": 2, "attention": 32, "expand": 2}


def spmamba(**options):
    torch.manual_seed(0)
    return SPMamba(**{**SMALL, **options}).double().eval()


def test_its_block_meets_the_record(meets_the_record, golden):
    tokens = golden.seeded(2, 60, 32)
    meets_the_record("audio_spmamba_block", SideBySide(32, "bidirectional", expand=4), lambda m: [m(tokens)])


def test_meets_the_record(meets_the_record, golden):
    mixture = golden.seeded(1, 4000)
    meets_the_record("audio_spmamba", SPMamba(depth=2), lambda m: [m(mixture)])


@pytest.mark.parametrize("samples", [0, 1, 5, 33, 100])
def test_any_length(samples):
    mixture = torch.randn(2, samples, dtype=torch.float64, requires_grad=True)
    said = spmamba()(mixture)
    assert said.shape == (2, 2, samples)
    assert said.isfinite().all()
    if samples > 1:
        said.sum().backward()
        assert mixture.grad.isfinite().all()


def test_louder_in_louder_out():
    model, mixture = spmamba(), torch.randn(1, 100, dtype=torch.float64)
    torch.testing.assert_close(model(7 * mixture), 7 * model(mixture))


def test_silence_stays_finite():
    assert spmamba()(torch.zeros(1, 100, dtype=torch.float64)).isfinite().all()


def test_a_scan_along_time_or_frequency():
    described = {"sources": 2, "samples": 100}
    both, time = (build(described, "raster", "micro", along=along) for along in ("both", "time"))
    assert [len(getattr(time.blocks[0], name).backward_blocks) for name in ("intra_mamba", "inter_mamba")] == [1, 0]
    assert both.blocks[0].intra_linear.in_channels * 2 == time.blocks[0].intra_linear.in_channels
    assert both(torch.randn(1, 100)).shape == (1, 2, 100)


def test_heads_that_do_not_share_the_channels_out():
    with pytest.raises(UserError, match="heads"):
        SPMamba(channels=5, heads=2)


def test_data_that_are_no_mixtures():
    with pytest.raises(UserError, match="no"):
        build({"name": "sounds", "classes": ["a"]}, size=next(iter(SIZES)))
