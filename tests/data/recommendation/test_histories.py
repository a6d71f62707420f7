import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.recommendation import Sessions
from polymamba.data.recommendation.catalogue import Catalogue
from polymamba.data.recommendation.histories import TEST, TRAIN, VAL, Log, asked, leave_one_out, windows


def log(*sizes, length=None):
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    items = np.arange(1, offsets[-1] + 1)
    parts = leave_one_out(offsets)
    return Log(offsets, items, parts, Catalogue([str(each) for each in items], np.zeros(len(items) + 1)))


@pytest.mark.parametrize("length", [1, 2, 3, 50])
def test_every_training_event_but_the_first_is_a_target_once(length):
    events = log(1, 2, 3, 4, 9, 5)
    targets = [each for begin, end in windows(events, length) for each in range(begin + 1, end + 1)]
    expected = [
        place
        for user in range(6)
        for place in range(events.offsets[user] + 1, events.offsets[user + 1])
        if events.parts[place] == TRAIN
    ]
    assert sorted(targets) == expected
    assert all(0 < end - begin <= length for begin, end in windows(events, length))


def test_each_user_is_asked_for_the_last_event_and_the_one_before_it():
    events = log(1, 2, 3, 9)
    assert events.parts.tolist() == [0, 0, 0, TRAIN, VAL, TEST, *[TRAIN] * 7, VAL, TEST]
    assert asked(events, 4, TEST).tolist() == [[3, 5], [10, 14]]
    assert asked(events, 4, VAL).tolist() == [[3, 4], [9, 13]]


def data(**settings):
    return Sessions(**{"users": 50, "items": 20, "length": 9, "loading": Loading(batch_size=8), **settings})


def test_a_batch_is_what_the_log_says():
    sessions = data()
    sessions.setup()
    events = sessions.log
    for split in ("train", "val", "test"):
        batch = sessions.load_batch(split, 0, np.array([3, 17, 40]))
        for row, position in enumerate((3, 17, 40)):
            begin, end = sessions.splits[split][position]
            size = end - begin
            assert batch["items"][row, :size].tolist() == events.items[begin:end].tolist()
            assert not batch["items"][row, size:].any()
            scored = events.items[begin + 1 : end + 1].tolist()
            assert batch["targets"][row, :size].tolist() == (
                scored if split == "train" else [0] * (size - 1) + scored[-1:]
            )
            assert batch["times"][row, :size].tolist() == events.times[begin:end].tolist()
            user = np.searchsorted(events.offsets, begin, "right") - 1
            assert int(batch["group"][row]) == (end - events.offsets[user] >= 5)


def test_the_best_ranking_is_the_best_and_what_is_known_of_it_true():
    sessions = data(users=3000, noise=0.2)
    sessions.setup()
    end = sessions.splits["test"][:, 1]
    first = sessions.log.offsets[np.searchsorted(sessions.log.offsets, end - 1, "right") - 1]
    likely = sessions.probabilities(sessions.log.items[first], sessions.log.items[end - 1])
    np.testing.assert_allclose(likely.sum(1), 1)
    own = np.take_along_axis(likely, sessions.log.items[end, None], 1)[:, 0]
    sure = own > likely.min(1, initial=1, where=likely > 0)  # no ties
    ranks = 1 + (likely > own[:, None]).sum(1)
    by_hand = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0)
    assert sessions.best("test") >= by_hand[sure].sum() / len(ranks)
    assert sessions.best("test") <= by_hand.mean()
    # the frequencies are the probabilities: the likeliest follower comes as often as it should
    assert (ranks == 1).mean() == pytest.approx(likely.max(1).mean(), abs=0.03)


def test_what_is_kept_is_restored_and_renumbers_other_data(tmp_path):
    sessions = data()
    sessions.keep(tmp_path)
    other = data(items=30)
    other.restore(tmp_path)
    assert other.kept()["catalogue"].ids == sessions.catalogue.ids
    assert "events" not in other.kept()
    other.setup()
    assert other.log.unknown > 0
    assert other.log.items.max() <= 20
    np.testing.assert_array_equal(other.catalogue.counts, sessions.catalogue.counts)
    fresh = data()
    fresh.restore(tmp_path)
    fresh.setup()
    assert torch.equal(fresh.example(4)["items"], sessions.example(4)["items"])
    assert data().restore(tmp_path / "nothing") is None


@pytest.mark.parametrize("settings", [{"items": 7}, {"length": 3}, {"users": 0}])
def test_sizes_that_do_not_fit(settings):
    with pytest.raises(UserError, match="data"):
        data(**settings)
