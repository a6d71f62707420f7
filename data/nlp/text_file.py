"""Text in the user's own files, of any size."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...core.errors import UserError, closest
from ...core.ranges import Fraction, Length, Seed, Size, checked
from ..folders import files_below
from ..loading import EpochLoader, Loading
from ..module import Description
from .documents import Documents, divided, from_files
from .sources import TEXT_FILE
from .texts import TextData


class TextFile(TextData):
    """Plain text files of any size: each file is a document, or several with a separator between them.

    Without files for val and test, ten documents or more are dealt out whole by a hash. Of those that are too long for that,
    and of fewer, each is cut into three stretches, the first for training. Equal documents stay in one part.

    Args:
        files: a path, or several; * and ** match many (recursively), a folder stands for every file below it. None: there are
            test files alone, for a trained model.
        val_files, test_files: the same for validation and testing; None: parts of `files`.
        encoding: of the files, like latin-1; None: UTF-8, or what a mark at the beginning says.
        separator: what stands between documents in a file, like "<|endoftext|>"; None: a file is a document.
        val_fraction, test_fraction: share of the bytes for validation and testing, where there are no files for them.
        split_seed: seed of the split.
        length, tokenizer, vocab_size, loading, name: see `PythonDocs`.
    """

    source = TEXT_FILE

    @checked(group="data")
    def __init__(
        self,
        files: str | list[str] | None = None,
        val_files: str | list[str] | None = None,
        test_files: str | list[str] | None = None,
        separator: str | None = None,
        val_fraction: Fraction = 0.05,
        test_fraction: Fraction = 0.05,
        split_seed: Seed = 0,
        length: Length = 512,
        tokenizer: str = "bytes",
        vocab_size: Size = 4096,
        loading: Loading = Loading(batch_size=16),
        name: str = "text_file",
        encoding: str | None = None,
    ):
        super().__init__(name, loading, length, tokenizer, vocab_size)
        if not files and not test_files:
            raise UserError("text_file needs files", do="data.files=FILE, or data.files='FOLDER/**/*.txt'")
        if separator == "":
            raise UserError("data.separator is empty", allowed="some text, or null")
        self.files = {"train": files, "val": val_files, "test": test_files}
        self.separator, self.encoding, self.split_seed = separator, encoding, split_seed
        self.fractions = {"val": val_fraction, "test": test_fraction}
        for split, share in self.fractions.items():
            if share >= 0.5:
                raise UserError(f"data.{split}_fraction is a share of the text", given=share, allowed="0 to 0.5")

    def load(self) -> dict[str, Documents]:
        """Map the files; see `TextData.load`."""
        found = {s: from_files(matched(f), self.separator, self.encoding) for s, f in self.files.items() if f}
        cut = [split for split in ("val", "test") if split not in found] if "train" in found else []
        if cut:
            if not len(found["train"]):
                raise UserError("The files are empty", given=f"data.files={self.files['train']}")
            parts = divided(found["train"], tuple(self.fractions[split] for split in cut), self.split_seed)
            if not all(len(part) for part in parts):
                raise UserError(
                    "The files hold too little text to take validation and test text out of it",
                    given=f"data.files={self.files['train']}: {found['train'].sizes.sum():,} bytes",
                    do="add text, or name data.val_files=FILE and data.test_files=FILE",
                )
            found |= dict(zip(("train", *cut), parts, strict=True))
        return found

    def loader(self, split: str) -> EpochLoader:
        """See `DataModule.loader`."""
        if split != "test" and not self.files["train"]:
            raise UserError("text_file needs files to train on", do="data.files=FILE, or data.files='FOLDER/**/*.txt'")
        return super().loader(split)

    def describe(self) -> Description:
        """See `TextData.describe`."""
        files, test_files = self.files["train"], self.files["test"]
        if test_files:
            tested = f"all of data.test_files={test_files}"
        else:
            tested = (
                f"data.test_fraction={self.fractions['test']} of data.files; data.test_files=FILE tests all of a file"
            )
        return replace(super().describe(), source=str(files or test_files), tested=tested)


def matched(patterns: str | Sequence[str]) -> list[Path]:
    """The files that one or several paths or patterns mean, sorted, each once.

    Raises:
        UserError: a pattern that matches nothing.
    """
    found: set[Path] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            here = set(files_below(path))
        elif path.is_file():
            here = {path}
        else:
            here = {Path(each) for each in glob.glob(str(path), recursive=True) if Path(each).is_file()}
        if not here:
            beside = [str(each) for each in path.parent.iterdir()] if path.parent.is_dir() else []
            near = closest(str(path), beside)
            raise UserError("no file matches", given=f"data.files={pattern}", do=f"data.files={near}" if near else None)
        found |= here
    return sorted(found)
