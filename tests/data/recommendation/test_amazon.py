import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from polymamba.core.errors import UserError
from polymamba.data.recommendation import Beauty, VideoGames
from polymamba.data.recommendation.amazon import parsed

FILES = {
    "Beauty.txt": b"1 7 3 9\n2 3 7\n5 9 9 4 3\n",
    "Beauty_item2attributes.json": json.dumps({"3": [5, 8], "9": [8]}).encode(),
}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Files of the form of Beauty's, packed, with their own checksums."""
    content = tuple((name, hashlib.sha256(content).hexdigest()) for name, content in FILES.items())
    monkeypatch.setattr(Beauty, "source", replace(Beauty.source, content=content))
    for name, content in FILES.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    return tmp_path


def test_events_and_attributes(small):
    data = Beauty(str(small), attributes=True)
    data.read()
    assert data.log.users == ["1", "2", "5"]
    assert data.catalogue.ids == ["3", "4", "7", "9"]
    assert [data.catalogue.ids[each - 1] for each in data.log.items] == ["7", "3", "9", "3", "7", "9", "9", "4", "3"]
    assert {split: data.samples(split) for split in ("train", "val", "test")} == {"train": 2, "val": 2, "test": 2}
    assert data.catalogue.features["attributes"].tolist() == [[0, 0], [1, 2], [0, 0], [0, 0], [2, 0]]
    assert data.describe().for_model["features"] == {"attributes": 2}


def test_a_file_that_has_changed_is_named(small):
    (small / "Beauty.txt.gz").write_bytes(gzip.compress(FILES["Beauty.txt"] + b"6 1 2\n"))
    with pytest.raises(UserError, match=r"Beauty\.txt\.gz does not hold what was published"):
        Beauty(str(small)).read()


def test_lines_that_are_something_else():
    users, items = parsed(Path("v"), b"1 5\n1 6\n4 5\n", True)
    assert users.tolist() == [1, 1, 4]
    assert items.tolist() == [5, 6, 5]
    for content, pairs in ((b"1 5\n1\n", False), (b"1 5\n1 x\n", False), (b"1 5\n1 2 3\n", True)):
        with pytest.raises(UserError, match="line 2"):
            parsed(Path("v"), content, pairs)


def test_a_set_without_attributes_says_so():
    with pytest.raises(UserError, match="comes without attributes"):
        VideoGames(attributes=True)
