"""Transformers' mixers run whole on this core: the same logits, the same cache, token by token, and their own code elsewhere."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from operators import relative_error

from polymamba import compat
from polymamba.compat import hf_mixers

transformers = pytest.importorskip(
    "transformers", reason="transformers is in the extra: pip install 'polymamba[bench]'"
)

SMALL = {"vocab_size": 60, "hidden_size": 40, "num_hidden_layers": 2, "state_size": 6}
HEADS = SMALL | {"head_dim": 8, "num_heads": 10, "n_groups": 2, "chunk_size": 16, "expand": 2}
MODELS = {
    "Mamba": ("Mamba", SMALL), "Mamba, biases": ("Mamba", SMALL | {"use_bias": True, "use_conv_bias": False}),
    "FalconMamba": ("FalconMamba", SMALL), "Mamba2": ("Mamba2", HEADS), "Mamba2, bias": ("Mamba2", HEADS | {"use_bias": True}),
}  # fmt: skip


@pytest.fixture
def steps(monkeypatch):
    """Whether each call for one token was answered by this core."""
    seen = []
    for name in ("mamba_decode", "mamba2_decode"):
        real = getattr(hf_mixers, name)
        monkeypatch.setattr(hf_mixers, name, lambda *a, r=real, **k: (f := r(*a, **k), seen.append(f is not None))[0])
    return seen


@pytest.fixture(autouse=True)
def _restored():
    with torch.no_grad():
        yield
    compat.uninstall()


def made(name, **options):
    kind, config = MODELS[name]
    torch.manual_seed(0)
    return getattr(transformers, f"{kind}ForCausalLM")(
        getattr(transformers, f"{kind}Config")(**config, **options)
    ).eval()


def decode(model, ids, mask=None, prefill=5):
    """Logits of every token after the first few, and the cache."""
    out = model(ids[:, :prefill], attention_mask=mask, use_cache=True)
    logits = [out.logits]
    cache = out.cache_params
    kept = [(layer.conv_states[0], layer.recurrent_states[0]) for layer in cache.layers]
    for t in range(prefill, ids.shape[1]):
        out = model(ids[:, t : t + 1], cache_params=cache, use_cache=True)
        logits.append(out.logits)
    for layer, before in zip(cache.layers, kept, strict=True):
        assert layer.conv_states[0] is before[0]
        assert layer.recurrent_states[0] is before[1]
    return torch.cat(logits, 1), [t for pair in kept for t in pair]


def assert_same(found, expected, tolerance):
    for one, other in zip((found[0], *found[1]), (expected[0], *expected[1]), strict=True):
        assert one.shape == other.shape
        assert relative_error(one, other) < tolerance


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 4e-2)])
@pytest.mark.parametrize("prefill", [1, 2, 5])
def test_token_by_token_with_the_same_cache(name, dtype, tolerance, prefill, steps):
    model = made(name).to(dtype)
    ids = torch.randint(0, 60, (3, 9))
    expected = decode(model, ids, prefill=prefill)
    assert not steps
    compat.install()
    found = decode(model, ids, prefill=prefill)
    assert steps
    assert all(steps)
    assert found[0].dtype == expected[0].dtype
    assert_same(found, expected, tolerance)
    assert "forward" not in vars(model.lm_head)
    compat.uninstall()
    assert torch.equal(decode(model, ids, prefill=prefill)[0], expected[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("epsilons", [(1.0, 1.0, 1.0), (1e-6, 1.0, 1e-6)])
def test_a_step_takes_the_norms_own_epsilons(epsilons, steps):
    model, ids = made("FalconMamba"), torch.randint(0, 60, (2, 9))
    for layer in model.backbone.layers:
        norms = layer.mixer.dt_layernorm, layer.mixer.b_layernorm, layer.mixer.c_layernorm
        for norm, eps in zip(norms, epsilons, strict=True):
            norm.eps = eps
    expected = decode(model, ids, prefill=3)
    compat.install()
    assert_same(decode(model, ids, prefill=3), expected, 2e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_padding_before_the_sequences(name, steps):
    model, ids = made(name), torch.randint(0, 60, (2, 9))
    mask = torch.ones(2, 5, dtype=torch.long)
    mask[0, :2] = 0
    expected = decode(model, ids, mask)
    compat.install()
    assert_same(decode(model, ids, mask), expected, 2e-5)
    assert all(steps)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_what_hears_of_its_parts_being_called_runs_its_own_code(name, steps):
    model, ids = made(name), torch.randint(0, 60, (2, 9))
    expected = decode(model, ids)
    compat.install()
    heard = []
    for layer in model.backbone.layers:
        layer.mixer.in_proj.register_forward_hook(lambda module, given, found: heard.append(found.shape))
    assert_same(decode(model, ids), expected, 2e-5)
    assert len(heard) == 2 * 5
    assert not steps


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_many_rows_and_other_activations(name, steps):
    compat.install()
    for model, rows in ((made(name), 7), (made(name, hidden_act="gelu"), 2)):
        ids = torch.randint(0, 60, (rows, 7))
        if rows == 2:
            with pytest.raises(Exception, match="unknown activation"):
                model(ids)
            continue
        found = decode(model, ids)
        compat.uninstall()
        assert_same(found, decode(model, ids), 2e-5)
        compat.install()
    assert not steps


LATER = """
import inspect, torch
from polymamba import compat
compat.install()
from transformers.models.{name} import modeling_{name} as module
mixer = module.{kind}Mixer
assert mixer.forward.__closure__ and mixer.forward.__module__ == module.__name__
assert "mix" in mixer.forward.__code__.co_name and "cache_params" in inspect.signature(mixer.forward).parameters
assert module.__spec__.loader is module.__loader__ and type(module.__loader__).__name__ == "SourceFileLoader"
assert "class {kind}Mixer" in inspect.getsource(module)
compat.uninstall()
assert mixer.forward.__code__.co_name != "mix"
print("good")
"""


@pytest.mark.parametrize(("name", "kind"), [("mamba", "Mamba"), ("mamba2", "Mamba2")])
def test_models_imported_after_install(name, kind):
    code = LATER.format(name=name, kind=kind)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "good\n", done.stderr
