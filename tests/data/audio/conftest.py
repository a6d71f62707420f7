import numpy as np
import pytest
import soundfile


@pytest.fixture
def write(tmp_path):
    """Writes a sound file of noise below a temporary folder: write("mix/a.wav", seconds=0.1, rate=8000) -> its path."""

    def make(name, seconds=0.1, rate=8000, channels=1, seed=0, samples=None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if samples is None:
            samples = 0.1 * np.random.default_rng(seed).standard_normal((round(seconds * rate), channels))
        soundfile.write(path, samples, rate, subtype="FLOAT" if path.suffix == ".wav" else None)
        return path

    return make
