import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.audio.digits import DigitMixtures, held_out
from polymamba.data.audio.labelled import SpokenDigits
from polymamba.data.loading import Loading

SPEAKERS = ("anna", "bo", "cleo", "dan", "eve")


@pytest.fixture
def root(tmp_path):
    """A small set of the published form: five speakers, three digits, ten takes, each of a level that says who speaks."""
    folder, rows, samples, start = tmp_path / "fsdd", ["name,digit,speaker,take,start,length"], [], 0
    folder.mkdir()
    for number, speaker in enumerate(SPEAKERS):
        for digit in range(3):
            for take in range(10):
                length = 300 + 10 * take
                samples.append(np.full(length, 1000 * (number + 1) + take, np.int16))
                rows.append(f"{digit}_{speaker}_{take}.wav,{digit},{speaker},{take},{start},{length}")
                start += length
    np.save(folder / "samples_int16_8khz.npy", np.concatenate(samples))
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def speakers_in(bank):
    return [{round(float(v) * 32768) // 1000 - 1 for each in speaker for v in each} for speaker in bank]


def test_speakers_and_takes_are_disjoint(root):
    data = DigitMixtures(str(root), test=["dan", "eve"], seconds=0.1, samples=4)
    data.setup()
    assert speakers_in(data.splits["test"]) == [{3}, {4}]
    assert speakers_in(data.splits["train"]) == speakers_in(data.splits["val"]) == [{0}, {1}, {2}]
    takes = {
        split: {round(float(v) * 32768) % 1000 for speaker in data.splits[split] for each in speaker for v in each}
        for split in ("train", "val")
    }
    assert takes == {"train": set(range(5, 10)), "val": set(range(5))}
    mixture, sources = data.load_batch("train", 0, np.arange(3))
    torch.testing.assert_close(mixture, sources.sum(1))


def test_digits_to_be_told_apart(root):
    data = SpokenDigits(str(root), Loading(batch_size=4), val=["dan"], test=["eve"], seconds=0.05)
    assert data.describe().counts == {"train": 90, "val": 30, "test": 30}
    sounds, labels = data.load_batch("test", 0, np.arange(30))
    assert sounds.shape == (30, 400)
    assert labels.tolist() == sorted(list(range(3)) * 10)


def test_digits_validated_by_takes_of_the_speakers_of_training(root):
    data = SpokenDigits(str(root), Loading(batch_size=4), test=["eve"], seconds=0.05)
    assert data.describe().counts == {"train": 60, "val": 60, "test": 30}
    heard = {split: {id(signal) for signal in data.splits[split][0]} for split in ("train", "val", "test")}
    assert len(set.union(*heard.values())) == 150


def test_who_is_held_out():
    assert held_out(SPEAKERS, "train", ["bo"], ["eve"]) == ["anna", "cleo", "dan"]
    for val, test, words in (
        (["zoe"], [], "unknown speaker"),
        (["bo"], ["bo"], "or"),
        ([], SPEAKERS, "no speaker is left"),
    ):
        with pytest.raises(UserError, match=words):
            held_out(SPEAKERS, "train", val, test)


def test_what_is_missing_or_does_not_fit_is_named(root, tmp_path):
    with pytest.raises(UserError, match="samples_int16"):
        SpokenDigits(str(tmp_path / "nowhere")).setup()
    table = root / "fsdd" / "index.csv"
    table.write_text(table.read_text().replace("speaker", "voice", 1))
    with pytest.raises(UserError, match=r"index\.csv has other columns"):
        SpokenDigits(str(root)).setup()
    table.write_text("name,digit,speaker,take,start,length\nx,0,anna,0,999999,5\n")
    with pytest.raises(UserError, match="does not hold"):
        SpokenDigits(str(root)).setup()
