import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.audio.models.conmamba import ConMambaEncoder, build

DESCRIBE = {"name": "sounds", "num_classes": 5, "samples": 3000, "rate": 8000, "model_size": "micro"}


def test_its_encoder_meets_the_record(meets_the_record, golden):
    tokens = golden.seeded(2, 40, 48)
    meets_the_record("audio_conmamba", ConMambaEncoder(48, 2, 96, 15), lambda model: [model(tokens)])


@pytest.mark.parametrize("scan", ["raster", "bidirectional", "skip"])
@pytest.mark.parametrize("samples", [0, 1, 3000, 5000])
def test_scans_and_lengths(scan, samples):
    model = build(DESCRIBE, scan, channels=16, depth=1, inner=16).eval()
    said = model(torch.randn(2, samples))
    assert said.shape == (2, 5)
    assert said.isfinite().all()


@pytest.mark.parametrize("length", [2, 7, 20])
def test_along_a_raster_nothing_is_heard_of_the_future(length):
    torch.manual_seed(0)
    causal = ConMambaEncoder(16, 1, 16, 7, scan="raster").double().eval()
    tokens = torch.randn(1, length, 16, dtype=torch.float64)
    torch.testing.assert_close(causal(tokens[:, :-1]), causal(tokens)[:, :-1])
    both = ConMambaEncoder(16, 1, 16, 7).double().eval()
    assert not torch.allclose(both(tokens[:, :-1]), both(tokens)[:, :-1])


def test_an_even_kernel():
    with pytest.raises(UserError, match="odd"):
        ConMambaEncoder(kernel=8)
