import hashlib
import io
import zipfile
from dataclasses import replace

import pytest

from polymamba.core.errors import UserError
from polymamba.data.recommendation import MovieLens, movielens

HUNDRED = {
    "ml-100k/u.data": "7\t30\t5\t200\n2\t30\t1\t100\n7\t4\t3\t100\n7\t9\t3\t100\n2\t4\t2\t50\n2\t9\t2\t70\n",
    "ml-100k/u.item": "4|Café (1990)|1990||http|0|1|1\n9|B|1990||http|1|0|0\n30|C|1990||http|0|0|0\n55|D|1990||http|0|0|1\n",
    "ml-100k/u.genre": "unknown|0\nAction|1\nDrama|2\n\n",
}
MILLION = {
    "ml-1m/ratings.dat": "7::30::5::200\n2::30::1::100\n7::4::3::100\n7::9::3::100\n2::4::2::50\n2::9::2::70\n",
    "ml-1m/movies.dat": "4::Café (1990)::Action|Drama\n9::B::unknown\n30::C::\n55::D::Drama\n",
}


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """An archive of a version's form, put where it is looked for, with its own checksum."""

    def make(version, files):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as target:
            for name, text in files.items():
                target.writestr(name, text.encode("latin-1"))
        source = movielens.SOURCES[version]
        (tmp_path / source.files[0].name).write_bytes(buffer.getvalue())
        file = replace(source.files[0], sha256=hashlib.sha256(buffer.getvalue()).hexdigest())
        monkeypatch.setitem(movielens.SOURCES, version, replace(source, files=(file,)))
        return {"root": str(tmp_path), "version": version, "least_of_user": 1, "least_of_item": 1}

    return make


@pytest.mark.parametrize(("version", "files"), [("100k", HUNDRED), ("1m", MILLION)])
def test_ratings_titles_and_genres(archive, version, files):
    log = MovieLens(**archive(version, files), genres=True).load()
    catalogue = log.catalogue
    assert log.users == ["2", "7"]
    assert catalogue.ids == ["4", "9", "30"]
    # in order of time, those of one moment in the file's
    assert [catalogue.ids[each - 1] for each in log.items] == ["4", "9", "30", "4", "9", "30"]
    assert log.times.tolist() == [50, 70, 100, 100, 100, 200]
    assert log.parts.tolist() == [0, 1, 2, 0, 1, 2]
    assert catalogue.name(1) == "Café (1990)"
    words = [
        {catalogue.values["genres"][each - 1] for each in row if each} for row in catalogue.features["genres"].tolist()
    ]
    assert words[1:3] == [{"Action", "Drama"}, {"unknown"}]


def test_users_and_films_with_few_ratings_are_left_out(archive):
    options = archive("1m", {**MILLION, "ml-1m/ratings.dat": MILLION["ml-1m/ratings.dat"] + "8::4::1::9\n"})
    log = MovieLens(**{**options, "least_of_user": 2}).load()
    assert log.users == ["2", "7"]


def test_what_is_wrong_is_named(archive):
    options = archive("1m", {**MILLION, "ml-1m/ratings.dat": "7::30::5::200\n2::30::1\n"})
    with pytest.raises(UserError, match="line 2: not a user, a film"):
        MovieLens(**options).load()
    with pytest.raises(UserError, match="no archive of ratings"):
        MovieLens(**archive("100k", {"ml-100k/u.data": HUNDRED["ml-100k/u.data"]})).load()
    options = archive("100k", HUNDRED)
    (movielens.Path(options["root"]) / "ml-100k.zip").write_bytes(b"else")
    with pytest.raises(UserError, match="does not hold what was published"):
        MovieLens(**options).load()
    with pytest.raises(UserError, match="is not there"):
        MovieLens(root=options["root"] + "/none").load()
    with pytest.raises(UserError, match=r"data\.version"):
        MovieLens(version="10m")
