"""Text appears as soon as it is certain, never in halves of characters, never with a part of a stop string."""

from __future__ import annotations

import pytest
from tokenizers_of_words import MAKERS, TEXTS

from polymamba.data.nlp.tokenizer import LibraryTokenizer
from polymamba.domains.nlp.text_loss import byte_counts
from polymamba.domains.nlp.text_stream import TextStream, text_after


class Words:
    """A tokenizer that writes a space before every word but the first, as SentencePiece's do."""

    vocab_size, end = 3, None
    words = ("a", "b", "c")

    def encode(self, text):
        return [self.words.index(each) for each in text.split()]

    def bytes_of(self, ids):
        return " ".join(self.words[each] for each in ids).encode()


def pieces(tokenizer, text, stop=(), before=()):
    line = TextStream(tokenizer, before, stop)
    said = []
    for token in tokenizer.encode(text):
        said.append(line.feed(token))
        if line.stopped:
            break
    return [*said, line.finish()], line


def test_characters_are_whole(byte_tokenizer):
    said, _ = pieces(byte_tokenizer, "aé𝄞b")
    assert said == ["a", "", "é", "", "", "", "𝄞", "b", ""]


def test_half_a_character_at_the_end_is_marked(byte_tokenizer):
    line = TextStream(byte_tokenizer, [])
    assert [line.feed(0xC3), line.finish()] == ["", "\ufffd"]


def test_what_may_become_a_stop_string_waits(byte_tokenizer):
    said, line = pieces(byte_tokenizer, "one\n\ntwo", ["\n\n"])
    assert said == ["o", "n", "e", "", "", ""]
    assert line.stopped
    said, line = pieces(byte_tokenizer, "a\nb\n", ["\n\n"])
    assert said == ["a", "", "\nb", "", "\n"]
    assert not line.stopped


@pytest.mark.parametrize("text", ["xababacy", "abac", "ababababac!"])
def test_overlapping_beginnings_of_a_stop_string(byte_tokenizer, text):
    said, line = pieces(byte_tokenizer, text, ["abac"])
    assert "".join(said) == text[: text.index("abac")]
    assert line.stopped


def test_the_first_of_several_stop_strings(byte_tokenizer):
    said, _ = pieces(byte_tokenizer, "one, two. three", [".", ", t", ""])
    assert "".join(said) == "one"


def test_how_a_token_is_written_depends_on_the_one_before():
    assert pieces(Words(), "a b c")[0] == ["a", " b", " c", ""]
    assert pieces(Words(), "b c", before=[0])[0] == [" b", " c", ""]


@pytest.fixture(params=MAKERS)
def of_words(request):
    return LibraryTokenizer(MAKERS[request.param]().to_str(), request.param)


@pytest.mark.parametrize("text", TEXTS)
def test_streamed_text_is_the_whole_text(of_words, text):
    ids = of_words.encode(text)
    assert of_words.decode(ids) == text
    assert "".join(pieces(of_words, text)[0]) == text
    for cut in range(len(ids)):
        line = TextStream(of_words, ids[:cut])
        told = "".join(map(line.feed, ids[cut:])) + line.finish()
        assert of_words.bytes_of(ids[:cut]) + told.encode() == text.encode() or "\ufffd" in told


def test_single_tokens_keep_their_spaces(of_words):
    ids = of_words.encode("the cat the cat")
    words = [text_after(of_words, ids[:place], token) for place, token in enumerate(ids)]
    assert "".join(words) == "the cat the cat"
    assert any(word.startswith(" ") for word in words)


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_are_those_of_the_text(of_words, text):
    within, first = byte_counts(of_words)
    ids = of_words.encode(text)
    assert int(first[ids[0]] + within[ids[1:]].sum()) == len(text.encode())
