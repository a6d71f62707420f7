import dataclasses
import gzip
import hashlib
import io
import os
import zipfile

import pytest

from polymamba.core.errors import UserError
from polymamba.data.nlp import TinyShakespeare, WikiText2, corpora
from polymamba.data.nlp.corpora import articles
from polymamba.data.sources import RemoteFile

ARTICLES = [
    b" \n = First = \n \n Text = with signs = \n \n = = Section = = \n \n more \n \n",
    b" = Second ( film ) = \n \n text \n \n",
]


def test_articles_begin_at_titles():
    assert articles(b"".join(ARTICLES)) == ARTICLES
    assert articles(b"no title at all\n") == [b"no title at all\n"]


@pytest.fixture
def wiki(monkeypatch):
    """Small files in the layout of the originals, and the source's checksums made to fit."""
    contents = {
        "train.txt": b"".join(ARTICLES),
        "valid.txt": b" \n = V = \n \n val text \n",
        "test.txt": b" \n = T = \n \n t \n",
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"wikitext-2/wiki.{name.removesuffix('.txt')}.tokens", content)
    sums = tuple((name, hashlib.sha256(content).hexdigest()) for name, content in contents.items())
    file = RemoteFile(
        corpora.ARCHIVE, ("unused",), hashlib.sha256(packed.getvalue()).hexdigest(), len(packed.getvalue())
    )
    source = dataclasses.replace(corpora.WIKITEXT2, content=sums, files=(file,))
    monkeypatch.setattr(WikiText2, "source", source)
    monkeypatch.setattr(corpora, "WIKITEXT2", source)
    return contents, packed.getvalue()


def texts(documents):
    return [bytes(documents[i]) for i in range(len(documents))]


def test_wikitext_from_files_and_from_the_archive(wiki, tmp_path, monkeypatch):
    contents, packed = wiki
    folder = tmp_path / "files" / "nlp" / "wikitext-2"
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    from_files = WikiText2(root=tmp_path / "files").load()
    assert texts(from_files["train"]) == ARTICLES
    (tmp_path / corpora.ARCHIVE).write_bytes(packed)
    from_archive = WikiText2(root=tmp_path).load()
    assert {split: texts(part) for split, part in from_archive.items()} == {
        split: texts(part) for split, part in from_files.items()
    }
    asked = []
    monkeypatch.setattr(corpora, "fetch", lambda file, folder: asked.append((file.name, folder)))
    WikiText2(root=tmp_path).prepare_data()
    WikiText2(root=tmp_path / "files").prepare_data()
    assert asked == []
    WikiText2(root=tmp_path / "none").prepare_data()
    assert asked == [(corpora.ARCHIVE, tmp_path / "none" / "nlp" / "wikitext-2")]


def test_wikitext_that_is_not_there_or_not_whole(wiki, tmp_path):
    _, packed = wiki
    with pytest.raises(UserError, match="WikiText-2 is not there"):
        WikiText2(root=tmp_path).setup()
    (tmp_path / corpora.ARCHIVE).write_bytes(packed[:-3])
    with pytest.raises(UserError, match=r"wikitext-2-v1\.zip .*wrong checksum"):
        WikiText2(root=tmp_path).verify()


def test_shakespeare_is_cut_in_order(tmp_path, monkeypatch):
    content = bytes(range(65, 85)) * 5
    file = RemoteFile("input.txt", ("unused",), hashlib.sha256(content).hexdigest(), len(content))
    monkeypatch.setattr(TinyShakespeare, "source", dataclasses.replace(TinyShakespeare.source, files=(file,)))
    with pytest.raises(UserError, match=r"input\.txt is not there"):
        TinyShakespeare(root=tmp_path).setup()
    (tmp_path / "input.txt").write_bytes(content)
    data = TinyShakespeare(root=tmp_path, length=10)
    parts = {split: texts(part) for split, part in data.load().items()}
    assert parts == {"train": [content[:85]], "val": [content[85:90]], "test": [content[90:]]}
    assert data.describe().counts["train"] == 9
    (tmp_path / "input.txt").write_bytes(content[::-1])
    with pytest.raises(UserError, match="wrong checksum"):
        data.verify()


@pytest.mark.skipif("POLYMAMBA_DATA" not in os.environ, reason="needs the real files: set POLYMAMBA_DATA")
def test_real_files():
    assert [len(part) for part in WikiText2().load().values()] == [600, 60, 60]
    assert sum(part.sizes.sum() for part in TinyShakespeare().load().values()) == 1_115_394
