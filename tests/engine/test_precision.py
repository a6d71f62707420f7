"""Every model trains in every precision that may be asked for."""

import math

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.engine.checkpoints import folder as files
from polymamba.engine.command_line.compose import compose
from polymamba.engine.command_line.groups import Groups
from polymamba.engine.training.run import train

MODELS = {name: domain for domain in Groups().domains for name in Groups().options("model", domain)}
SMALL = {
    "nlp": (
        "data=text_file", "data.files=sums.txt", "data.length=32", "data.batch_size=4", "data.tokenizer=bytes",
        "model.d_model=32", "model.n_layer=4", "task.sample=8",
    ),
    "vision": ("data=digits", "model.embed_dim=32", "model.depth=2", "trainer.limit_train=3", "trainer.limit_val=1"),
}  # fmt: skip
COMMON = ("trainer.progress=none", "trainer.steps=2", "trainer.limit_test=1", "trainer.pictures=false")


@pytest.fixture(scope="module")
def losses():
    """The test loss in float32, by model."""
    return {}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLYMAMBA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "sums.txt").write_text("".join(f"{i} and {i + 1} make {2 * i + 1}.\n" for i in range(60)))

    def start(model, precision):
        domain = MODELS[model]

        typed = [f"domain={domain}", f"model={model}", *SMALL[domain], *COMMON, f"trainer.precision={precision}"]
        result = train(compose(typed), say=lambda text: None, arguments=typed)
        assert torch.get_default_dtype() == torch.float32
        return result

    return start


@pytest.mark.parametrize("precision", ["bf16", "bf16-autocast"])
@pytest.mark.parametrize("model", MODELS)
def test_a_model_trains_in_bfloat16_as_in_float32(model, precision, run, losses):
    if model not in losses:
        losses[model] = run(model, "32").metrics["test/loss"]
    result = run(model, precision)
    assert math.isclose(result.metrics["test/loss"], losses[model], rel_tol=0.03)
    weights = files.read_weights((result.folder / "checkpoints" / "last").resolve())
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_precision_that_is_not_known_is_named():
    with pytest.raises(UserError, match=r"trainer\.precision"):
        compose(["trainer.precision=16"])
