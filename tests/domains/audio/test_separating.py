import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.audio import files
from polymamba.domains.audio.models.dpmamba import DPMamba
from polymamba.domains.audio.models.tasnet import MambaTasNet
from polymamba.domains.audio.separating import levelled, overlapped, separate, streamed, whole
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


CAUSAL = {
    "tasnet": lambda: MambaTasNet(2, 8, 2, 16, "raster"),
    "dpmamba": lambda: DPMamba(2, 8, 1, 16, 20, across="raster"),
}


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("milliseconds", [10, 100, None])
@torch.no_grad()
def test_a_causal_model_in_pieces_is_the_whole(name, milliseconds):
    torch.manual_seed(0)
    model, given = CAUSAL[name]().eval(), torch.randn(4000)
    sizes = [8 * milliseconds] * 100 if milliseconds else torch.randint(0, 900, (100,)).tolist()
    ends = np.cumsum(sizes)
    pieces = torch.tensor_split(given, ends[ends < len(given)].tolist())
    said = torch.cat(list(streamed(model, iter(pieces))), -1)
    torch.testing.assert_close(said, model(given[None])[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole(model, given, 800), said, rtol=1e-4, atol=1e-5)


HOUR = """
import sys, torch
import psutil
from polymamba.domains.audio.models.{name} import build
from polymamba.domains.audio.separating import streamed
torch.set_num_threads(1)
describe = {{"sources": 2, "samples": 8000, "rate": 8000, "model_size": "micro"}}
model, process, minute = build(describe, "raster").eval(), psutil.Process(), 60 * 8000
def pieces():
    for second in range(3600):
        yield 0.1 * torch.randn(8000)
most, after_a_minute, said = 0, None, 0
with torch.inference_mode():
    for number, found in enumerate(streamed(model, pieces())):
        said += found.shape[-1]
        most = max(most, process.memory_info().rss)
        if number == 60:
            after_a_minute = most
print(said, (most - after_a_minute) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", CAUSAL)
def test_an_hour_takes_no_more_memory_than_a_minute(name):
    done = subprocess.run([sys.executable, "-c", HOUR.format(name=name)], capture_output=True, text=True, check=True)
    said, more = done.stdout.split()
    assert int(said) == 3600 * 8000
    assert float(more) < 16  # MB


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
