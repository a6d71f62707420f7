import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.audio.mixtures import stretch
from polymamba.data.audio.rooms import responses
from polymamba.data.audio.voices import Voices, pitch_of, utterance
from polymamba.data.loading import Loading

FEW = {"train_speakers": 3, "val_speakers": 2, "test_speakers": 2, "utterances": 1, "seconds": 0.25}


@pytest.fixture(scope="module")
def voices():
    data = Voices(Loading(batch_size=2), **FEW, samples=10, val_samples=3, test_samples=3)
    data.setup()
    return data


def test_a_mixture_is_the_sum_of_its_voices(voices):
    mixture, sources = voices.load_batch("train", 0, np.arange(4))
    assert mixture.shape == (4, 2000)
    assert sources.shape == (4, 2, 2000)
    torch.testing.assert_close(mixture, sources.sum(1))
    assert sources.square().mean(2).sqrt().amax() < 0.05 * 10 ** (2.5 / 20) * 1.01


def test_a_batch_is_a_function_of_epoch_and_position(voices):
    one, other = (voices.load_batch("train", 3, np.array(positions))[0] for positions in ([1, 2], [2, 5]))
    assert torch.equal(one[1], other[0])
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one, voices.load_batch("train", 4, np.array([1, 2]))[0])
    assert torch.equal(voices.load_batch("val", 0, np.array([1]))[0], voices.load_batch("val", 7, np.array([1]))[0])


def test_without_dynamic_mixing_every_epoch_is_the_same():
    data = Voices(**FEW, dynamic=False)
    assert torch.equal(data.load_batch("train", 0, np.arange(2))[0], data.load_batch("train", 1, np.arange(2))[0])


def test_the_seed_rules_training_alone():
    one, other = (Voices(Loading(seed=seed), **FEW) for seed in (0, 1))
    assert not torch.equal(one.load_batch("train", 0, np.arange(2))[0], other.load_batch("train", 0, np.arange(2))[0])
    assert torch.equal(one.load_batch("test", 0, np.arange(2))[0], other.load_batch("test", 0, np.arange(2))[0])


def test_no_speaker_is_in_two_parts(voices):
    signals = [each for bank in voices.splits.values() for speaker in bank for each in speaker]
    assert len({each.tobytes() for each in signals}) == len(signals) == 7


def test_a_speaker_has_the_pitch_of_their_own():
    def pitch(signal):
        signal = signal - signal.mean()
        spectrum = np.fft.rfft(signal, 2 * len(signal))
        return 8000 / (20 + np.fft.irfft(np.abs(spectrum) ** 2)[20:100].argmax())

    speakers = {number: np.median([pitch(utterance(number, n, 0.6, 8000)) for n in range(3)]) for number in range(8)}
    assert max(speakers.values()) > 1.5 * min(speakers.values())


def test_what_it_says_of_itself(voices):
    described = voices.describe()
    assert described.for_model["sources"] == 2
    assert described.for_model["samples"] == 2000
    assert "10 train, 3 val, 3 test; 2 voices, 0.25 s at 8,000 Hz" in described.line


def test_more_voices_than_speakers():
    with pytest.raises(UserError, match="more speakers than there are"):
        Voices(**FEW, speakers=3).setup()


def test_too_few_samples_a_second():
    with pytest.raises(UserError, match=r"data\.rate"):
        Voices(rate=1000)


@pytest.mark.parametrize(("length", "place", "expected"), [(2, 0, [1, 2]), (2, 0.99, [3, 4]), (4, 0.5, [1, 2, 3, 4])])
def test_a_stretch_of_a_signal(length, place, expected):
    assert stretch(np.array([1, 2, 3, 4]), length, place).tolist() == expected


@pytest.mark.parametrize(("place", "expected"), [(0, [1, 0, 0]), (0.5, [0, 1, 0]), (0.99, [0, 0, 1])])
def test_a_signal_shorter_than_the_stretch(place, expected):
    assert stretch(np.array([1]), 3, place).tolist() == expected


def test_pitches_of_a_mixture_are_apart():
    data = Voices(**{**FEW, "train_speakers": 12}, speakers=2, apart=0.6)
    pitches = [pitch_of(data.key("train", speaker)) for speaker in range(12)]
    for one in range(12):
        suited = [other for other in range(12) if data.suits("train", [one], other)]
        assert all(abs(np.log2(pitches[one] / pitches[other])) >= 0.6 for other in suited)
        assert 0 < len(suited) < 12


def test_voices_in_rooms():
    pytest.importorskip("pyroomacoustics")
    dry, wet = (Voices(**FEW, rooms=rooms, speed=0.0, samples=2) for rooms in (0, 3))
    for data in (dry, wet):
        data.setup()
    (mixture, sources), (_, without) = (data.load_batch("train", 0, np.arange(2)) for data in (wet, dry))
    torch.testing.assert_close(mixture, sources.sum(1))
    assert not torch.allclose(sources, without)
    assert torch.equal(mixture, wet.load_batch("train", 0, np.arange(2))[0])
    one, other = responses(5, 2, 8000)
    assert len(one) > 100
    np.testing.assert_allclose([np.sum(one**2), np.sum(other**2)], 1, rtol=1e-5)


def test_rooms_that_cannot_be_simulated(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pyroomacoustics"):
        Voices(**FEW, rooms=1)
