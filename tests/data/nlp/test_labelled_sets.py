import dataclasses
import gzip
import hashlib
import io
import json
import os
import tarfile

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.nlp import IMDB, SST2, Trec, labelled_sets
from polymamba.data.sources import RemoteFile

WORDS = ["alpha", "beta", "gamma"]


def serve(monkeypatch, kind, contents):
    """The source's checksums made to fit small files."""
    files = tuple(RemoteFile(name, ("x",), hashlib.sha256(c).hexdigest(), len(c)) for name, c in contents.items())
    sums = tuple((name, hashlib.sha256(content).hexdigest()) for name, content in contents.items())
    monkeypatch.setattr(kind, "source", dataclasses.replace(kind.source, files=files, content=sums))


@pytest.fixture
def trec(monkeypatch):
    lines = [f"{'HUM' if i % 2 else 'LOC'}:{WORDS[i % 3]} Who or wh\u00e9re is {i}\x85 ?" for i in range(60)]
    contents = {
        "train_5500.label": "\n".join(lines).encode("latin-1") + b"\n",
        "TREC_10.label": "\n".join(lines[:10]).encode("latin-1") + b"\n",
    }
    serve(monkeypatch, Trec, contents)
    return contents


def texts(data, split):
    part = data.splits[split]
    return [data.tokenizer.decode(part.texts[i].tolist()) for i in range(len(part))]


def test_trec_coarse_and_fine(trec, tmp_path):
    (tmp_path / "train_5500.label").write_bytes(trec["train_5500.label"])
    folder = tmp_path / "nlp" / "sentence_classification"
    folder.mkdir(parents=True)
    (folder / "TREC_raw_test.txt.gz").write_bytes(gzip.compress(trec["TREC_10.label"]))
    data = Trec(root=tmp_path)
    told = data.describe()
    assert told.for_model.items() >= {"classes": ["HUM", "LOC"], "num_classes": 2, "task": "classification"}.items()
    assert tuple(told.counts.values()) == (54, 6, 10)
    assert texts(data, "test")[0] == "Who or whére is 0\x85 ?"
    assert data.splits["test"].labels.tolist() == [1, 0] * 5
    assert sorted(texts(data, "train") + texts(data, "val")) == sorted(f"Who or whére is {i}\x85 ?" for i in range(60))
    assert Trec(root=tmp_path, fine=True).describe().for_model["num_classes"] == 6


def test_batches_are_padded_on_the_right(trec, tmp_path):
    for name, content in trec.items():
        (tmp_path / name).write_bytes(content)
    data = Trec(root=tmp_path, length=20)
    data.setup()
    batch = data.load_batch("test", 0, np.arange(3))
    assert batch["input_ids"].shape == batch["seq_idx"].shape == (3, 20)
    assert batch["labels"].tolist() == [1, 0, 1]
    wide = Trec(root=tmp_path, length=100)
    wide.setup()
    batch = wide.load_batch("test", 0, np.arange(3))
    assert batch["input_ids"].shape == (3, 32)
    for row, text in enumerate(texts(wide, "test")[:3]):
        size = len(text.encode())
        assert batch["input_ids"][row, :size].tolist() == list(text.encode())
        assert (batch["input_ids"][row, size:] == 256).all()
        assert batch["seq_idx"][row].tolist() == [0] * size + [-1] * (32 - size)
    assert (
        next(iter(data.test_dataloader()))["input_ids"].shape[1]
        < next(iter(wide.test_dataloader()))["input_ids"].shape[1]
    )


def test_an_epoch_goes_on_where_it_stopped(trec, tmp_path):
    for name, content in trec.items():
        (tmp_path / name).write_bytes(content)
    whole = [batch["input_ids"] for batch in Trec(root=tmp_path, loading=Loading(batch_size=9)).train_dataloader()]
    loader = Trec(root=tmp_path, loading=Loading(batch_size=9)).train_dataloader()
    next(iter(loader))
    resumed = Trec(root=tmp_path, loading=Loading(batch_size=9)).train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    rest = [batch["input_ids"] for batch in resumed]
    assert len(whole) == 6
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[1:], strict=True))
    limited = Trec(root=tmp_path, loading=Loading(batch_size=32, limit=4)).describe()
    assert tuple(limited.counts.values()) == (4, 4, 4)


def test_sst2(tmp_path, monkeypatch):
    contents = {
        f"stsa.binary.{split}": "".join(f"{i % 2} film {i} is {split} .\n" for i in range(8)).encode()
        for split in ("train", "dev", "test")
    }
    serve(monkeypatch, SST2, contents)
    with pytest.raises(UserError, match=r"SST-2's stsa\.binary\.train is not there"):
        SST2(root=tmp_path).setup()
    for name, content in contents.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    data = SST2(root=tmp_path, tokenizer="bpe", vocab_size=280)
    assert data.describe().counts["val"] == 8
    assert texts(data, "val")[3] == "film 3 is dev ."
    assert data.splits["val"].labels.tolist() == [0, 1] * 4
    (tmp_path / "stsa.binary.dev.gz").write_bytes(gzip.compress(b"0 other\n"))
    with pytest.raises(UserError, match="wrong checksum"):
        SST2(root=tmp_path).verify()


@pytest.fixture
def reviews():
    return {split: [(i // 10, i % 10, f"{split} review {i}") for i in range(20)] for split in ("train", "test")}


def packed(reviews):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for split, each in reviews.items():
            for label, number, text in reversed(each):
                member = tarfile.TarInfo(f"aclImdb/{split}/{('neg', 'pos')[label]}/{number}_7.txt")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        member = tarfile.TarInfo("aclImdb/train/unsup/0_0.txt")
        archive.addfile(member, io.BytesIO(b""))
    return stream.getvalue()


def test_imdb_from_lines_and_from_the_archive(reviews, tmp_path, monkeypatch):
    lines = {
        f"{split}.jsonl": "".join(json.dumps({"label": label, "text": text}) + "\n" for label, _, text in each).encode()
        for split, each in reviews.items()
    }
    archive = packed(reviews)
    serve(monkeypatch, IMDB, {**lines, labelled_sets.IMDB_ARCHIVE: archive})
    asked = []
    monkeypatch.setattr(labelled_sets, "fetch", lambda file, folder: asked.append(file.name))
    IMDB(root=tmp_path).prepare_data()
    assert asked == [labelled_sets.IMDB_ARCHIVE]
    (tmp_path / "lines" / "imdb").mkdir(parents=True)
    for name, content in lines.items():
        (tmp_path / "lines" / "imdb" / name).write_bytes(content)
    (tmp_path / labelled_sets.IMDB_ARCHIVE).write_bytes(archive)
    from_lines, from_archive = IMDB(root=tmp_path / "lines"), IMDB(root=tmp_path)
    assert from_lines.describe().counts["train"] == from_archive.describe().counts["train"] == 18
    for split in ("train", "val", "test"):
        assert texts(from_lines, split) == texts(from_archive, split)
        assert from_lines.splits[split].labels.tolist() == from_archive.splits[split].labels.tolist()
    assert texts(from_lines, "test") == [f"test review {i}" for i in range(20)]
    assert from_lines.splits["test"].labels.tolist() == [0] * 10 + [1] * 10
    (tmp_path / labelled_sets.IMDB_ARCHIVE).write_bytes(archive[:-20])
    with pytest.raises(UserError, match="wrong checksum"):
        IMDB(root=tmp_path).setup()


def test_settings(tmp_path):
    with pytest.raises(UserError, match="val_fraction"):
        Trec(root=tmp_path, val_fraction=1.0)
    with pytest.raises(UserError, match=r"data\.length"):
        IMDB(root=tmp_path, length=0)
    with pytest.raises(UserError, match="IMDB is not there"):
        IMDB(root=tmp_path).setup()


@pytest.mark.skipif("POLYMAMBA_DATA" not in os.environ, reason="needs the real files: set POLYMAMBA_DATA")
def test_real_files():
    told = Trec().describe()
    assert (told.counts["train"] + told.counts["val"], told.counts["test"]) == (5452, 500)
    assert told.for_model["num_classes"] == 6
    assert Trec(fine=True).describe().for_model["num_classes"] == 50
    told = SST2().describe()
    assert tuple(told.counts.values()) == (6920, 872, 1821)
    told = IMDB().describe()
    assert tuple(told.counts.values()) == (22_500, 2_500, 25_000)
