"""What an answer rests on is where the values are that it was read from."""

import pytest
import torch
from torch.testing import assert_close

from polymamba.core.errors import UserError
from polymamba.domains.timeseries.explanation import READ, draw_explained, explain_windows
from polymamba.domains.timeseries.models import (
    bimamba_plus,
    cmamba,
    itransformer,
    linear,
    mamba_forecaster,
    mambaformer,
    mambats,
    smamba,
    timemachine,
)  # fmt: skip

DESCRIBE = {"name": "waves", "lookback": 24, "horizon": 6, "variables": 3, "mark_features": 0, "model_size": "micro"}
SMALL = {"d_model": 8, "n_layer": 1}
PATCHES = {"patch_len": 8, "stride": 4}
MADE = {
    "mamba_forecaster": lambda: mamba_forecaster.build(DESCRIBE, **SMALL, **PATCHES),
    "joint": lambda: mamba_forecaster.build(
        DESCRIBE, **SMALL, **PATCHES, joint=True, mixer="mamba2", mixer_options={"headdim": 8}
    ),
    "cmamba": lambda: cmamba.build(DESCRIBE, **SMALL, **PATCHES),
    "bimamba_plus": lambda: bimamba_plus.build(DESCRIBE, **SMALL, **PATCHES),
    "channel_mixing": lambda: bimamba_plus.build(DESCRIBE, **SMALL, **PATCHES, channel_mixing=True),
    "mambats": lambda: mambats.build(DESCRIBE, **SMALL, patch_len=8, stride=8),
    "mambaformer": lambda: mambaformer.build(DESCRIBE, **SMALL, n_heads=2, form="mamba"),
    "smamba": lambda: smamba.build(DESCRIBE, **SMALL),
    "classifier": lambda: mamba_forecaster.build(
        {**DESCRIBE, "num_classes": 2, "classes": ["a", "b"]}, **SMALL, **PATCHES
    ),
}


def windows(batch=2):
    return torch.randn(batch, 24, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", ["raw", "rollout", "attribution"])
@pytest.mark.parametrize("name", MADE)
def test_every_model_says_what_its_answers_rest_on(name, method):
    torch.manual_seed(0)
    model = MADE[name]().eval()
    found = explain_windows(model, windows(), method=method)
    shapes = [(2, 3, 24) if found.steps is not None else None, (2, 3, 3) if found.variables is not None else None]
    assert [None if each is None else tuple(each.shape) for each in found] == shapes
    assert any(each is not None and each.isfinite().all() for each in found)
    draw_explained(windows(), found, ["one", "two"], ["x", "y", "z"])


def test_parts_are_where_the_patches_are():
    model = mambats.build(DESCRIBE, **SMALL, patch_len=8, stride=8).eval()
    model.set_variable_order([2, 0, 1])
    # every token takes from one alone: the second patch of the variable that is walked first
    found = torch.zeros(1, 9, 9)
    found[:, :, 1] = 1
    parts, pairs = READ["both"](model, found, 1, 24, 3)
    assert_close(parts[0, 2, 8:16], torch.full((8,), 8 / 9 / 8))
    assert parts[0, 2, :8].sum() == parts[0, 2, 16:].sum() == parts[0, :2].sum() == 0
    assert_close(pairs[0], torch.tensor([[0.0, 0, 1], [0, 0, 1], [0, 0, 1]]))


def test_models_without_hidden_attention_are_refused():
    for model in (timemachine.build(DESCRIBE), linear.build(DESCRIBE)):
        with pytest.raises(UserError, match="neither steps nor variables"):
            explain_windows(model.eval(), windows())
    with pytest.raises(UserError, match="no Mamba or attention mixer"):
        explain_windows(itransformer.build(DESCRIBE).eval(), windows())
