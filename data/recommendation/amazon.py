"""Amazon reviews as published tables of who reviewed what, in order: Beauty, Sports, Toys (S3-Rec's) and Video Games (SASRec's)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...core.errors import UserError
from ...core.ranges import Size, checked
from ..download import fetch
from ..files import check_content, data_root, find, not_there, read, replace_it
from ..loading import Loading
from .catalogue import Catalogue
from .histories import Histories, Log
from .interactions import numbered
from .sources import BEAUTY, SPORTS, TOYS, VIDEO_GAMES
from .splits import divided

ATTRIBUTES = "attributes"


class Amazon(Histories):
    """Base of the sets: leave-one-out; downloaded where it is not found.

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`. The files may lie in it directly, or in the source's
            folder, each plain, .gz or .xz.
        attributes: the items' attributes are a feature, where the set has any.
        length, loading, name: see `Histories`.
    """

    pairs = False  # a line is a user and an item, not a user and all items

    @checked(group="data")
    def __init__(self, name: str, root: str | None, attributes: bool, length: Size, loading: Loading):
        super().__init__(name, loading, length)
        self.root, self.attributes = data_root(root), attributes
        if attributes and len(self.source.content) < 2:
            raise UserError(
                f"{name} comes without attributes", given="data.attributes=true", do="data.attributes=false"
            )

    @property
    def wanted(self) -> list[str]:
        """Names of the files that are read."""
        return [name for name, _ in self.source.content][: 2 if self.attributes else 1]

    def prepare_data(self) -> None:
        """Download the files that are not there."""
        for name in self.wanted:
            if self._find(name) is None:
                fetch(self.source.file(name), self.root / self.source.folder)

    def load(self) -> Log:
        """Read the files and check their sha256; see `Histories.load`."""
        path, content = self._read(self.wanted[0])
        users, items = parsed(path, content, self.pairs)
        changes = np.flatnonzero(users[1:] != users[:-1]) + 1
        ids, numbers = np.unique(items, return_inverse=True)
        catalogue = Catalogue([str(each) for each in ids.tolist()], np.zeros(len(ids) + 1, np.int64))
        if self.attributes:
            path, content = self._read(self.wanted[1])
            known = json.loads(content)
            words = [[str(each) for each in known.get(item, ())] for item in catalogue.ids]
            found, names = numbered(words)
            catalogue = replace(catalogue, features={ATTRIBUTES: found}, values={ATTRIBUTES: names})
        offsets = np.concatenate([[0], changes, [len(users)]])
        log = Log(
            offsets, numbers + 1, np.zeros(len(items), np.int8), catalogue,
            users=[str(each) for each in users[offsets[:-1]].tolist()],
        )  # fmt: skip
        return divided(log, "leave_one_out", 0, 0)

    def _find(self, name: str) -> Path | None:
        return find([self.root / self.source.folder, self.root], name)

    def _read(self, name: str) -> tuple[Path, bytes]:
        path = self._find(name)
        if path is None:
            raise not_there(f"{self.source.title}'s {name}", self.root)
        content = read(path)
        check_content(path, content, self.source.content_sha256(name))
        return path, content


def parsed(path: Path, content: bytes, pairs: bool) -> tuple[np.ndarray, np.ndarray]:
    """Users and items, (events,) int64 each, from lines of a user and its items, or of a user and an item.

    Raises:
        UserError: a line that is something else.
    """
    users, items = [], []
    for number, line in enumerate(content.decode("ascii", "replace").splitlines(), 1):
        words = line.split()
        if len(words) < 2 or not all(word.isdigit() for word in words) or (pairs and len(words) != 2):
            raise UserError(
                f"{path}, line {number:,}: not a user and {'an item' if pairs else 'items'}", given=repr(line[:60]),
                allowed="whole numbers", do=replace_it(path),
            )  # fmt: skip
        users += [int(words[0])] * (len(words) - 1)
        items += map(int, words[1:])
    return np.array(users, np.int64), np.array(items, np.int64)


class Beauty(Amazon):
    """22,363 users, 12,101 items, 198,502 reviews; see `Amazon`."""

    source = BEAUTY

    def __init__(
        self, root: str | None = None, attributes: bool = False, length: Size = 50,
        loading: Loading = Loading(batch_size=256), name: str = "beauty",
    ):  # fmt: skip
        super().__init__(name, root, attributes, length, loading)


class Sports(Amazon):
    """35,598 users, 18,357 items, 296,337 reviews; see `Amazon`."""

    source = SPORTS

    def __init__(
        self, root: str | None = None, attributes: bool = False, length: Size = 50,
        loading: Loading = Loading(batch_size=256), name: str = "sports",
    ):  # fmt: skip
        super().__init__(name, root, attributes, length, loading)


class Toys(Amazon):
    """19,412 users, 11,924 items, 167,597 reviews; see `Amazon`."""

    source = TOYS

    def __init__(
        self, root: str | None = None, attributes: bool = False, length: Size = 50,
        loading: Loading = Loading(batch_size=256), name: str = "toys",
    ):  # fmt: skip
        super().__init__(name, root, attributes, length, loading)


class VideoGames(Amazon):
    """31,013 users, 23,715 items, 287,107 reviews; see `Amazon`."""

    source, pairs = VIDEO_GAMES, True

    def __init__(
        self, root: str | None = None, attributes: bool = False, length: Size = 50,
        loading: Loading = Loading(batch_size=256), name: str = "video_games",
    ):  # fmt: skip
        super().__init__(name, root, attributes, length, loading)
