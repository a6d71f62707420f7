import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.audio.models.semamba import SEMamba, build
from polymamba.domains.audio.models.spectra import compressed, spectrum, uncompressed

SMALL = {"channels": 4, "depth": 1, "n_fft": 32, "d_state": 4, "expand": 2}


def semamba(**options):
    torch.manual_seed(0)
    return SEMamba(**{**SMALL, **options}).double().eval()


def test_meets_the_record(meets_the_record, golden):
    magnitude, phase = golden.seeded(1, 51, 20).abs(), golden.seeded(1, 51, 20, seed=77)

    def answers(model):
        magnitudes, phases = model.spectra(magnitude, phase)
        parts = phases.cos(), phases.sin()
        return [magnitudes, torch.stack([magnitudes * part for part in parts], -1), *parts]

    meets_the_record("audio_semamba", SEMamba(16, 2, 100), answers)


@pytest.mark.parametrize("samples", [0, 1, 5, 33, 100])
def test_any_length(samples):
    mixture = torch.randn(2, samples, dtype=torch.float64, requires_grad=True)
    said = semamba()(mixture)
    assert said.shape == (2, 1, samples)
    assert said.isfinite().all()
    if samples > 1:
        said.sum().backward()
        assert mixture.grad.isfinite().all()


def test_louder_in_louder_out():
    model, mixture = semamba(), torch.randn(1, 100, dtype=torch.float64)
    torch.testing.assert_close(model(7 * mixture), 7 * model(mixture))


def test_silence_stays_silent():
    said = semamba()(torch.zeros(1, 100, dtype=torch.float64))
    assert said.abs().max() < 1e-3


def test_what_is_compressed_comes_back():
    heard = spectrum(torch.randn(2, 400, dtype=torch.float64), 64, 16)
    torch.testing.assert_close(uncompressed(*compressed(heard)), heard, rtol=1e-4, atol=1e-4)


def test_a_scan_along_time_or_frequency():
    described = {"sources": 1, "samples": 100}
    both, time = (build(described, "raster", "micro", along=along) for along in ("both", "time"))
    assert time.TSMamba[0].tlinear.in_channels * 2 == time.TSMamba[0].flinear.in_channels
    assert both(torch.randn(1, 300)).shape == (1, 1, 300)


def test_what_it_cannot_be_made_for():
    with pytest.raises(UserError, match="n_fft"):
        SEMamba(n_fft=30)
    with pytest.raises(UserError, match="one voice"):
        build({"name": "voices", "sources": 2}, size="micro")
