import math

import pytest

from polymamba.core.errors import UserError, closest_key
from polymamba.core.mixers import Mamba, Mamba2, Mamba3
from polymamba.core.ranges import Count, OutOfRange, Positive, Rate, Size, check, checked


@checked(group="model")
def thing(
    size: Size, count: Count | None = None, rate: Rate = 0.0, scales: list[Positive] | None = None, other: str = "x"
):
    return size, count, rate, scales, other


def test_what_is_inside_passes():
    assert thing(1, 0, 0.5, [1, 2.5], other="y") == (1, 0, 0.5, [1, 2.5], "y")
    assert thing(2, None, rate=0) == (2, None, 0, None, "x")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 0}, "model.size is out of range"),
        ({"size": 2**31}, "2,147,483,647"),
        ({"size": True}, "model.size has the wrong type"),
        ({"size": 1.0}, "model.size has the wrong type"),
        ({"size": "1"}, "a whole number"),
        ({"size": 10**500}, "501 digits"),
        ({"size": 1, "count": -1}, "model.count is out of range"),
        ({"size": 1, "rate": 1}, "0 to below 1"),
        ({"size": 1, "rate": math.nan}, "model.rate is out of range"),
        ({"size": 1, "scales": [1.0, math.inf]}, "above 0"),
        ({"size": 1, "scales": [0]}, "above 0"),
    ],
)
def test_what_is_outside_is_named(options, said):
    with pytest.raises(OutOfRange) as error:
        thing(**options)
    assert said in str(error.value)


def test_a_hint_without_a_range_allows_everything():
    check(-1, int, "x")
    check("auto", Size | str, "x")


@pytest.mark.parametrize("mixer", [Mamba, Mamba2, Mamba3])
@pytest.mark.parametrize(
    "wrong", [{"d_state": 0}, {"d_state": -4}, {"expand": 0}, {"dt_min": math.nan}, {"d_model": 0}]
)
def test_mixers_keep_to_their_ranges(mixer, wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        mixer(**{"d_model": 64, **wrong})


def test_the_last_word_of_a_key_decides():
    known = ["logger", "optimizer.lr", "trainer.log_every", "model.d_state", "model"]
    assert closest_key("lr", known) == "optimizer.lr"
    assert closest_key("optimiser.lr", known) == "optimizer.lr"
    assert closest_key("modle.d_stat", known) == "model.d_state"
    assert closest_key("modle", known) == "model"
    assert closest_key("xqzw", known) is None
