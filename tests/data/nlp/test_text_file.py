import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.nlp import TextFile
from polymamba.data.nlp.text_file import matched


@pytest.fixture
def folder(tmp_path):
    for i in range(30):
        path = tmp_path / "texts" / ("deep" if i % 2 else "") / f"{i:02}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"file {i} " * (5 + i))
    (tmp_path / "texts" / ".hidden").write_text("not this")
    (tmp_path / "one.md").write_text("abcdefghij" * 100)
    return tmp_path


def size(part):
    return int(part.sizes.sum())


def test_what_patterns_match(folder):
    assert len(matched(str(folder / "texts"))) == 30
    assert len(matched(str(folder / "texts" / "*.txt"))) == 15
    assert len(matched([str(folder / "**" / "*.txt"), str(folder / "texts"), str(folder / "one.md")])) == 31
    with pytest.raises(UserError, match="no file matches") as caught:
        matched(str(folder / "one.mdd"))
    assert caught.value.do == f"data.files={folder / 'one.md'}"


def test_hidden_files_and_folders_are_not_read(folder):
    for name in (".git/objects", ".ipynb_checkpoints", "__MACOSX", "deep/.venv"):
        (folder / "texts" / name).mkdir(parents=True)
        (folder / "texts" / name / "copy.txt").write_bytes(b"\0")
    (folder / "texts" / "Thumbs.db").write_bytes(b"\0")
    (folder / "texts" / "round").symlink_to(folder / "texts")
    assert len(matched(str(folder / "texts"))) == 30
    assert len(matched(str(folder / "texts" / "**" / "*"))) >= 30


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 19, 20, 21, 40])
@pytest.mark.parametrize("fractions", [(0.05, 0.05), (0.3, 0.1), (0.45, 0.45)])
def test_every_part_of_equal_or_uneven_files_has_text(tmp_path, count, fractions):
    kinds = {
        "equal": lambda i: "the same in each\n" * 20,
        "alike": lambda i: f"{i:04}" * 50,
        "novel": lambda i: "a long novel " * 5000 if i == 7 % count else f"note {i}",
        "pairs": lambda i: f"{i // 2:04}" * 50,
    }
    for kind, text in kinds.items():
        (tmp_path / kind).mkdir()
        for i in range(count):
            (tmp_path / kind / f"{i:02}.txt").write_text(text(i))
        parts = TextFile(str(tmp_path / kind), val_fraction=fractions[0], test_fraction=fractions[1]).load()
        total = sum(map(size, parts.values()))
        assert total == sum(len(text(i)) for i in range(count))
        assert all(size(part) > 0 for part in parts.values()), kind
        for split, share in zip(("val", "test"), fractions, strict=True):
            assert size(parts[split]) / total == pytest.approx(
                share, abs=2 * max(0.05, 1 / count) * (kind != "novel") + 0.01
            )


def test_copies_stay_in_one_part(tmp_path, caplog):
    caplog.set_level("INFO")
    for i in range(200):
        (tmp_path / f"{i:03}.txt").write_text(f"text {i % 100:02}, which is here twice")
    parts = TextFile(str(tmp_path), val_fraction=0.2, test_fraction=0.2).load()
    found = [{bytes(part[i]) for i in range(len(part))} for part in parts.values()]
    assert sum(map(len, found)) == len(set.union(*found)) == 100
    assert [len(part) for part in parts.values()] == [2 * len(texts) for texts in found]
    assert "100 of 200 documents are copies" in caplog.text


def test_stretches_do_not_cut_characters(tmp_path):
    (tmp_path / "a.txt").write_text("世界" * 17)
    parts = TextFile(str(tmp_path / "a.txt"), val_fraction=0.13, test_fraction=0.11).load()
    assert "".join(bytes(parts[split][0]).decode() for split in ("train", "val", "test")) == "世界" * 17


def test_too_little_text_to_divide(tmp_path):
    (tmp_path / "a.txt").write_text("ab")
    with pytest.raises(UserError, match="too little text") as caught:
        TextFile(str(tmp_path / "a.txt")).setup()
    assert "data.test_files=FILE" in caught.value.do


def test_many_files_are_dealt_out(folder):
    parts = TextFile(str(folder / "texts"), val_fraction=0.1, test_fraction=0.2).load()
    assert sum(map(len, parts.values())) == 30
    assert size(parts["val"]) / sum(map(size, parts.values())) == pytest.approx(0.1, abs=0.06)
    assert all(isinstance(shard, np.memmap) for shard in parts["train"].shards)


def test_one_file_is_cut(folder):
    parts = TextFile(str(folder / "one.md"), val_fraction=0.1, test_fraction=0.2).load()
    assert {split: size(part) for split, part in parts.items()} == {"train": 700, "val": 100, "test": 200}


def test_files_of_their_own(folder):
    one, texts = str(folder / "one.md"), str(folder / "texts")
    parts = TextFile(texts, val_files=one, test_files=one).load()
    assert (len(parts["train"]), size(parts["val"]), size(parts["test"])) == (30, 1000, 1000)
    parts = TextFile(one, test_files=texts, val_fraction=0.1).load()
    assert (size(parts["train"]), size(parts["val"]), len(parts["test"])) == (900, 100, 30)


def test_separated_documents_through_the_tokenizer(folder):
    path = folder / "stories.txt"
    path.write_text("<|endoftext|>".join(f"Once there were {i} little mice." for i in range(40)))
    data = TextFile(
        str(path), separator="<|endoftext|>", tokenizer="bpe", vocab_size=280, length=32, loading=Loading(batch_size=2)
    )
    told = data.describe()
    assert told.source == str(path)
    text = "".join(
        data.tokenizer.decode(batch["labels"][batch["labels"] >= 0].tolist()) for batch in data.test_dataloader()
    )
    assert text.count("Once there were") == len(data.load()["test"])
    assert "endoftext" not in text


def test_settings(folder):
    one = str(folder / "one.md")
    with pytest.raises(UserError, match="needs files"):
        TextFile()
    with pytest.raises(UserError, match="separator is empty"):
        TextFile(one, separator="")
    with pytest.raises(UserError, match="val_fraction"):
        TextFile(one, val_fraction=0.7)
    (folder / "empty.txt").write_text("")
    with pytest.raises(UserError, match="files are empty"):
        TextFile(str(folder / "empty.txt")).setup()


def test_test_files_alone_are_tested(folder, tmp_path):
    run = TextFile(str(folder / "texts"), tokenizer="bpe", vocab_size=280, length=32)
    run.keep(tmp_path / "kept")
    data = TextFile(test_files=str(folder / "one.md"), tokenizer="bpe", length=32)
    with pytest.raises(UserError, match="no training text"):
        data.setup()
    data.restore(tmp_path / "kept")
    told = data.describe()
    assert told.counts.keys() == {"test"}
    assert told.tested == f"all of data.test_files={folder / 'one.md'}"
    assert told.for_model["vocab_size"] == run.describe().for_model["vocab_size"]
    rows = torch.cat([batch["labels"] for batch in data.test_dataloader()])
    assert data.tokenizer.decode(rows[rows >= 0].tolist()) == "abcdefghij" * 100
    with pytest.raises(UserError, match="files to train on"):
        data.train_dataloader()


def test_other_data_are_read_as_the_runs_own():
    settings = {"length": 64, "tokenizer": "bpe", "vocab_size": None, "files": "book.txt", "loading": {"batch_size": 2}}
    assert TextFile.reading(settings) == {"length": 64, "tokenizer": "bpe", "loading": {"batch_size": 2}}
