"""The two ways of a cross scan that are timed against each other say the same."""

import pytest
import torch

from polymamba.benchmarks import vision


@pytest.mark.parametrize("grid", [(6, 6), (3, 5)])
def test_both_ways_say_the_same(monkeypatch, grid):
    """In path order delta, B and C of the copies are those of the tokens in the order of each path."""
    monkeypatch.setattr(vision, "GRID", grid)
    monkeypatch.setattr(vision, "CHANNELS", 4)
    given = vision.arguments(batch=2)
    order = vision.scans.get("cross").order(grid).long()
    along = {
        name: torch.stack([t[:, path, order[path]] for path in range(4)], 1) if name in ("delta", "B", "C") else t
        for name, t in given.items()
    }
    expected = vision.by_orders(**given)
    torch.testing.assert_close(vision.by_copies(**along), expected, rtol=1e-4, atol=1e-5)


def test_baselines_cost_what_their_papers_say():
    import timm

    for name, billions in (("deit_tiny_patch16_224", 1.26), ("convnext_atto", 0.55)):
        assert vision._flops(timm.create_model, name) / 2e9 == pytest.approx(billions, rel=0.03)
