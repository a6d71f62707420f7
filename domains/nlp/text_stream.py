"""From tokens, one at a time, to text that may be shown: whole characters, and nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Protocol

# Tokens before a new one that decide how it is written (a word's beginning or its middle).
CONTEXT = 4


class Tokenizer(Protocol):
    """What generation asks of a tokenizer. `end`: number of the token that ends a document, or None."""

    vocab_size: int
    end: int | None

    def encode(self, text: str) -> list[int]:
        """Token numbers of a text."""

    def bytes_of(self, ids: Sequence[int]) -> bytes:
        """UTF-8 bytes of tokens."""


class TextStream:
    """The text of one row, as its tokens arrive.

    Args:
        tokenizer: knows the bytes of tokens.
        before: tokens that the text goes on from.
        stop: strings that end the text; they are not part of it.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int], stop: Sequence[str] = ()):
        self.tokenizer, self.context, self.stop = tokenizer, list(before)[-CONTEXT:], [each for each in stop if each]
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.held, self.stopped = "", False

    def feed(self, token: int) -> str:
        """The text that is certain now: what could become a stop string, or half a character, is held back."""
        known = self.tokenizer.bytes_of(self.context)
        self.context = [*self.context, token]
        fresh = self.tokenizer.bytes_of(self.context)[len(known) :]
        self.context = self.context[-CONTEXT:]
        self.held += self.decoder.decode(fresh)
        return self._release()

    def finish(self) -> str:
        """What was held back, at the end of the text; nothing where a stop string ended it."""
        if self.stopped:
            return ""
        self.held += self.decoder.decode(b"", final=True)
        text, self.held = self.held, ""
        return text

    def _release(self) -> str:
        found = [place for place in (self.held.find(each) for each in self.stop) if place >= 0]
        if found:
            text, self.held, self.stopped = self.held[: min(found)], "", True
            return text
        keep = max((_overlap(self.held, each) for each in self.stop), default=0)
        cut = len(self.held) - keep
        text, self.held = self.held[:cut], self.held[cut:]
        return text


def text_after(tokenizer: Tokenizer, before: Sequence[int], token: int) -> str:
    """What a token adds to the text of those before it; half a character is U+FFFD."""
    line = TextStream(tokenizer, before)
    return line.feed(token) + line.finish()


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that a stop string begins with."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-size:])), 0)
