"""The task: where a model learns, what a test says, and predict.py in memory."""

import csv
import importlib

import numpy as np
import polars as pl
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.core.explanation import explain
from polymamba.data.loading import Loading
from polymamba.data.recommendation import Sessions
from polymamba.domains.recommendation.comparing import paired_permutation
from polymamba.domains.recommendation.explaining import hidden_attention, occlusion
from polymamba.domains.recommendation.next_item import NextItem
from polymamba.domains.recommendation.predict import predict
from polymamba.domains.trained import Trained

DATA = {"users": 80, "items": 20, "length": 9, "loading": Loading(batch_size=16)}


@pytest.fixture(scope="module")
def data():
    return Sessions(**DATA)


def described(data):
    description = data.describe()
    return {"name": description.name, **description.for_model, **data.kept()}


def task_of(data, model, options=None, **settings):
    torch.manual_seed(0)
    describe = described(data)
    build = importlib.import_module(f"polymamba.domains.recommendation.models.{model}").build
    return NextItem(build(describe, **(options or {})), describe, **settings)


SMALL = {"channels": 16, "d_state": 4}


def test_a_causal_model_learns_at_every_event(data):
    task = task_of(data, "mamba4rec", {**SMALL, "dropout": 0.0})
    batch = data.load_batch("train", 0, np.arange(5))
    hidden, targets = task.places_to_learn(batch)
    assert targets.tolist() == batch["targets"][batch["targets"] > 0].tolist()
    row, size = 2, int((batch["items"][2] > 0).sum())
    before = int((batch["targets"][:2] > 0).sum())
    alone = task.model.encode(batch["items"][row : row + 1, :size])
    torch.testing.assert_close(hidden[before + size - 1], alone[0])


def test_another_learns_at_prefixes_and_sees_nothing_behind_them(data):
    task = task_of(data, "sigma", {**SMALL, "dropout": 0.0}, prefixes=3).eval()
    batch = data.load_batch("train", 0, np.arange(5))
    rows, last = task._prefixes(batch["targets"])
    assert rows.tolist() == [each for each in range(5) for _ in range(3)]
    assert (batch["targets"][rows, last] > 0).all()
    torch.manual_seed(3)
    hidden, targets = task.places_to_learn(batch)
    torch.manual_seed(3)
    rows, last = task._prefixes(batch["targets"])
    for number, (row, place) in enumerate(zip(rows.tolist(), last.tolist(), strict=True)):
        alone = task.model.encode(batch["items"][row : row + 1, : place + 1])
        torch.testing.assert_close(hidden[number], alone[0], rtol=1e-4, atol=1e-5)
        assert targets[number] == batch["targets"][row, place]


def test_one_with_masks_learns_at_masks(data):
    task = task_of(data, "bert4rec", {"channels": 16}, mask_last=0.5, mask_share=0.3)
    batch = data.load_batch("train", 0, np.arange(30))
    real, last = batch["targets"] > 0, (batch["targets"] > 0).sum(1) - 1
    torch.manual_seed(1)
    _, targets = task.places_to_learn(batch)
    assert 30 <= len(targets) < int(real.sum())
    only = task_of(data, "bert4rec", {"channels": 16}, mask_last=1.0)
    _, targets = only.places_to_learn(batch)
    assert targets.tolist() == batch["targets"][torch.arange(30), last].tolist()


def test_a_test_says_what_it_should(data):
    task = task_of(data, "popularity", sampled=4)
    task.on_test_epoch_start()
    batch = data.load_batch("test", 0, np.arange(40))
    _, found = task.step(batch, "test")
    counts = torch.from_numpy(data.catalogue.counts)
    targets = batch["targets"].amax(1)
    ranks = torch.tensor(
        [1 + sum(int(counts[i] >= counts[t]) for i in range(1, 21) if i != t) for t in targets.tolist()]
    )
    assert float(found["hr@10"]) == pytest.approx(float((ranks <= 10).float().mean()))
    ndcg = ((ranks <= 10) / torch.log2(ranks + 1.0)).mean()
    assert float(found["ndcg@10"]) == pytest.approx(float(ndcg))
    assert float(found["ndcg@10_of_best"]) == pytest.approx(float(ndcg) / data.describe().for_model["best"]["test"])
    cold = batch["group"] == 0
    gains = (ranks <= 10) / torch.log2(ranks + 1.0)
    assert float(found["ndcg@10_cold"].compute()) == pytest.approx(float(gains[cold].mean()))
    assert float(found["coverage@10"].compute()) == pytest.approx(10 / 20)
    assert float(found["hr@10_cold"].compute()) == pytest.approx(float((ranks <= 10)[cold].double().mean()))
    had = [{*row.tolist()} - {0, target} for row, target in zip(batch["items"], targets.tolist(), strict=True)]
    fewer = [sum(int(counts[i] >= counts[t]) for i in own) for own, t in zip(had, targets.tolist(), strict=True)]
    unseen = ranks - torch.tensor(fewer)
    assert float(found["hr@10_unseen"]) == pytest.approx(float((unseen <= 10).double().mean()))
    ties = [sum(int(counts[i] == counts[t]) for i in range(1, 21)) > 1 for t in targets.tolist()]
    assert float(found["tied"]) == pytest.approx(np.mean(ties))
    assert float(found["sampled_hr@10"]) == 1  # among five
    assert 0 < float(found["sampled_ndcg@10"]) <= 1
    pictures = task.pictures("test")
    assert pictures["case_study"].count("offered") == 8
    assert task.pictures("test") == {}
    assert "->" in task.pictures("train", data.load_batch("train", 0, np.arange(3)))["first_batch"]


def test_items_of_the_history_are_not_offered_where_that_is_asked(data):
    task = task_of(data, "mamba4rec", SMALL, filter_seen=True).eval()
    task.on_test_epoch_start()
    batch = data.load_batch("test", 0, np.arange(30))
    task.step(batch, "test")
    for history, target, _, offered in task.tested.first:
        assert not (set(history) - {target}) & set(offered)


def test_what_does_not_exist_is_refused(data):
    with pytest.raises(UserError, match="unknown loss"):
        task_of(data, "mamba4rec", SMALL, loss="hinge")


@pytest.fixture
def run(data, tmp_path):
    task = task_of(data, "mamba4rec", SMALL).eval()
    return Trained(task.model, task, data, described(data), "cpu", tmp_path)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "events.csv"
    rows = ["anna,item 5,10", "anna,item 9,20", "ben,item 7,15", "cleo,item 999,1", "anna,item 11,30"]
    path.write_text("\n".join(["user,item,time", *rows]) + "\n")
    return str(path)


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def offered(path, user):
    return [row["item"] for row in read(path) if row["user"] == user]


def test_the_best_items_of_each_user(run, table):
    answer = predict(run, table, k=4)
    assert any("1 events of items" in each for each in answer.problems)
    [path] = answer.files
    scores = run.model.scores(run.model.encode(torch.tensor([[5, 9, 11]])))[0]
    scores[[0, 5, 9, 11]] = -torch.inf
    assert offered(path, "anna") == [f"item {each}" for each in scores.topk(4).indices.tolist()]
    popular = np.argsort(-run.data.catalogue.counts[1:], kind="stable")[:4] + 1
    assert offered(path, "cleo") == [f"item {each}" for each in popular]
    target = path.with_name("top.parquet")
    predict(run, table, k=4, output=str(target), batch_size=1)
    assert pl.read_parquet(target)["item"].to_list() == [row["item"] for row in read(path)]


def test_chosen_users_and_allowed_items(run, table, tmp_path):
    (tmp_path / "allow.txt").write_text("item 3\nitem 9\nitem 15\n")
    [path] = predict(run, table, k=4, users="ben,anna", allow=str(tmp_path / "allow.txt")).files
    assert sorted(offered(path, "anna")) == ["item 15", "item 3"]
    assert sorted(offered(path, "ben")) == ["item 15", "item 3", "item 9"]
    assert offered(path, "cleo") == []
    assert sorted(offered(predict(run, table, users="anna", filter_seen=False, k=20).files[0], "anna")) == sorted(
        run.data.catalogue.ids
    )


def test_a_state_goes_on_where_it_was_left(run, table, tmp_path):
    whole = read(predict(run, table, k=3, users="anna,ben").files[0])
    lines = (tmp_path / "events.csv").read_text().splitlines()
    for name, kept in (("first.csv", lines[1:4]), ("then.csv", [*lines[5:], "ben,item 7,15"])):
        (tmp_path / name).write_text("\n".join([lines[0], *kept]) + "\n")
    state = str(tmp_path / "state")
    predict(run, str(tmp_path / "first.csv"), state=state, users="anna")
    [path] = predict(run, str(tmp_path / "then.csv"), state=state, users="anna", k=3).files
    assert offered(path, "anna") == [row["item"] for row in whole if row["user"] == "anna"]


def test_like_items_have_like_embeddings(run):
    answer = predict(run, similar="item 7", k=3)
    table = torch.nn.functional.normalize(run.model.item_embedding.weight.detach()[:21], dim=1)
    likeness = table @ table[7]
    likeness[[0, 7]] = -torch.inf
    assert [line.split("  ")[-1] for line in answer.lines[1:]] == [f"item {each}" for each in likeness.topk(3).indices]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"users": "nobody"}, "users that have no events"),
        ({"similar": "item 99"}, "does not know"),
        ({"explain": "magic"}, "unknown explain"),
        ({"output": "top.xlsx"}, "written as a table"),
        ({"allow": "nothing.txt"}, "Cannot read"),
        ({"similar": "item 1", "state": "s"}, "one thing at a time"),
        ({"compare": "elsewhere"}, "no ranks can be read"),
    ],
)
def test_what_cannot_be_answered(run, table, options, problem):
    with pytest.raises(UserError, match=problem):
        predict(run, table, **options)


def test_what_an_answer_rests_on_is_what_it_loses_without_it(run):
    items = torch.tensor([5, 9, 11, 4])
    target, falls = occlusion(run.model, items, None, None)
    whole = run.model.scores(run.model.encode(items[None]))[0, 1:].log_softmax(0)
    assert target == int(whole.argmax()) + 1
    for one in range(4):
        kept = torch.cat([items[:one], items[one + 1 :]])
        without = run.model.scores(run.model.encode(kept[None]))[0, 1:].log_softmax(0)
        torch.testing.assert_close(falls[one], whole[target - 1] - without[target - 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["raw", "rollout", "attribution"])
def test_hidden_attention_is_that_of_the_mixer(run, method):
    items, given = torch.tensor([5, 9, 11, 4]), []
    mixer = run.model.mamba_layers[0].mamba
    hook = mixer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    best, parts = hidden_attention(run.model, items, None, None, method)
    hook.remove()
    assert best == int(run.model.scores(run.model.encode(items[None]))[0, 1:].argmax()) + 1
    assert parts.shape == (4,)
    assert parts[3] == 0
    if method == "raw":
        torch.testing.assert_close(parts[:3], explain(mixer, given[-1], method="raw")[0, -1, :3])
    else:
        assert (parts >= 0).all()
        assert parts.any()


def test_hidden_attention_needs_events_in_their_order(data):
    model = task_of(data, "sigma", SMALL).model
    with pytest.raises(UserError, match="explain=occlusion"):
        hidden_attention(model, torch.tensor([5, 9]), None, None, "rollout")


def test_chance_is_told_from_difference():
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 1, 400)
    assert paired_permutation(noise - noise.mean()) > 0.9
    assert paired_permutation(noise - noise.mean() + 0.3) < 1e-3
    assert paired_permutation(np.zeros(5)) == 1
    # all signs of three differences: 2 of 8 sums are as far from 0
    assert paired_permutation(np.ones(3)) == pytest.approx(0.25, abs=0.02)


def test_a_run_compared_with_itself_and_another(run, tmp_path):
    predict(run, compare=str(run.folder))
    other = tmp_path / "other"
    other.mkdir()
    task = task_of(run.data, "popularity").eval()
    against = Trained(task.model, task, run.data, run.describe, "cpu", other)
    answer = predict(against, compare=str(run.folder))
    ranks = [read(folder / "ranks.csv") for folder in (run.folder, other)]
    assert [row["item"] for row in ranks[0]] == [row["item"] for row in ranks[1]]
    assert f"{len(ranks[0]):,} events" in answer.lines[1]
