import numpy as np
import pytest

from polymamba.core.errors import UserError
from polymamba.data.nlp.documents import divided, from_files, from_texts


def texts(documents):
    return [bytes(documents[i]).decode() for i in range(len(documents))]


def test_texts_come_back_and_empty_ones_do_not():
    documents = from_texts(["one", "", "zwölf", b"three"])
    assert texts(documents) == ["one", "zwölf", "three"]
    assert documents.sizes.tolist() == [3, 6, 5]
    assert texts(documents.take(np.array([2, 0]))) == ["three", "one"]


def test_files_are_mapped_and_separated(tmp_path):
    (tmp_path / "a.txt").write_text("first<|sep|>second<|sep|><|sep|>third")
    (tmp_path / "b.txt").write_text("")
    (tmp_path / "c.txt").write_text("last")
    paths = sorted(tmp_path.glob("*.txt"))
    documents = from_files(paths, "<|sep|>")
    assert texts(documents) == ["first", "second", "third", "last"]
    assert isinstance(documents.shards[0], np.memmap)
    assert texts(from_files(paths[2:])) == ["last"]
    with pytest.raises(UserError, match=r"Cannot read .*gone\.txt"):
        from_files([tmp_path / "gone.txt"])


def test_many_documents_are_dealt_out_whole():
    written = [f"document {i} " * (1 + i % 7) for i in range(300)]
    documents = from_texts(written)
    parts = divided(documents, (0.1, 0.2), seed=0)
    assert sorted(text for part in parts for text in texts(part)) == sorted(written)
    shares = [part.sizes.sum() / documents.sizes.sum() for part in parts]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.02)
    assert [texts(part) for part in parts] == [texts(part) for part in divided(documents, (0.1, 0.2), seed=0)]
    assert texts(parts[1]) != texts(divided(documents, (0.1, 0.2), seed=1)[1])


def test_few_documents_are_cut():
    parts = divided(from_texts(["0123456789", "abcdefghijklmnopqrst"]), (0.1, 0.2), seed=0)
    assert [texts(part) for part in parts] == [["0123456", "abcdefghijklmn"], ["7", "op"], ["89", "qrst"]]


def test_pieces_end_with_lines_and_never_inside_a_character():
    text = "short\nlines\n" + "ö" * 50 + "\nend"
    pieces = [piece for _, piece in from_texts([text]).pieces(size=15)]
    assert "".join(pieces) == text
    assert pieces[0] == "short\nlines\n"
    assert "\ufffd" not in "".join(pieces)


def test_the_checksum_knows_content_and_bounds():
    sums = {from_texts(each).sha256() for each in (["ab", "c"], ["a", "bc"], ["ab", "d"], ["abc"])}
    assert len(sums) == 4
    assert from_texts(["ab", "c"]).sha256() in sums
