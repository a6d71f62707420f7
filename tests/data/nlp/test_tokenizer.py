import json

import numpy as np
import pytest

from polymamba.core.errors import UserError
from polymamba.data.nlp import tokenizer as module
from polymamba.data.nlp.documents import from_texts
from polymamba.data.nlp.tokenizer import ByteTokenizer, load_tokenizer, make_tokenizer, trained_bpe

TEXTS = ["def add(first, second):\n    return first + second\n" * 20, "Grüße, 世界! 🙂\n", "x"]


def test_bytes():
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode("aß\0")
    assert ids == [97, 0xC3, 0x9F, 0]
    assert tokenizer.decode([*ids, tokenizer.end]) == "aß\0"
    assert tokenizer.byte_counts().tolist() == [1] * 256 + [0]
    assert tokenizer.decode([0xC3]) == "\ufffd"


@pytest.fixture
def bpe():
    return trained_bpe(from_texts(TEXTS), 300)


def test_bpe_gives_the_text_back(bpe):
    assert 257 < bpe.vocab_size <= 300
    for text in [*TEXTS, "never seen: \x00\t«ﬀ»\r\n  two  spaces "]:
        ids = bpe.encode(text)
        assert bpe.decode(ids) == text
        assert bpe.byte_counts()[ids].sum() == len(text.encode())
    assert len(bpe.encode(TEXTS[0])) < len(TEXTS[0]) / 2
    assert bpe.bytes_of([bpe.end]) == b""
    assert bpe.byte_counts()[bpe.end] == 0


def test_bpe_is_kept_by_its_content(bpe, tmp_path):
    [kept] = (tmp_path / "cache" / "tokenizers").iterdir()
    before = kept.stat().st_mtime_ns
    again = trained_bpe(from_texts(TEXTS), 300)
    assert (again.digest, kept.stat().st_mtime_ns) == (bpe.digest, before)
    trained_bpe(from_texts([*TEXTS, "more"]), 300)
    trained_bpe(from_texts(TEXTS), 290)
    assert len(list((tmp_path / "cache" / "tokenizers").iterdir())) == 3


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_saved_and_loaded(kind, tmp_path):
    tokenizer = make_tokenizer(kind, 300, from_texts(TEXTS))
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert (loaded.vocab_size, loaded.end, loaded.digest) == (tokenizer.vocab_size, tokenizer.end, tokenizer.digest)
    assert loaded.encode(TEXTS[1]) == tokenizer.encode(TEXTS[1])


def test_added_tokens_are_text_unless_they_are_marks_and_texts_may_begin_with_one(bpe, tmp_path):
    """As in published files: runs of spaces that are tokens of their own, a mark that the file's rule puts in front."""
    import tokenizers

    assert bpe.beginning() == ByteTokenizer().beginning() == []
    inner = tokenizers.Tokenizer.from_str(bpe.content)
    inner.add_tokens(["        ", "é世"])
    inner.add_special_tokens(["<s>"])
    mark = inner.token_to_id("<s>")
    inner.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", mark)])
    inner.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert loaded.beginning() == [mark]
    text = "def é世:\n        return 世"
    ids = loaded.encode(text)
    assert {inner.token_to_id("        "), inner.token_to_id("é世")} <= set(ids)
    assert loaded.decode([mark, *ids, loaded.end]) == text
    assert loaded.byte_counts()[ids].sum() == len(text.encode())


def test_any_tokenizer_file(tmp_path):
    path = tmp_path / "words.json"
    vocabulary = {"<unk>": 0, "</s>": 1, "hello": 2, "world": 3}
    content = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None, "decoder": None,
        "added_tokens": [{"id": 1, "content": "</s>", "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True}],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }  # fmt: skip
    path.write_text(json.dumps(content))
    tokenizer = make_tokenizer(str(path), 0, from_texts(["x"]))
    assert (tokenizer.name, tokenizer.vocab_size, tokenizer.end) == ("words", 4, 1)
    assert tokenizer.encode("hello there world") == [2, 0, 3]
    assert tokenizer.byte_counts().tolist() == [5, 0, 5, 5]


def test_what_is_no_tokenizer(tmp_path):
    documents = from_texts(["x"])
    with pytest.raises(UserError, match="unknown tokenizer"):
        make_tokenizer("wordpiece", 300, documents)
    with pytest.raises(UserError, match=r"data\.vocab_size"):
        make_tokenizer("bpe", 256, documents)
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(UserError, match="broken is no tokenizer"):
        load_tokenizer(tmp_path / "broken.json")


def test_a_large_corpus_is_tokenised_into_a_file(bpe, monkeypatch, tmp_path):
    documents = from_texts(TEXTS)
    small = bpe.tokenise(documents)
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    for _ in range(2):
        large = bpe.tokenise(documents)
        assert isinstance(large.shards[0], np.memmap)
        assert [large[i].tolist() for i in range(len(large))] == [small[i].tolist() for i in range(len(small))]
    assert len(list((tmp_path / "cache" / "tokens").iterdir())) == 1
