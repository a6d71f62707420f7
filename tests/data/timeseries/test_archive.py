"""Reading .ts files."""

import numpy as np
import pytest

from polymamba.core.errors import UserError
from polymamba.data.timeseries import Archive
from polymamba.data.timeseries.archive import read_ts, stretched

HEAD = "# a set\n@problemName Toy\n@classLabel true low high\n@data\n"
TRAIN = "".join(f"{n},{n + 1},{n + 2}:5,6,7:{'low' if n % 2 else 'high'}\n" for n in range(10))
TEST = "1,2:3,4:low\n1,2,3,4:3,4,5,6:high\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Toy_TRAIN.ts").write_text(HEAD + TRAIN)
    (tmp_path / "Toy_TEST.ts").write_text(HEAD + TEST)
    return tmp_path


def test_two_variables_and_lengths_that_differ(folder):
    data = Archive(root=str(folder), set="Toy")
    described = data.describe()
    assert described.counts == {"train": 8, "val": 2, "test": 2}
    assert described.for_model["classes"] == ["low", "high"]
    values, labels = data.load_batch("test", 0, np.arange(2))
    assert values.shape == (2, 3, 2)
    assert labels.tolist() == [0, 1]
    known, known_labels = data.known_series()
    assert known.shape == (10, 3, 2)
    assert known_labels.sum() == 5
    np.testing.assert_allclose(known.mean((0, 1)), 0, atol=1e-6)


def test_stretching_keeps_the_ends():
    line = np.array([[0.0], [2.0], [4.0]])
    np.testing.assert_allclose(stretched(line, 5), [[0], [1], [2], [3], [4]])
    np.testing.assert_allclose(stretched(line, 2), [[0], [4]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "1,2:3,4:low\n1,2:3,4:middle\n", "line 6"),
        (HEAD + "1,2:3,x:low\n", "line 5"),
        (HEAD + "1,2:3,4,5:low\n", "line 5"),
        (HEAD + "1,nan:3,4:low\n", "line 5"),
        (HEAD + "1,2:3,4:low\n1,2:low\n", "line 6"),
        ("@data\n1,2:low\n", "names no classes"),
        (HEAD, "holds no series"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, said):
    (tmp_path / "a.ts").write_text(text)
    with pytest.raises(UserError, match=said):
        read_ts(tmp_path / "a.ts")


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"Toy_TRAIN\.ts"):
        Archive(root=str(tmp_path), set="Toy").setup()
