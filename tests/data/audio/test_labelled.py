import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.audio.labelled import AudioFolder, Esc10
from polymamba.data.loading import Loading

SHORT = {"loading": Loading(batch_size=2), "seconds": 0.05}


def test_a_folder_a_class(write, tmp_path):
    for kind in ("dog", "rain"):
        for number in range(10):
            write(f"{kind}/{number}.flac", 0.08, 44100, 2)
    data = AudioFolder(str(tmp_path), **SHORT)
    described = data.describe()
    assert described.counts == {"train": 14, "val": 2, "test": 4}
    assert described.for_model["classes"] == ["dog", "rain"]
    sounds, labels = data.load_batch("train", 0, np.arange(3))
    assert sounds.shape == (3, 800)
    assert labels.dtype == torch.int64
    assert not torch.equal(sounds, data.load_batch("train", 1, np.arange(3))[0])
    assert torch.equal(data.load_batch("test", 0, np.arange(2))[0], data.load_batch("test", 5, np.arange(2))[0])


def test_training_sounds_are_played_faster_and_slower(tmp_path):
    import soundfile

    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    for kind in ("dog", "rain"):
        for number in range(10):
            (tmp_path / kind).mkdir(exist_ok=True)
            soundfile.write(tmp_path / kind / f"{number}.wav", tone, 16000)
    data = AudioFolder(str(tmp_path), loading=Loading(batch_size=2), seconds=0.5, speed=0.2)
    data.setup()

    def pitches(split, count):
        return np.abs(np.fft.rfft(data.load_batch(split, 0, np.arange(count))[0].numpy())).argmax(1) * 2

    heard = pitches("train", 14)
    assert 800 <= heard.min() < 900
    assert 1100 < heard.max() <= 1200
    assert (pitches("test", 4) == 1000).all()


def test_folders_of_splits(write, tmp_path):
    for split, count in (("train", 10), ("test", 2)):
        for kind in ("dog", "rain"):
            for number in range(count):
                write(f"{split}/{kind}/{number}.wav")
    assert AudioFolder(str(tmp_path), **SHORT).describe().counts == {"train": 18, "val": 2, "test": 4}
    write("test/cat/0.wav")
    with pytest.raises(UserError, match="a folder for each class"):
        AudioFolder(str(tmp_path), **SHORT).setup()


def several(write, tmp_path, *rows, header="file,labels,split"):
    for number in range(8):
        write(f"all/{number}.wav")
    (tmp_path / "labels.csv").write_text("\n".join([header, *rows]))
    return AudioFolder(str(tmp_path), **SHORT)


def test_sounds_of_several_names(write, tmp_path):
    rows = [
        f"all/{n}.wav,{'dog; rain' if n % 2 else 'cat'},{('train', 'val', 'test', 'train')[n % 4]}" for n in range(8)
    ]
    data = several(write, tmp_path, *rows, "all/0.wav,,train")
    assert data.describe().counts == {"train": 5, "val": 2, "test": 2}
    assert data.describe().for_model["several"]
    assert data.describe().for_model["classes"] == ["cat", "dog", "rain"]
    labels = data.load_batch("train", 0, np.arange(5))[1]
    assert labels.dtype == torch.float32
    assert labels.tolist() == [[1, 0, 0], [0, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 0]]
    unsplit = several(write, tmp_path, *(f"all/{n}.wav,{'ab'[n % 2]}" for n in range(8)), header="file,labels")
    assert unsplit.describe().counts == {"train": 5, "val": 1, "test": 2}


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        ("name,labels", "x,y", "other columns"), ("file,labels", "all/99.wav,a", r"line 2: .*99\.wav is not there"),
        ("file,labels,split", "all/0.wav,a,dev", "line 2: unknown split"),
        ("file,labels,split", "all/0.wav,a,val", "nothing to train"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_named(write, tmp_path, header, row, words):
    with pytest.raises(UserError, match=words):
        several(write, tmp_path, row, header=header).setup()


def test_esc10s_folds(write, tmp_path):
    rows = ["file,fold,class_index,class"]
    for fold in (1, 2):
        for label, kind in enumerate(("Dog bark", "Rain")):
            for number in range(4):
                name = f"{fold}-{label}-{number}.ogg"
                write(f"esc10_folds12/ogg/{name}", 0.2)
                rows.append(f"{name},{fold},{label},{kind}")
    (tmp_path / "esc10_folds12" / "index.csv").write_text("\n".join(rows))
    data = Esc10(str(tmp_path), **SHORT)
    assert data.describe().counts == {"train": 8, "val": 4, "test": 4}
    assert {path.name[0] for path in data.splits["train"][0]} == {"1"}
    data.verify()


def test_what_does_not_fit_is_named(write, tmp_path):
    with pytest.raises(UserError, match="which folder"):
        AudioFolder()
    with pytest.raises(UserError, match="no such folder"):
        AudioFolder(str(tmp_path / "none")).setup()
    write("only/one.wav")
    with pytest.raises(UserError, match="a folder for each class"):
        AudioFolder(str(tmp_path)).setup()
    with pytest.raises(UserError, match="esc10_folds12"):
        Esc10(str(tmp_path)).setup()
