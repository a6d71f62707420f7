"""Two published corpora: Tiny Shakespeare and WikiText-2."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

from ...core.errors import UserError
from ...core.ranges import Length, Size
from ..download import fetch
from ..files import check_content, data_root, find, not_there, read, replace_it
from ..loading import Loading
from .documents import Documents, from_texts
from .sources import TINY_SHAKESPEARE, WIKITEXT2
from .texts import TextData

ARCHIVE = "wikitext-2-v1.zip"
WIKITEXT_FILES = {"train": "train.txt", "val": "valid.txt", "test": "test.txt"}
# an article's title: " = Title = " between empty lines; sections have more equals signs
ARTICLE = re.compile(rb"(?<=\n \n)(?= = [^=\n][^\n]* = \n \n)")


class TinyShakespeare(TextData):
    """40,000 lines of Shakespeare's plays (1.1 million characters), one document; downloaded where it is not found.

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`. The file input.txt may lie in it directly,
            or in nlp/tinyshakespeare or tinyshakespeare, plain, .gz or .xz.
        length, tokenizer, vocab_size, loading, name: see `PythonDocs`.
    """

    source = TINY_SHAKESPEARE

    def __init__(
        self,
        root: str | None = None,
        length: Length = 256,
        tokenizer: str = "bytes",
        vocab_size: Size = 4096,
        loading: Loading = Loading(batch_size=16),
        name: str = "tiny_shakespeare",
    ):
        super().__init__(name, loading, length, tokenizer, vocab_size)
        self.root = data_root(root)

    def prepare_data(self) -> None:
        """Download the file, where it is not there."""
        if self._find() is None:
            fetch(self.source.file("input.txt"), self.root / self.source.folder)

    def load(self) -> dict[str, Documents]:
        """Read the file and check its sha256; see `TextData.load`."""
        path = self._find()
        if path is None:
            raise not_there("Tiny Shakespeare's input.txt", self.root)
        content = read(path)
        check_content(path, content, self.source.file("input.txt").sha256)
        first, last = int(0.85 * len(content)), int(0.9 * len(content))
        parts = {"train": content[:first], "val": content[first:last], "test": content[last:]}
        return {split: from_texts([part]) for split, part in parts.items()}

    def _find(self) -> Path | None:
        folders = (self.source.folder, "tinyshakespeare", "")
        return find([self.root / folder for folder in folders], "input.txt")


class WikiText2(TextData):
    """WikiText-2 (720 articles of Wikipedia, 2.4 million words, rare words as <unk>); downloaded where it is not found.

    A document is an article. Looked for: train.txt, valid.txt and test.txt, plain, .gz or .xz; else the published archive.

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`. The files may lie in it directly, or in
            nlp/wikitext-2 or wikitext-2.
        length, tokenizer, vocab_size, loading, name: see `PythonDocs`.
    """

    source = WIKITEXT2

    def __init__(
        self,
        root: str | None = None,
        length: Length = 512,
        tokenizer: str = "bytes",
        vocab_size: Size = 4096,
        loading: Loading = Loading(batch_size=16),
        name: str = "wikitext2",
    ):
        super().__init__(name, loading, length, tokenizer, vocab_size)
        self.root = data_root(root)

    def prepare_data(self) -> None:
        """Download the archive, where neither it nor the three files are there."""
        if self._archive() is None and None in self._files().values():
            fetch(self.source.file(ARCHIVE), self.root / self.source.folder)

    def load(self) -> dict[str, Documents]:
        """Read the files and check their sha256; see `TextData.load`."""
        files, archive = self._files(), self._archive()
        if None not in files.values():
            contents = {split: (path, read(path)) for split, path in files.items()}
        elif archive is not None:
            contents = {split: (archive, content) for split, content in _unpacked(archive).items()}
        else:
            raise not_there("WikiText-2", self.root)
        for split, (path, content) in contents.items():
            check_content(path, content, self.source.content_sha256(WIKITEXT_FILES[split]))
        return {split: from_texts(articles(content)) for split, (_, content) in contents.items()}

    def _folders(self) -> list[Path]:
        return [self.root / folder for folder in (self.source.folder, "wikitext-2", "")]

    def _files(self) -> dict[str, Path | None]:
        return {split: find(self._folders(), name) for split, name in WIKITEXT_FILES.items()}

    def _archive(self) -> Path | None:
        return find(self._folders(), ARCHIVE, [""])


def articles(content: bytes) -> list[bytes]:
    """The articles of a WikiText file, each from its title on."""
    parts = ARTICLE.split(content)
    return [part for part in parts if part.strip()]


def _unpacked(archive: Path) -> dict[str, bytes]:
    names = {"train": "wiki.train.tokens", "val": "wiki.valid.tokens", "test": "wiki.test.tokens"}
    content = read(archive)
    check_content(archive, content, WIKITEXT2.file(ARCHIVE).sha256)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            return {split: packed.read(f"wikitext-2/{name}") for split, name in names.items()}
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"{archive} is damaged: {error}", do=replace_it(archive)) from error
