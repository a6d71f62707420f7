import numpy as np
import polars as pl
import pytest

from polymamba.core.errors import UserError
from polymamba.data.recommendation import Interactions
from polymamba.data.recommendation.histories import TEST, TRAIN, VAL
from polymamba.data.recommendation.tables import Columns, read_table, to_log
from polymamba.engine.command_line.main import main

GOOD = "user,item,time\na,x,1\na,y,2\na,z,3\nb,x,5\nb,z,4\nb,y,9\n"
BROKEN = {
    "an empty file": ("t.csv", "", {}, "is empty"),
    "a header alone": ("t.csv", "user,item\n", {}, "has no events"),
    "no item": ("t.csv", "user,what,time\na,x,1\n", {}, "which column is the item"),
    "an unknown column": ("t.csv", GOOD, {"user": "usr"}, "has no column 'usr'"),
    "one event a user": ("t.csv", "user,item,time\na,x,1\nb,x,2\n", {}, "no user has three events"),
    "text for a time": ("t.csv", "user,item,time\na,x,1\na,y,soon\n", {}, "line 3, column 'time': not a time"),
    "an infinite time": ("t.csv", "user,item,time\na,x,1\na,y,inf\n", {}, "line 3, column 'time': not a time"),
    "the same twice": ("t.csv", GOOD + "a,x,1\n", {}, "the same event more than once"),
    "a missing id": ("t.csv", "user,item,time\na,x,1\na,,2\n", {}, "line 3, column 'item': an id is missing"),
    "a NaN id": ("t.tsv", "user\titem\ttime\nnan\tx\t1\n", {}, "line 2, column 'user': an id is missing"),
    "lines of unlike lengths": ("t.csv", "user,item,time\na,x,1\na,y,2,3,4\n", {}, "is no table"),
    "a form nobody reads": ("t.xlsx", GOOD, {}, "a table of this form"),
    "bytes that are no text": ("t.csv", b"user,item\n\xff\xfe,x\n", {}, "not UTF-8"),
    "a parquet file that is none": ("t.parquet", GOOD, {}, "is no table"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_is_named_and_nothing_is_written(case, tmp_path, monkeypatch, capsys):
    name, content, columns, problem = BROKEN[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    typed = [f"data.columns.{key}={value}" for key, value in columns.items()]
    code = main(["domain=recommendation", "data=interactions", f"data.file={name}", *typed, "trainer.progress=none"])
    assert code == 2
    said = capsys.readouterr().err
    assert problem in said
    assert name in said
    assert "Traceback" not in said
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_table(tmp_path / "none.csv", Columns())


def log_of(path, **columns):
    return to_log(read_table(path, Columns(**columns)), path)


def test_all_forms_say_the_same(tmp_path):
    rows = [line.split(",") for line in GOOD.split()]
    (tmp_path / "t.csv").write_text(GOOD)
    (tmp_path / "t.inter").write_text(
        "\n".join(["user_id:token\titem_id:token\ttimestamp:float", *("\t".join(row) for row in rows[1:])])
    )
    (tmp_path / "other.tsv").write_text("\n".join(["who\twhat\twhen", *("\t".join(row) for row in rows[1:])]))
    pl.read_csv(tmp_path / "t.csv").write_parquet(tmp_path / "t.parquet")
    whole = log_of(tmp_path / "t.csv")
    assert whole.users == ["a", "b"]
    assert [whole.catalogue.ids[each - 1] for each in whole.items] == ["x", "y", "z", "z", "x", "y"]
    assert whole.times.tolist() == [1, 2, 3, 4, 5, 9]
    for other in (
        log_of(tmp_path / "t.inter"),
        log_of(tmp_path / "t.parquet"),
        log_of(tmp_path / "other.tsv", user="who", item="what", time="when"),
    ):
        assert other.users == whole.users
        assert other.items.tolist() == whole.items.tolist()
        assert other.times.tolist() == whole.times.tolist()


def test_ids_are_kept_as_they_are_and_times_may_be_dates_or_milliseconds(tmp_path):
    (tmp_path / "t.csv").write_text("user,item,time\n007,1e5,2024-01-01 00:00:10\n007,08,2024-01-01 00:00:00\n")
    found = log_of(tmp_path / "t.csv")
    assert found.users == ["007"]
    assert [found.catalogue.ids[each - 1] for each in found.items] == ["08", "1e5"]
    assert np.diff(found.times).tolist() == [10]
    (tmp_path / "m.csv").write_text("user,item,time\na,x,1700000000000\na,y,1700000005000\n")
    assert log_of(tmp_path / "m.csv").times.tolist() == [1_700_000_000, 1_700_000_005]


def test_without_times_the_order_of_the_table_counts(tmp_path):
    (tmp_path / "t.csv").write_text("user,item\nb,x\na,z\nb,y\nb,x\n")
    found = log_of(tmp_path / "t.csv")
    assert found.times is None
    assert [found.catalogue.ids[each - 1] for each in found.items] == ["x", "y", "x", "z"]


def table(tmp_path, seed=0, users=30):
    generator = np.random.default_rng(seed)
    rows = [
        (f"u{user}", f"i{item}", 1000 * place + user, ("view", "buy")[item % 2], item % 5 + 1)
        for user in range(users)
        for place, item in enumerate(generator.integers(0, 12, generator.integers(3, 15)))
    ]
    frame = pl.DataFrame(rows, ["user", "item", "time", "event", "rating"], orient="row")
    frame.write_csv(tmp_path / "events.csv")
    return frame


def test_nobody_learns_from_what_comes_later(tmp_path):
    table(tmp_path)
    data = Interactions(str(tmp_path / "events.csv"), split="time", val_fraction=0.2, test_fraction=0.2)
    data.setup()
    times, parts = data.log.times, data.log.parts
    assert times[parts == TRAIN].max() < times[parts == VAL].min()
    assert times[parts == VAL].max() < times[parts == TEST].min()
    counts = np.bincount(data.log.items[parts == TRAIN], minlength=len(data.catalogue) + 1)
    assert data.catalogue.counts.tolist() == counts.tolist()


def test_shares_of_each_user(tmp_path):
    table(tmp_path)
    data = Interactions(str(tmp_path / "events.csv"), split="ratio", val_fraction=0.2, test_fraction=0.3)
    data.setup()
    for begin, end in zip(data.log.offsets, data.log.offsets[1:], strict=False):
        own = data.log.parts[begin:end]
        assert (np.diff(own) >= 0).all()
        assert (own == TEST).sum() == np.floor((end - begin) * 0.3 + 1e-9)


def test_the_core_is_the_largest_table_in_which_everybody_has_enough(tmp_path):
    frame = table(tmp_path)
    data = Interactions(str(tmp_path / "events.csv"), least_of_user=6, least_of_item=9)
    data.setup()
    while True:
        counted = frame.with_columns(u=pl.len().over("user"), i=pl.len().over("item"))
        kept = counted.filter((pl.col("u") >= 6) & (pl.col("i") >= 9)).drop("u", "i")
        if len(kept) == len(frame):
            break
        frame = kept
    assert len(data.log.items) == len(frame)
    assert sorted(data.log.users) == sorted(frame["user"].unique())
    assert sorted(data.catalogue.ids) == sorted(frame["item"].unique())
    with pytest.raises(UserError, match="no events are left"):
        Interactions(str(tmp_path / "events.csv"), least_of_user=99).setup()


def test_behaviours_weights_and_what_is_known_of_items(tmp_path):
    table(tmp_path)
    (tmp_path / "items.csv").write_text(
        "item,title,genre\n"
        + "".join(f"i{each},Film {each},{'war|love' if each % 2 else 'love'}\n" for each in range(11))
    )
    data = Interactions(
        str(tmp_path / "events.csv"), items=str(tmp_path / "items.csv"), features=["genre"], least_weight=2
    )
    known = data.describe().for_model
    assert known["behaviours"] == ["buy", "view"]
    assert known["features"] == {"genre": 2}
    assert not {"i0", "i5", "i10"} & set(data.catalogue.ids)
    batch = data.load_batch("train", 0, np.arange(4))
    for item, genres, behaviour in zip(
        batch["items"][0].tolist(), batch["features"]["genre"][0].tolist(), batch["features"]["behaviour"][0].tolist(),
        strict=True,
    ):  # fmt: skip
        name = data.catalogue.ids[item - 1] if item else None
        odd = name is not None and int(name[1:]) % 2
        expected = [] if name in (None, "i11") else ["love", "war"] if odd else ["love"]
        assert sorted(data.catalogue.values["genre"][each - 1] for each in genres if each) == expected
        assert behaviour == (0 if name is None else 1 if odd else 2)
    assert data.catalogue.name(data.catalogue.numbers["i1"]) == "Film 1"
    assert data.catalogue.name(data.catalogue.numbers["i11"]) == "i11"


def test_recboles_table_of_items(tmp_path):
    (tmp_path / "t.csv").write_text(GOOD)
    (tmp_path / "t.item").write_text(
        "item_id:token\tmovie_title:token_seq\tclass:token_seq\nx\tThe One\twar love\ny\tTwo\tlove\nq\tFour\twar\n"
    )
    catalogue = (
        Interactions(str(tmp_path / "t.csv"), items=str(tmp_path / "t.item"), features=["class"]).load().catalogue
    )
    assert [catalogue.name(number) for number in (1, 2, 3)] == ["The One", "Two", "z"]
    assert catalogue.values["class"] == ["love", "war"]
    assert catalogue.features["class"].tolist() == [[0, 0], [2, 1], [1, 0], [0, 0]]
