"""Models from a data set's description, and the model configs."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import polymamba.configs
from polymamba.core import scans
from polymamba.core.errors import UserError
from polymamba.domains.nlp.models.build import build
from polymamba.domains.nlp.models.classifier import TextClassifier

TEXT = {"vocab_size": 250, "length": 32, "model_size": "micro", "task": "language_modelling"}
LABELLED = {**TEXT, "task": "classification", "num_classes": 5}
CONFIGS = sorted((Path(polymamba.configs.__file__).parent / "nlp" / "model").glob("*.yaml"))


def target_of(config):
    if "transformer" in config._target_:
        pytest.importorskip("transformers")
    module, _, name = config._target_.rpartition(".")
    return getattr(import_module(module), name)


def test_there_are_configs():
    assert {path.stem for path in CONFIGS} >= {
        "mamba_lm", "mamba2_lm", "mamba3_lm", "hybrid_lm", "moe_mamba", "transformer_lm",
    }  # fmt: skip


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_keys_are_the_arguments_of_its_target(path):
    config = OmegaConf.load(path)
    keys = set(config) - {"_target_", "name", "card"}
    assert keys == set(inspect.signature(target_of(config)).parameters) - {"describe", "scan"}


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


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_makes_a_model_that_reads_token_by_token(path):
    torch.manual_seed(0)
    options = OmegaConf.to_container(OmegaConf.load(path))
    chosen = {key: value for key, value in options.items() if key not in ("_target_", "name", "card")}
    model = target_of(OmegaConf.load(path))(TEXT, **chosen).eval()
    assert 1e5 < model.flops(1) / 32 < 1e8
    text, states, pieces = torch.randint(0, 250, (2, 9)), None, []
    with torch.no_grad():
        whole, _ = model(text)
        for t in range(9):
            logits, states = model(text[:, t : t + 1], states)
            pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "size", "count"),
    [("mamba_lm", "130m", 129_135_360), ("mamba2_lm", "130m", 128_989_632), ("mamba2_lm", "370m", 368_346_624)],
)
def test_sizes_in_configs(name, size, count):
    options = OmegaConf.to_container(OmegaConf.load(next(path for path in CONFIGS if path.stem == name)))
    chosen = {key: value for key, value in options.items() if key not in ("_target_", "name", "size", "card")}
    with torch.device("meta"):
        model = build({**TEXT, "vocab_size": 50277}, size=size, **chosen)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
