"""Text files of every encoding that people have: decoded right, or refused by name."""

import codecs

import numpy as np
import pytest

from polymamba.core.errors import UserError
from polymamba.data.nlp import TextFile
from polymamba.data.nlp import decoding as module
from polymamba.data.nlp.decoding import text_of

TEXT = "Grüße, 世界! 🙂\nA second line, in plain letters.\n" * 30


def read(path, encoding=None):
    return bytes(text_of(path, encoding)).decode()


@pytest.fixture(params=[1 << 20, 7])
def pieces(request, monkeypatch):
    """Pieces of a size that cuts characters and line ends, too."""
    monkeypatch.setattr(module, "PIECE", request.param)


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, b""])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_utf_8(tmp_path, pieces, mark, line_end):
    path = tmp_path / "a.txt"
    path.write_bytes(mark + TEXT.replace("\n", line_end).encode())
    assert read(path) == TEXT
    assert isinstance(text_of(path), np.memmap) == (not mark and line_end == "\n")


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("bits", [16, 32])
def test_a_mark_says_the_encoding(tmp_path, bits, order):
    path = tmp_path / "a.txt"
    mark = getattr(codecs, f"BOM_UTF{bits}_{order.upper()}")
    path.write_bytes(mark + TEXT.replace("\n", "\r\n").encode(f"utf-{bits}-{order}"))
    assert read(path) == TEXT
    assert read(path, f"utf-{bits}") == read(path, f"UTF_{bits}_{order}") == TEXT


@pytest.mark.parametrize("order", ["le", "be"])
def test_utf_16_without_a_mark(tmp_path, order):
    path = tmp_path / "a.txt"
    plain = "Twenty lines of western letters.\n" * 20
    path.write_bytes(plain.encode(f"utf-16-{order}"))
    assert read(path) == plain


def test_the_encoding_may_be_named(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("Grüße, Café".encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.txt is no text in utf-8") as caught:
        text_of(path)
    assert "data.encoding=latin-1" in caught.value.do
    assert read(path, "latin-1") == "Grüße, Café"
    data = TextFile(str(path), encoding="latin-1", val_fraction=0.3, test_fraction=0.3)
    assert bytes(data.load()["train"][0]).decode() == "Grüß"
    with pytest.raises(UserError, match="no such encoding"):
        text_of(path, "klingon")


@pytest.mark.parametrize(
    "content",
    [
        b"a text with a \0 in it", bytes(range(256)) * 8, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\x1f\x8b\x08\0\0",
        "cut inside a character: ü".encode()[:-1], "漢字かな交じり文。".encode("utf-16-le"),
        "Grüße".encode("utf-32-le"), b"\xff\xfea",
    ],
)  # fmt: skip
def test_what_is_no_text_is_named(tmp_path, pieces, content):
    (tmp_path / "fine.txt").write_text(TEXT)
    (tmp_path / "wrong.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"wrong\.bin is no text in "):
        TextFile(str(tmp_path)).load()


def test_an_empty_file_and_one_of_a_mark_alone(tmp_path):
    for name, content in (("empty", b""), ("mark", codecs.BOM_UTF8), ("wide", codecs.BOM_UTF16_LE)):
        (tmp_path / name).write_bytes(content)
        assert len(text_of(tmp_path / name)) == 0
