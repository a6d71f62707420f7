"""Models from a data set's description, and the model configs."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest
import torch

from polymamba.core import scans
from polymamba.core.errors import UserError
from polymamba.domains.nlp.models.build import build
from polymamba.domains.nlp.models.classifier import TextClassifier
from polymamba.engine.command_line.compose import compose
from polymamba.engine.command_line.listing import entries

TEXT = {"vocab_size": 250, "length": 32, "model_size": "micro", "task": "language_modelling"}
LABELLED = {**TEXT, "task": "classification", "num_classes": 5}
NAMES = [model.name for model in entries("models") if "nlp" in model.domains]


def config_of(name):
    """What builds a model of that name, and the arguments of its config."""
    if "transformer" in name:
        pytest.importorskip("transformers")
    options = {**compose(["domain=nlp", f"model={name}"]).model}
    module, _, target = options.pop("_target_").rpartition(".")
    options.pop("name")
    return getattr(import_module(module), target), options


def test_there_are_configs():
    assert set(NAMES) >= {
        "mamba_lm", "mamba2_lm", "mamba3_lm", "hybrid_lm", "moe_mamba", "transformer_lm",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_config_keys_are_the_arguments_of_its_target(name):
    target, options = config_of(name)
    assert set(options) == set(inspect.signature(target).parameters) - {"describe", "scan"}


def test_the_data_set_chooses_the_size_and_the_user_overrides_it():
    assert build(TEXT).d_model == 128
    model = build(TEXT, d_model=64, n_layer=2)
    assert (model.d_model, len(model.layers), model.tokens) == (64, 2, 32)


def test_a_language_model_reads_forwards():
    build(TEXT, scan=scans.get("raster"), n_layer=1)
    with pytest.raises(UserError, match="scan=raster"):
        build(TEXT, scan=scans.get("bidirectional"))


def test_an_unknown_size_is_explained():
    with pytest.raises(UserError, match=r"model\.size=130m"):
        build(TEXT, size="130M")


@pytest.mark.parametrize("pool", ["mean", "last"])
@pytest.mark.parametrize("scan", ["raster", "bidirectional"])
def test_a_classifier_does_not_see_padding(pool, scan):
    torch.manual_seed(0)
    model = build(LABELLED, scan=scan, n_layer=2, d_model=32, pool=pool).double().eval()
    assert isinstance(model, TextClassifier)
    text = torch.randint(0, 250, (2, 9))
    expected = model(text)
    assert expected.shape == (2, 5)
    for left, right in ((3, 0), (0, 4), (2, 5)):
        padded = torch.nn.functional.pad(text, (left, right), value=7)
        seq_idx = torch.nn.functional.pad(torch.zeros_like(text), (left, right), value=-1)
        torch.testing.assert_close(model(padded, seq_idx), expected)
    assert not torch.allclose(model(torch.nn.functional.pad(text, (0, 4), value=7)), expected)


def test_a_bidirectional_classifier_sees_both_ends():
    torch.manual_seed(0)
    text = torch.randint(0, 250, (1, 9))
    for scan, sees in (("raster", False), ("bidirectional", True)):
        model = build(LABELLED, scan=scan, n_layer=1, d_model=32).eval()
        changed = text.clone()
        changed[:, -1] = (changed[:, -1] + 1) % 250
        first = [model.backbone(each)[0][:, 0] for each in (text, changed)]
        assert torch.equal(*first) != sees


@pytest.mark.parametrize("name", NAMES)
def test_every_config_makes_a_model_that_reads_token_by_token(name):
    torch.manual_seed(0)
    target, options = config_of(name)
    model = target(TEXT, **options).eval()
    assert 1e5 < model.flops(1) / 32 < 1e8
    text, states, pieces = torch.randint(0, 250, (2, 9)), None, []
    with torch.no_grad():
        whole, _ = model(text)
        for t in range(9):
            logits, states = model(text[:, t : t + 1], states)
            pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-4, atol=1e-4)
