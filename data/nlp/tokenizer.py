"""Text to token numbers and back: bytes, a byte-pair encoding trained on the data, or any tokenizer.json."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np

from ...core.errors import UserError
from ..files import cached
from .documents import Documents

END = "<|end|>"
# marks that other tokenizers have for the end of a document, the likeliest first
END_NAMES = (END, "<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "[SEP]", "<pad>", "[PAD]")
BYTES = 256
# larger corpora are tokenised into a file, which is then memory-mapped
IN_MEMORY = 1 << 20


class Tokenizer(ABC):
    """Text to token numbers and back.

    Attributes:
        name: what it is called in results.
        vocab_size: how many token numbers there are.
        end: the number of the mark that ends a document; a document's first token is predicted from it too.
        digest: says which tokenizer this is: the same digest, the same numbers.
    """

    name: str
    vocab_size: int
    end: int
    digest: str

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The token numbers of a text, without the end mark."""

    @abstractmethod
    def bytes_of(self, ids: Sequence[int]) -> bytes:
        """The UTF-8 bytes of the text that these tokens are, from its beginning; marks stand for none."""

    def beginning(self) -> list[int]:
        """The marks that belong in front of a text by this tokenizer's own rule; none for those made here."""
        return []

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens; bytes that are no UTF-8 become U+FFFD."""
        return self.bytes_of(ids).decode(errors="replace")

    def byte_counts(self) -> np.ndarray:
        """The number of bytes of a text that is one token, for each: int64 (vocab_size,)."""
        return np.array([len(self.bytes_of([token])) for token in range(self.vocab_size)], np.int64)

    def tokenise(self, documents: Documents) -> Documents:
        """Documents of bytes as documents of token numbers."""
        if documents.sizes.sum() <= IN_MEMORY:
            counts, tokens = _encode(self, documents)
        else:
            path = _tokens_file(self, documents)
            stored = np.load(path, mmap_mode="r")
            counts, tokens = stored[: 2 * len(documents)].view(np.int64), stored[2 * len(documents) :]
        stops = np.cumsum(counts, dtype=np.int64)
        table = np.stack([np.zeros(len(stops), np.int64), stops - counts, stops], 1)
        return Documents([tokens], table[counts > 0])

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write a file that `load_tokenizer` reads."""


class ByteTokenizer(Tokenizer):
    """Every byte of the UTF-8 text is a token; token 256 ends a document."""

    name, vocab_size, end, digest = "bytes", BYTES + 1, BYTES, "bytes"

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def bytes_of(self, ids: Sequence[int]) -> bytes:
        return bytes(token for token in map(int, ids) if token < BYTES)

    def tokenise(self, documents: Documents) -> Documents:
        return documents

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps({"polymamba": "bytes"}) + "\n", encoding="utf-8")


class LibraryTokenizer(Tokenizer):
    """A tokenizer of the `tokenizers` library.

    Args:
        content: the text of its tokenizer.json.
        name: what it is called in results.

    Raises:
        UserError: the content is no tokenizer, or has no mark that could end a document.
    """

    def __init__(self, content: str, name: str):
        self.content, self.name = content, name
        try:
            self.inner = _library().Tokenizer.from_str(content)
        except UserError:
            raise
        except Exception as error:  # the library raises nothing more exact
            raise UserError(f"{name} is no tokenizer of the tokenizers library", given=str(error)[:200]) from error
        self.vocab_size = self.inner.get_vocab_size(with_added_tokens=True)
        found = [token for token in map(self.inner.token_to_id, END_NAMES) if token is not None]
        if not found:
            raise UserError(f"{name} has no token that could end a document", allowed=f"one of {', '.join(END_NAMES)}")
        self.end = found[0]
        self.digest = hashlib.sha256(content.encode()).hexdigest()
        added = self.inner.get_added_tokens_decoder()
        self._marks = {number for number, token in added.items() if token.special}
        # Added tokens that are plain text (GPT-NeoX has runs of spaces) are written in letters, not in the byte alphabet.
        self._plain = {number: token.content.encode() for number, token in added.items() if not token.special}
        self._letters = _byte_of_letter() if '"ByteLevel"' in content else None
        # of a tokenizer that has some, the tokens that stand for one byte of a character that it lacks
        self._bytes = {}
        if '"ByteFallback"' in content:
            named = ((byte, self.inner.token_to_id(f"<0x{byte:02X}>")) for byte in range(BYTES))
            self._bytes = {token: bytes([byte]) for byte, token in named if token is not None}

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text, add_special_tokens=False).ids

    def bytes_of(self, ids: Sequence[int]) -> bytes:
        ids = [token for token in map(int, ids) if token not in self._marks and token < self.vocab_size]
        if self._letters is None:
            return self._decoded(ids)
        return b"".join(self._plain.get(token) or self._spelled(token) for token in ids)

    def beginning(self) -> list[int]:
        marked, plain = (self.inner.encode("a", add_special_tokens=marks).ids for marks in (True, False))
        starts = (place for place in range(len(marked)) if marked[place : place + len(plain)] == plain)
        return marked[: next(starts, 0)]

    def save(self, path: str | Path) -> None:
        Path(path).write_text(self.content, encoding="utf-8")

    def _decoded(self, ids: list[int]) -> bytes:
        """The library's text; but tokens of single bytes it gives only where they make a whole character."""
        if not self._bytes.keys() & set(ids):
            return self.inner.decode(ids).encode()
        parts = []
        for single, run in groupby(ids, self._bytes.__contains__):
            tokens = list(run)
            if single:
                parts += [self._bytes[token] for token in tokens]
            else:
                # only a text's first token is written without the space that it brings
                before = [self._word] if parts else []
                text = self.inner.decode([*before, *tokens])
                parts.append(text[len(self.inner.decode(before)) :].encode())
        return b"".join(parts)

    @cached_property
    def _word(self) -> int:
        tokens = (token for token in range(self.vocab_size) if token not in self._marks and token not in self._bytes)
        return next((token for token in tokens if self.inner.decode([token]).isalnum()), 0)

    def _spelled(self, token: int) -> bytes:
        return bytes(self._letters[letter] for letter in self.inner.id_to_token(token) or "")


def make_tokenizer(name: str, vocab_size: int, documents: Documents) -> Tokenizer:
    """The tokenizer of a data set.

    Args:
        name: "bytes", "bpe", or the path of a tokenizer.json.
        vocab_size: tokens of the byte-pair encoding, the end mark included.
        documents: the training documents, which the byte-pair encoding is trained on.

    Raises:
        UserError: none of these, or the file is no tokenizer.
    """
    if name == "bytes":
        return ByteTokenizer()
    if name == "bpe":
        return trained_bpe(documents, vocab_size)
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError("unknown tokenizer", given=f"data.tokenizer={name}", allowed="bytes, bpe, or a tokenizer.json")
    return load_tokenizer(path)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` or the tokenizers library wrote.

    Raises:
        UserError: the file cannot be read or is no tokenizer.
    """
    try:
        content = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the tokenizer {path}: {error}") from error
    if content.startswith('{"polymamba"'):
        return ByteTokenizer()
    return LibraryTokenizer(content, Path(path).stem)


def trained_bpe(documents: Documents, vocab_size: int) -> LibraryTokenizer:
    """A byte-level byte-pair encoding (Sennrich et al. 2016) of these documents, kept in the cache by their content."""
    if not isinstance(vocab_size, int) or isinstance(vocab_size, bool) or vocab_size <= BYTES:
        raise UserError(
            "data.vocab_size does not fit", given=vocab_size, allowed=f"a whole number of {BYTES + 1} or more"
        )
    library = _library()
    key = hashlib.sha256(f"{documents.sha256()} {vocab_size} {library.__version__}".encode()).hexdigest()

    def write(path: Path) -> None:
        inner = library.Tokenizer(library.models.BPE())
        inner.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END],
            initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        inner.train_from_iterator((text for _, text in documents.pieces()), trainer)
        inner.save(str(path))

    path = cached(f"tokenizers/bpe-{vocab_size}-{key[:20]}.json", write)
    return LibraryTokenizer(path.read_text(encoding="utf-8"), "bpe")


def _encode(tokenizer: Tokenizer, documents: Documents) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of each document, int64 (documents,), and all tokens, one document behind another."""
    counts = np.zeros(len(documents), np.int64)
    kind = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    parts = []
    for index, text in documents.pieces():
        parts.append(np.array(tokenizer.encode(text), kind))
        counts[index] += len(parts[-1])
    return counts, np.concatenate(parts) if parts else np.empty(0, kind)


def _tokens_file(tokenizer: Tokenizer, documents: Documents) -> Path:
    """A file of the cache: the counts' two halves as uint32, then the tokens as uint32."""
    key = hashlib.sha256(f"{documents.sha256()} {tokenizer.digest}".encode()).hexdigest()

    def write(path: Path) -> None:
        raw, counts = path.with_name(f"{path.name}.raw"), np.zeros(len(documents), np.int64)
        try:
            with open(raw, "wb") as stream:
                for index, text in documents.pieces():
                    tokens = np.array(tokenizer.encode(text), np.uint32)
                    counts[index] += len(tokens)
                    stream.write(tokens)
            with open(path, "wb") as stream:
                shape = (2 * len(counts) + int(counts.sum()),)
                header = {"descr": "<u4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, header)
                stream.write(counts.view(np.uint32))
                with open(raw, "rb") as tokens:
                    while block := tokens.read(1 << 22):
                        stream.write(block)
        finally:
            raw.unlink(missing_ok=True)

    return cached(f"tokens/{key[:32]}.npy", write)


def _byte_of_letter() -> dict[str, int]:
    """The byte behind each letter of the byte-level alphabet (GPT-2): printable bytes stand for themselves."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(BYTES) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(BYTES + i): byte for i, byte in enumerate(others)}


def _library():
    try:
        import tokenizers
    except ImportError as error:
        raise UserError("The tokenizers library is not installed", do="pip install tokenizers") from error
    return tokenizers
