"""Every sample's answers, found again from its tokens alone by the rule that defines them."""

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.nlp import MQAR, InductionHeads, SelectiveCopying
from polymamba.data.nlp.synthetic import chosen
from polymamba.data.randomness import hashed

IGNORED = -100


def batch_of(data, split="train", epoch=0, count=64):
    return data.load_batch(split, epoch, np.arange(count))


def rows(batch):
    assert (batch["seq_idx"] == 0).all()
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64
    return zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True)


def test_selective_copying_asks_for_the_data_in_order():
    data = SelectiveCopying(length=100, data_tokens=7, vocab_size=10)
    places = set()
    for tokens, labels in rows(batch_of(data)):
        assert len(tokens) == 107
        assert tokens[100:] == [9] * 7
        assert 9 not in tokens[:100]
        data_tokens = [token for token in tokens[:100] if token != 0]
        assert len(data_tokens) == 7
        assert labels == [IGNORED] * 100 + data_tokens
        places |= {place for place, token in enumerate(tokens[:100]) if token}
    assert len(places) > 95


def test_selective_copying_has_the_papers_size():
    batch = SelectiveCopying().load_batch("val", 0, np.arange(2))
    assert batch["input_ids"].shape == (2, 4096 + 16)
    assert (batch["labels"] >= 0).sum().item() == 32
    assert SelectiveCopying().describe().for_model["vocab_size"] == 16


def test_induction_heads_ask_for_what_followed():
    data = InductionHeads(length=20, vocab_size=8)
    seen = set()
    for tokens, labels in rows(batch_of(data, count=500)):
        first = tokens.index(7)
        assert tokens.count(7) == 2
        assert tokens[-1] == 7
        assert labels == [IGNORED] * 19 + [tokens[first + 1]]
        seen.add((first, labels[-1]))
    assert {first for first, _ in seen} == set(range(18))
    assert {answer for _, answer in seen} == set(range(7))
    assert data.describe().for_model["chance"] == 1 / 7


def test_mqar_asks_for_each_keys_value():
    data = MQAR(length=64, pairs=8, vocab_size=64)
    for tokens, labels in rows(batch_of(data)):
        known = dict(zip(tokens[0:16:2], tokens[1:16:2], strict=True))
        assert len(known) == 8
        assert all(1 <= key < 32 <= value < 64 for key, value in known.items())
        assert len(set(known.values())) == 8
        asked = [place for place, label in enumerate(labels) if label != IGNORED]
        assert sorted(tokens[place] for place in asked) == sorted(known)
        assert all(labels[place] == known[tokens[place]] for place in asked)
        assert all(place >= 16 and place % 2 == 0 for place in asked)
        assert all(tokens[place] == 0 for place in range(16, 64) if place not in asked)


def test_mqar_asks_soon_more_often_than_late():
    data = MQAR(length=256, pairs=4, vocab_size=64)
    labels = batch_of(data, count=2000)["labels"]
    counts = (labels[:, 8::2] != IGNORED).float().mean(0)
    assert counts.sum() == pytest.approx(4)
    weights = np.arange(1, 125) ** -0.99
    # the first of four draws, and so a lower bound of each place's share
    assert counts[0] > weights[0] / weights.sum()
    assert counts[0] > counts[1] > counts[4] > counts[30] > 0


def test_mqar_filled_with_random_tokens():
    plain, filled = MQAR(pairs=4, vocab_size=64), MQAR(pairs=4, vocab_size=64, random_fill=True)
    first, second = batch_of(plain), batch_of(filled)
    stands = first["input_ids"] != 0
    assert torch.equal(first["input_ids"][stands], second["input_ids"][stands])
    assert torch.equal(first["labels"], second["labels"])
    assert (second["input_ids"][~stands] != 0).float().mean() > 0.95


def mixed(seed=0, **more):
    loading = Loading(batch_size=20, seed=seed)
    return MQAR(256, 16, vocab_size=64, mixture=[[64, 4], [128, 8]], samples=6000, loading=loading, **more)


def test_a_mixture_gives_each_length_its_pairs():
    pairs, counts = {64: 4, 128: 8, 256: 16}, dict.fromkeys((64, 128, 256), 0)
    for batch in mixed().train_dataloader():
        rows, length = batch["input_ids"].shape
        counts[length] += rows
        assert ((batch["labels"] != IGNORED).sum(1) == pairs[length]).all()
    assert sum(counts.values()) == 6000
    # 100 of 300 batches each; the standard deviation is 8
    assert all(abs(count / 20 - 100) < 33 for count in counts.values())


def test_a_mixtures_lengths_follow_the_seed_and_the_epoch():
    def lengths(data, epoch=0):
        return [data.load_batch("train", epoch, np.array([n]))["labels"].shape[1] for n in range(40)]

    assert lengths(mixed(seed=1)) == lengths(mixed(seed=1))
    assert lengths(mixed(seed=1)) != lengths(mixed(seed=2))
    assert lengths(mixed()) != lengths(mixed(), epoch=1)


def test_a_mixture_is_tested_at_each_length_and_validated_at_its_own():
    data = mixed(test_samples=5, val_samples=30)
    assert data.describe().for_model["test_lengths"] == [64, 128, 256]
    assert data.describe().counts["test"] == 15
    assert [batch["labels"].shape for batch in data.test_dataloader()] == [(5, 64), (5, 128), (5, 256)]
    assert {batch["labels"].shape[1] for batch in data.val_dataloader()} == {256}
    alone = MQAR(length=64, pairs=4, vocab_size=64, test_samples=5).load_batch("test", 0, np.arange(5))
    assert torch.equal(next(iter(data.test_dataloader()))["input_ids"], alone["input_ids"])


@pytest.mark.parametrize("task", [SelectiveCopying, InductionHeads])
def test_training_batches_of_several_lengths(task):
    data = task(length=64, train_lengths=[16, 32, 64], samples=400, val_samples=20, loading=Loading(batch_size=8))
    extra = data.extra_tokens
    assert {batch["labels"].shape[1] - extra for batch in data.train_dataloader()} == {16, 32, 64}
    assert {batch["labels"].shape[1] - extra for batch in data.val_dataloader()} == {64}
    assert {batch["labels"].shape[1] - extra for batch in data.test_dataloader()} == {64}


def test_different_numbers_in_random_order():
    found = chosen(hashed(np.arange(6000)), 1, 3, 4)
    assert all(len(set(row)) == 3 for row in found.tolist())
    orders, counts = np.unique(found, axis=0, return_counts=True)
    assert len(orders) == 24
    assert (abs(counts - 250) < 80).all()
    assert sorted(chosen(hashed(np.arange(1)), 1, 50, 50)[0].tolist()) == list(range(50))


DATA = {
    "copying": lambda seed=0, **more: SelectiveCopying(32, 4, samples=40, loading=Loading(8, seed=seed), **more),
    "induction": lambda seed=0, **more: InductionHeads(16, samples=40, loading=Loading(8, seed=seed), **more),
    "mqar": lambda seed=0, **more: MQAR(32, 4, samples=40, loading=Loading(8, seed=seed), **more),
}
SEVERAL = {"several lengths": lambda **more: DATA["mqar"](mixture=[[16, 2]], **more)}


@pytest.mark.parametrize("make", DATA.values(), ids=DATA)
def test_samples_follow_the_seed_and_the_epoch(make):
    def ids(data, split="train", epoch=0):
        return batch_of(data, split, epoch, 40)["input_ids"]

    assert torch.equal(ids(make(seed=1)), ids(make(seed=1)))
    assert not torch.equal(ids(make(seed=1)), ids(make(seed=2)))
    assert not torch.equal(ids(make()), ids(make(), epoch=1))
    assert torch.equal(ids(make(fresh=False)), ids(make(fresh=False), epoch=1))
    assert torch.equal(ids(make(seed=1), "val"), ids(make(seed=2), "val", epoch=3))
    parts = torch.cat([ids(make(), split) for split in ("train", "val", "test")])
    assert len(parts.unique(dim=0)) == 120


@pytest.mark.parametrize("make", (DATA | SEVERAL).values(), ids=DATA | SEVERAL)
def test_an_epoch_goes_on_where_it_stopped(make):
    whole = [batch["input_ids"] for batch in make(seed=5).train_dataloader()]
    loader = make(seed=5).train_dataloader()
    batches = iter(loader)
    next(batches)
    resumed = make(seed=5).train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    rest = [batch["input_ids"] for batch in resumed]
    assert len(whole) == 5
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[1:], strict=True))


def test_tests_at_several_lengths():
    data = InductionHeads(
        length=16, test_lengths=[16, 64, 256], test_samples=20, samples=16, loading=Loading(batch_size=8)
    )
    told = data.describe()
    assert (told.counts["test"], told.for_model["test_lengths"]) == (60, [16, 64, 256])
    shapes = [tuple(batch["input_ids"].shape) for batch in data.test_dataloader()]
    assert shapes == [(8, 16), (8, 16), (4, 16), (8, 64), (8, 64), (4, 64), *[(2, 256)] * 10]
    alone = InductionHeads(length=256, test_samples=20).load_batch("test", 0, np.arange(2))
    last = list(data.test_dataloader())[6]
    assert torch.equal(alone["input_ids"], last["input_ids"])


def test_settings():
    with pytest.raises(UserError, match=r"data\.data_tokens"):
        SelectiveCopying(length=8, data_tokens=9)
    with pytest.raises(UserError, match=r"data\.length and data\.pairs"):
        MQAR(length=64, pairs=17)
    with pytest.raises(UserError, match=r"data\.vocab_size"):
        MQAR(length=64, pairs=16, vocab_size=32)
    for mixture in ([[64, 4], [64, 8]], [[64]], [[256, 4]]):
        with pytest.raises(UserError, match=r"data\.mixture"):
            MQAR(length=256, pairs=16, mixture=mixture)
    with pytest.raises(UserError, match=r"length=64, pairs=32"):
        MQAR(length=256, pairs=16, mixture=[[64, 32]])
    with pytest.raises(UserError, match=r"data\.data_tokens"):
        SelectiveCopying(length=64, train_lengths=[64, 8])
    with pytest.raises(UserError, match=r"data\.test_lengths"):
        InductionHeads(test_lengths=[2])
    assert InductionHeads(loading=Loading(batch_size=8, limit=5)).describe().counts["train"] == 5
    assert "*" in InductionHeads().symbols().decode([3, 15, 4])
