"""Every model trains in every precision that may be asked for."""

import math

import pytest
import torch
from domains_under_test import NAMES, packaged

from polymamba.engine.checkpoints import folder as files
from polymamba.engine.command_line.compose import compose
from polymamba.engine.training.run import train

DEFAULTS = {name: compose([f"domain={name}"]).model["name"] for name in NAMES}
# The models that the domains begin with; the others wait for `make test-all`.
MODELS = [
    pytest.param(name, model, marks=[] if model == DEFAULTS[name] else pytest.mark.slow, id=f"{name}-{model}")
    for name in NAMES
    for model in packaged(name).models()
]
COMMON = (
    "trainer.progress=none",
    "trainer.steps=2",
    "trainer.limit_test=1",
    "trainer.pictures=false",
)

# Weights in bfloat16 have no place for steps of 1e-4 between two of their values: that is not looked at.
RATES = {"bf16": "1e-6", "bf16-autocast": "1e-4"}


@pytest.fixture(scope="module")
def losses():
    """The test loss in float32, by model and learning rate."""
    return {}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLYMAMBA_CACHE", str(tmp_path / "cache"))

    def start(domain, model, precision, rate):
        found = packaged(domain)
        getattr(found.crossing, "prepare", lambda folder: None)(tmp_path)
        further = getattr(found.crossing, "MODELS", {}).get(model, ())
        typed = [
            *found.chosen,
            f"model={model}",
            *found.crossing.SHORT,
            *further,
            *COMMON,
            f"optimizer.lr={rate}",
            f"trainer.precision={precision}",
        ]
        result = train(compose(typed), say=lambda text: None, arguments=typed)
        assert torch.get_default_dtype() == torch.float32
        return result

    return start


@pytest.mark.parametrize("precision", ["bf16", "bf16-autocast"])
@pytest.mark.parametrize(("domain", "model"), MODELS)
def test_a_model_trains_in_bfloat16_as_in_float32(domain, model, precision, run, losses):
    rate = RATES[precision]
    if (domain, model, rate) not in losses:
        losses[domain, model, rate] = run(domain, model, "32", rate).metrics["test/loss"]
    result = run(domain, model, precision, rate)
    assert math.isclose(result.metrics["test/loss"], losses[domain, model, rate], rel_tol=0.03)
    weights = files.read_weights((result.folder / "checkpoints" / "last").resolve())
    assert all(tensor.isfinite().all() for tensor in weights.values())
