"""Images in WebDataset shards: tar files of samples, each the files of one name (0001.jpg, 0001.cls), read at any place."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from ...core.errors import UserError
from ..files import cached
from ..folders import hidden
from .photos import SUFFIXES

FORM = 1  # counts up when an index of the same shard holds something else
ROW = [("offset", np.int64), ("size", np.int64), ("label", np.int64)]


@dataclass(frozen=True, order=True)
class Member:
    """An image inside a shard; see decoding.ImageFile."""

    shard: Path
    offset: int
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} in {self.shard}"

    def open(self, mode: str = "rb") -> io.BytesIO:
        """Its bytes."""
        with open(self.shard, mode) as file:
            file.seek(self.offset)
            return io.BytesIO(file.read(self.size))


class Members(Sequence[Member]):
    """The images of some shards, in their order; a position gives one, a tensor of positions (count,) a part.

    Args:
        shards: paths.
        shard: which of them each image lies in, (images,).
        rows: where in it and how it is called: of ROW and "name", (images,).
    """

    def __init__(self, shards: Sequence[Path], shard: np.ndarray, rows: np.ndarray):
        self.shards, self.shard, self.rows = shards, shard, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, torch.Tensor):
            chosen = position.numpy()
            return Members(self.shards, self.shard[chosen], self.rows[chosen])
        row = self.rows[position]
        name = row["name"].decode(errors="replace")
        return Member(self.shards[self.shard[position]], int(row["offset"]), int(row["size"]), name)


def read_shards(shards: Sequence[Path]) -> tuple[Members, torch.Tensor]:
    """The images of shards and their labels, (images,) int64.

    Where each image lies is read once, from the headers, and kept in the cache, for as long as the shard does not change.

    Raises:
        UserError: a shard is no tar file or cut off, or a sample of it has no image or no label.
    """
    rows = [_index(shard) for shard in shards]
    counts = [len(each) for each in rows]
    together = np.concatenate(rows)
    shard = np.repeat(np.arange(len(shards), dtype=np.int32), counts)
    return Members(shards, shard, together), torch.from_numpy(together["label"].copy())


def _index(shard: Path) -> np.ndarray:
    """What Members keeps of a shard."""
    about = shard.stat()
    key = f"{FORM} {shard.resolve()} {about.st_size} {about.st_mtime_ns}"
    name = f"shards/{hashlib.sha256(key.encode(errors='surrogateescape')).hexdigest()[:32]}.npy"

    def write(path: Path) -> None:
        with open(path, "wb") as file:
            np.save(file, _read_index(shard))

    return np.load(cached(name, write))


def _read_index(shard: Path) -> np.ndarray:
    """The rows of a shard's samples; files that follow each other and have the same name up to the first dot are one."""
    try:
        with tarfile.open(shard, "r:") as archive:
            files = (each for each in archive if each.isfile() and not hidden(PurePosixPath(each.name).name))
            samples = [(key, list(group)) for key, group in groupby(files, lambda each: _split(each.name)[0])]
            _check_end(shard, archive)
            rows = [_row(shard, archive, key, group) for key, group in samples]
    except tarfile.TarError as error:
        raise UserError(
            f"Broken shard: {shard}", given=str(error), allowed="a tar file, not compressed",
            do="unpack it (gunzip) where it is compressed, else replace it",
        ) from error  # fmt: skip
    if not rows:
        raise UserError(f"{shard} holds no samples", allowed="0001.jpg, 0001.cls, 0002.jpg, …", do="delete it")
    width = max(len(name) for *_, name in rows)
    return np.array(rows, [*ROW, ("name", f"S{width}")])


def _check_end(shard: Path, archive: tarfile.TarFile) -> None:
    """Raises ReadError where the block of zeros that ends a tar file is missing: of one cut off, tarfile gives what is left."""
    last = archive.getmembers()[-1:]
    end = sum(each.offset_data + -(-each.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE for each in last)
    with open(shard, "rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"cut off behind {last[0].name if last else 'its beginning'}")


def _row(shard: Path, archive: tarfile.TarFile, key: str, files: Sequence[tarfile.TarInfo]) -> tuple:
    image, label = None, None
    for each in files:
        kind = _split(each.name)[1]
        if f".{kind}" in SUFFIXES and image is None:
            image = each
        elif kind in ("cls", "json"):
            label = _label(shard, each.name, archive.extractfile(each).read(), label)
    for what, found, allowed in (
        ("image", image, "a .jpg, .png, .webp or the like"),
        ("label", label, 'a .cls that holds a number, or a .json with "label"'),
    ):
        if found is None:
            raise UserError(f"{key} in {shard} has no {what}", allowed=allowed, do="write the shard anew")
    return image.offset_data, image.size, label, image.name.encode(errors="surrogateescape")


def _split(name: str) -> tuple[str, str]:
    """A sample's key and the kind of file: ("a/0001", "seg.png") of a/0001.seg.png."""
    path = PurePosixPath(name)
    stem, _, kind = path.name.partition(".")
    return str(path.parent / stem), kind.lower()


def _label(shard: Path, name: str, content: bytes, before: int | None) -> int | None:
    """The label that a .cls or a .json says; what a .json leaves out is what was said before."""
    try:
        if not name.lower().endswith(".json"):
            return int(content)
        said = json.loads(content)
        said = said.get("label", before) if isinstance(said, dict) else said
        if said is not None and (isinstance(said, bool) or not isinstance(said, int)):
            raise ValueError(said)
    except ValueError as error:
        shown = content[:40].decode(errors="replace")
        raise UserError(f"{name} in {shard} is no label", given=repr(shown), allowed="a whole number from 0") from error
    return said
