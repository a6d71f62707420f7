"""From a text file to UTF-8: what is no text is refused by name."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...core.errors import UserError

PIECE = 1 << 20
# the longer marks first: UTF-32's begins as UTF-16's does
MARKS = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip


def text_of(path: Path, encoding: str | None = None) -> np.ndarray:
    """A file's text as UTF-8 bytes with line feeds: uint8 (bytes,), memory-mapped where the file is that.

    Args:
        path: the file.
        encoding: one of Python's; None: UTF-8, or UTF-16 or UTF-32 where a mark at the beginning or NULs in every other
            byte say so. Such a mark is no part of the text, and line ends of other systems become line feeds.

    Raises:
        UserError: the file cannot be read, is of another encoding, or holds NULs.
    """
    try:
        size = path.stat().st_size
        content = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not size:
        return content
    mark, found = _encoding(bytes(content[:PIECE]))
    try:
        encoding = codecs.lookup(encoding or found).name
    except LookupError as error:
        raise UserError(
            "there is no such encoding", given=f"data.encoding={encoding}", allowed="utf-8, utf-16, latin-1, cp1252, …"
        ) from error
    mark = mark if found == encoding else b""
    mapped = encoding == "utf-8" and not mark and not _has_carriage_returns(content)
    parts = []
    for text in _pieces(path, content[len(mark) :], encoding):
        if not mapped:
            parts.append(text)
    if mapped:
        return content
    return np.frombuffer("".join(parts).replace("\r\n", "\n").encode(), np.uint8)


def _encoding(start: bytes) -> tuple[bytes, str]:
    """The mark that a text begins with, and what it is encoded in."""
    for mark, encoding in MARKS.items():
        if start.startswith(mark):
            return mark, encoding
    # a western text in UTF-16 has a NUL beside almost every letter
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if max(even, odd) > 0.3 * len(start) / 2 and min(even, odd) == 0:
        return b"", "utf-16-be" if even else "utf-16-le"
    return b"", "utf-8"


def _pieces(path: Path, content: np.ndarray, encoding: str) -> Iterator[str]:
    """The text in pieces, checked."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    for start in range(0, len(content), PIECE):
        piece = bytes(content[start : start + PIECE])
        try:
            text = decoder.decode(piece, final=start + PIECE >= len(content))
        except UnicodeError as error:
            raise _no_text(path, encoding, str(error)) from error
        if "\0" in text:
            raise _no_text(path, encoding, f"NULs within the first {start + len(piece):,} bytes")
        yield text


def _has_carriage_returns(content: np.ndarray) -> bool:
    return any(b"\r" in bytes(content[start : start + PIECE]) for start in range(0, len(content), PIECE))


def _no_text(path: Path, encoding: str, why: str) -> UserError:
    return UserError(
        f"{path} is no text in {encoding}", given=why,
        allowed="text in UTF-8, in UTF-16 with a mark at its beginning, or in the encoding that is named",
        do="data.encoding=latin-1, say, where that is what it is; data.files='FOLDER/**/*.txt' leaves other files out",
    )  # fmt: skip
