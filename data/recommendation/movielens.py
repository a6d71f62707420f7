"""MovieLens 100K and 1M: who rated which film, and when. Its terms forbid passing it on, so it comes from GroupLens alone."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ...core.errors import UserError, check_choice
from ...core.ranges import Size, checked
from ..download import fetch
from ..files import check_content, data_root, find, not_there, read, replace_it
from ..loading import Loading
from .catalogue import Catalogue
from .histories import Histories, Log
from .interactions import numbered
from .sources import MOVIELENS_1M, MOVIELENS_100K
from .splits import core, divided

GENRES = "genres"


class Form(NamedTuple):
    """Names of an archive's files, what separates their columns, and whether genres are flags, named in a file of their own."""

    ratings: str
    films: str
    separators: tuple[str, str]
    genres: str | None


SOURCES = {"100k": MOVIELENS_100K, "1m": MOVIELENS_1M}
FORMS = {
    "100k": Form("ml-100k/u.data", "ml-100k/u.item", ("\t", "|"), "ml-100k/u.genre"),
    "1m": Form("ml-1m/ratings.dat", "ml-1m/movies.dat", ("::", "::"), None),
}
FLAGS_FROM = 5  # the column of u.item that the genres' flags begin at


class MovieLens(Histories):
    """Ratings in order of time, whatever their value, leave-one-out; downloaded where they are not found.

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`. The archive may lie in it directly, or in the
            source's folder.
        version: "100k" (943 users, 1,682 films) or "1m" (6,040 users, 3,706 films).
        genres: the films' genres are a feature.
        least_of_user, least_of_item: users and films with fewer ratings are left out; the papers have 5 and 5.
        length, loading, name: see `Histories`; the papers keep 200 events of 1M.
    """

    source = MOVIELENS_1M

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        version: Literal["100k", "1m"] = "1m",
        genres: bool = False,
        least_of_user: Size = 5,
        least_of_item: Size = 5,
        length: Size = 200,
        loading: Loading = Loading(batch_size=64),
        name: str = "movielens",
    ):
        super().__init__(name, loading, length)
        check_choice("data.version", version, SOURCES)
        self.root, self.version, self.genres = data_root(root), version, genres
        self.least_of_user, self.least_of_item = least_of_user, least_of_item
        self.source = SOURCES[version]

    def prepare_data(self) -> None:
        """Download the archive, where it is not there."""
        if self._find() is None:
            fetch(self.source.files[0], self.root / self.source.folder)

    def load(self) -> Log:
        """Read the archive and check its sha256; see `Histories.load`."""
        path = self._find()
        if path is None:
            raise not_there(f"{self.source.title}'s {self.source.files[0].name}", self.root)
        content = read(path)
        check_content(path, content, self.source.files[0].sha256)
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                log = ratings(archive, FORMS[self.version], path)
                log = core(log, self.least_of_user, self.least_of_item)
                log = replace(log, catalogue=with_films(log.catalogue, archive, FORMS[self.version], self.genres))
        except (zipfile.BadZipFile, KeyError) as error:
            raise UserError(f"{path} is no archive of ratings: {error}", given=path, do=replace_it(path)) from error
        return divided(log, "leave_one_out", 0, 0)

    def _find(self) -> Path | None:
        return find([self.root / self.source.folder, self.root], self.source.files[0].name, ("",))


def ratings(archive: zipfile.ZipFile, form: Form, path: Path) -> Log:
    """All ratings, each user's in order of time, those of one moment in the file's; parts all 0.

    Raises:
        UserError: a line that is not four whole numbers.
    """
    rows = []
    for number, line in enumerate(archive.read(form.ratings).decode("ascii", "replace").splitlines(), 1):
        words = line.split(form.separators[0])
        if len(words) != 4 or not all(word.isdigit() for word in words):
            raise UserError(
                f"{path}, {form.ratings}, line {number:,}: not a user, a film, a rating and a time",
                given=repr(line[:60]),
            )
        rows.append([int(word) for word in words])
    users, films, _, times = np.array(rows, np.int64).reshape(-1, 4).T
    order = np.lexsort((times, users))
    users, films, times = users[order], films[order], times[order]
    names, begin = np.unique(users, return_index=True)
    ids, numbers = np.unique(films, return_inverse=True)
    catalogue = Catalogue([str(each) for each in ids.tolist()], np.zeros(len(ids) + 1, np.int64))
    return Log(
        np.append(begin, len(users)), numbers + 1, np.zeros(len(users), np.int8), catalogue, times,
        users=[str(each) for each in names.tolist()],
    )  # fmt: skip


def with_films(catalogue: Catalogue, archive: zipfile.ZipFile, form: Form, genres: bool) -> Catalogue:
    """The catalogue with the films' titles and, where asked for, genres."""
    rows = [line.split(form.separators[1]) for line in archive.read(form.films).decode("latin-1").splitlines() if line]
    titles = {row[0]: row[1] for row in rows}
    known = {each: titles[each] for each in catalogue.ids if each in titles}
    catalogue = replace(catalogue, titles=known)
    if not genres:
        return catalogue
    if form.genres is None:
        words = {row[0]: row[2].split("|") for row in rows}
    else:
        lines = archive.read(form.genres).decode("latin-1").splitlines()
        named = [line.split("|")[0] for line in lines if "|" in line]
        flags = {row[0]: row[FLAGS_FROM:] for row in rows}
        words = {
            film: [each for each, flag in zip(named, own, strict=False) if flag == "1"] for film, own in flags.items()
        }
    found, names = numbered([words.get(each, []) for each in catalogue.ids])
    return replace(catalogue, features={GENRES: found}, values={GENRES: names})
