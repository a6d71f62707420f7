from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.audio import files
from polymamba.domains.audio.models.tasnet import MambaTasNet
from polymamba.domains.audio.separating import levelled, overlapped, separate, whole
from polymamba.domains.trained import Trained


def trained(model, rate=8000):
    describe = {"sources": 2, "rate": rate, "names": ["s1", "s2"]}
    return Trained(model, None, SimpleNamespace(sounds=files), describe, "cpu", Path())


class Bands(torch.nn.Module):
    """Takes slow and quick changes apart, in another order each time it is called."""

    calls = 0

    def forward(self, mixture):
        slow = torch.nn.functional.avg_pool1d(mixture[:, None], 9, 1, 4, count_include_pad=False)[:, 0]
        self.calls += 1
        said = torch.stack([slow, mixture - slow], 1)
        return said.flip(1) if self.calls % 2 else said


def recording(length=4000):
    time = np.arange(length)
    return (np.sin(time * 0.02) + 0.3 * np.sin(time * 2)).astype(np.float32)


def test_pieces_keep_the_order():
    model, given = Bands(), torch.from_numpy(recording())
    once = Bands()(given[None])[0]
    pieces = overlapped(model, given, 1000, 250)
    assert model.calls > 4
    torch.testing.assert_close(pieces, once, atol=0.05, rtol=0)


@pytest.mark.parametrize("length", [1, 2, 999, 1000, 1001, 1250, 1750, 1751])
def test_pieces_make_up_the_length(length):
    assert overlapped(Bands(), torch.randn(length), 1000, 250).shape == (2, length)


@pytest.mark.parametrize("piece", [7, 80, 800])
def test_a_causal_model_in_pieces_is_the_whole(piece):
    torch.manual_seed(0)
    model = MambaTasNet(2, 8, 2, 16, "raster").eval()
    given = torch.randn(2000)
    with torch.no_grad():
        torch.testing.assert_close(whole(model, given, piece), model(given[None])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rate", [8000, 11025, 44100])
@pytest.mark.parametrize("channels", [1, 2])
def test_rate_length_and_channels_come_back(rate, channels):
    given = np.random.default_rng(0).standard_normal((channels, 3001)).astype(np.float32)
    found = separate(trained(Bands()), given, rate, seconds=0.1)
    assert found.shape == (2, channels, 3001)
    assert np.isfinite(found).all()
    assert separate(trained(Bands()), given, rate, channels="mean").shape == (2, 1, 3001)


def test_channels_have_one_order():
    given = np.stack([recording(), 0.5 * recording()])
    found = separate(trained(Bands()), given, 8000)
    np.testing.assert_allclose(found[:, 1], 0.5 * found[:, 0], atol=1e-3)


def test_levels_add_up_to_the_recording():
    parts = torch.randn(2, 500)
    found = levelled(parts * torch.tensor([[3.0], [-0.2]]), parts.sum(0))
    torch.testing.assert_close(found, parts, rtol=1e-4, atol=1e-4)
    assert levelled(torch.zeros(2, 10), torch.randn(10)).isfinite().all()


def test_what_is_no_recording():
    for given in (np.zeros((1, 2, 3)), np.array([0, np.nan])):
        with pytest.raises(UserError):
            separate(trained(Bands()), given, 8000)
