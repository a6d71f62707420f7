"""Streaming from a folder of files; the rows against documents packed in memory."""

import json

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.nlp import Hub
from polymamba.data.nlp.documents import from_texts
from polymamba.data.nlp.hub import StreamRows
from polymamba.data.nlp.packing import PackedRows

TEXTS = [f"document {i} " * (1 + i % 5) for i in range(40)]


class Stream:
    """A list with the interface of the library's streams."""

    def __init__(self, records):
        self.records, self.place, self.epoch = records, 0, None

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        while self.place < len(self.records):
            self.place += 1
            yield self.records[self.place - 1]

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


def stream_rows(texts, length=16):
    return StreamRows(lambda: Stream(texts), lambda text: list(text.encode()), length, 256)


def test_rows_are_those_of_documents_in_memory():
    packed = PackedRows(from_texts(TEXTS), 16, 256)
    batch = packed.take(np.arange(len(packed) - 1))
    rows = stream_rows(["", *TEXTS])
    for row in range(len(packed) - 1):
        inputs, labels, numbers = rows.next()
        assert inputs.tolist() == batch["input_ids"][row].tolist()
        assert labels.tolist() == batch["labels"][row].tolist()
        assert numbers.tolist() == batch["seq_idx"][row].tolist()


def test_rows_go_on_from_a_state_and_begin_again_at_the_end():
    rows, texts = stream_rows(TEXTS[:3]), "".join(TEXTS[:3])
    seen = [rows.next() for _ in range(5)]
    other = stream_rows(TEXTS[:3])
    other.load_state_dict(rows.state_dict())
    for _ in range(20):
        assert np.array_equal(rows.next(), other.next())
    assert rows.passes == other.passes > 1
    labels = np.concatenate([row[1] for row in seen])
    written = bytes(labels[labels < 256].tolist()).decode()
    assert written.startswith(texts[: min(len(texts), len(written))])
    with pytest.raises(UserError, match="no text"):
        stream_rows(["", ""]).next()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for part in range(2):
        lines = [json.dumps({"text": text, "other": 1}) for text in TEXTS[20 * part : 20 * part + 20]]
        (tmp_path / f"part{part}.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def hub(folder, **more):
    options = {"length": 16, "batch_size": 3, "batches": 4, "val_rows": 4, "test_rows": 4, "buffer": 5}
    return Hub(str(folder), **{**options, **more})


def test_a_folder_of_files(folder):
    data = hub(folder, buffer=0)
    told = data.describe()
    assert told.counts == {"train": 12, "val": 4, "test": 4}
    assert told.for_model["vocab_size"] == 257
    assert len(data.train_dataloader()) == 4
    batch = next(iter(data.train_dataloader()))
    assert batch["input_ids"].shape == (3, 16)
    assert (batch["input_ids"].dtype, batch["seq_idx"].dtype) == (torch.int64, torch.int32)
    trained = bytes(batch["labels"][batch["labels"] < 256].tolist()).decode()
    assert trained.startswith(TEXTS[data.skipped][:10])
    held = torch.cat([b["labels"] for loader in (data.val_dataloader(), data.test_dataloader()) for b in loader])
    assert bytes(held[held >= 0][held[held >= 0] < 256].tolist()).decode().startswith("document 0 document 1 ")


@pytest.mark.parametrize("stop", [2, 4, 6])
def test_a_run_goes_on_with_the_same_batches(folder, stop):
    def epochs(loader, count):
        return [batch["input_ids"] for _ in range(count) for batch in loader]

    whole = epochs(hub(folder).train_dataloader(), 3)
    loader = hub(folder).train_dataloader()
    batches = iter(loader)
    for _ in range(min(stop, 4)):
        next(batches)
    if stop > 4:
        batches = iter(loader)
        for _ in range(stop - 4):
            next(batches)
    resumed = hub(folder).train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    rest = epochs(resumed, 2)
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[stop:], strict=False))
    assert len(rest) == 8 - stop % 4


def test_what_does_not_fit(folder):
    with pytest.raises(UserError, match="needs the name"):
        Hub()
    with pytest.raises(UserError, match="byte-pair"):
        hub(folder, tokenizer="bpe")
    with pytest.raises(UserError, match="no such column") as caught:
        hub(folder, column="body").describe()
    assert caught.value.allowed == ["other", "text"]
    with pytest.raises(UserError, match="cannot be read"):
        hub(folder / "gone").describe()
    with pytest.raises(UserError, match="cannot be read"):
        hub(folder, val_split="nowhere").describe()
