"""Which tokens may be drawn, and how often."""

from __future__ import annotations

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.nlp.sampling import Sampling

PROBABILITIES = torch.tensor([0.05, 0.4, 0.3, 0.2, 0.05])


def frequencies(scores, draws=4000, seen=None, **options):
    """How often each token is chosen when the draws are evenly spaced."""
    rows = scores.expand(draws, -1)
    uniform = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    seen = None if seen is None else seen.expand(draws, -1)
    chosen = Sampling(**options).choose(rows, seen, uniform)
    return chosen.bincount(minlength=scores.shape[-1]) / draws


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"top_k": 2}, [1, 2]),
        ({"top_p": 0.75}, [1, 2, 3]),
        ({"top_p": 0.69}, [1, 2]),
        ({"top_p": 0.01}, [1]),
        ({"min_p": 0.45}, [1, 2, 3]),
        ({"min_p": 1.0}, [1]),
        ({"top_k": 3, "top_p": 0.7}, [1, 2]),  # 0.4 / 0.9 and 0.7 / 0.9: renormalised after top_k
        ({"temperature": 0.0}, [1]),
        ({"temperature": 1e-30}, [1]),
        ({"top_k": 100}, [0, 1, 2, 3, 4]),
    ],
)
def test_frequencies_are_the_renormalised_probabilities(options, kept):
    expected = torch.zeros(5)
    expected[kept] = PROBABILITIES[kept] / PROBABILITIES[kept].sum()
    torch.testing.assert_close(frequencies(PROBABILITIES.log(), **options), expected, atol=1e-3, rtol=0)


def test_temperature_sharpens_and_flattens():
    for temperature in (0.5, 2.0):
        expected = (PROBABILITIES.log() / temperature).softmax(-1)
        found = frequencies(PROBABILITIES.log(), temperature=temperature)
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_repetition_is_penalised_on_both_sides_of_zero():
    scores, seen = torch.tensor([2.0, -1.0, 2.0, -1.0]), torch.tensor([True, True, False, False])
    expected = torch.tensor([1.0, -2.0, 2.0, -1.0]).softmax(-1)
    torch.testing.assert_close(frequencies(scores, seen=seen, repetition_penalty=2.0), expected, atol=1e-3, rtol=0)


def test_top_p_looks_past_its_first_candidates():
    scores = torch.zeros(600)
    scores[7] = 0.5
    found = frequencies(scores, draws=6000, top_p=0.5)
    assert 298 <= int((found > 0).sum()) <= 302
    assert found[7] > 0


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.2}])
def test_ends_of_the_draw_and_impossible_tokens(options):
    scores = torch.tensor([[-torch.inf, 0.0, 1.0, 0.5, -torch.inf]]).expand(2, -1)
    draws = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    chosen = Sampling(**options).choose(scores, None, draws).tolist()
    assert set(chosen) <= {1, 2, 3}


@pytest.mark.parametrize(
    "options",
    [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.5}, {"min_p": -0.1}, {"top_k": -1}, {"repetition_penalty": 0}],
)
def test_values_out_of_range(options):
    with pytest.raises(UserError, match=next(iter(options))):
        Sampling(**options)
