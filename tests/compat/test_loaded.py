"""Transformers' Mamba models: the same logits, gradients and tokens before and after install, also when imported before it."""

from __future__ import annotations

import pytest
import torch

from polymamba import compat
from polymamba.compat import duality, hf_mixers

transformers = pytest.importorskip(
    "transformers", reason="transformers is in the extra: pip install 'polymamba[bench]'"
)

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
MODELS = {
    "Mamba": SMALL,
    "FalconMamba": SMALL,
    "Mamba2": SMALL | {"head_dim": 8, "num_heads": 8, "n_groups": 2, "chunk_size": 16},
}


def run(model) -> dict[str, torch.Tensor]:
    """Logits, decoded tokens, and gradients of a training step."""
    ids = torch.randint(0, 60, (2, 21), generator=torch.Generator().manual_seed(0))
    model.eval()
    with torch.no_grad():
        found = {"logits": model(ids, use_cache=False).logits}
        generated = model.generate(ids[:, :7], max_new_tokens=6, do_sample=False, pad_token_id=0)
    model.train()
    model(ids, labels=ids).loss.backward()
    found |= {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    return found | {"generated": generated}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_models_answer_the_same_through_this_core(name, monkeypatch):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**MODELS[name])
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    before = run(model)
    calls = []
    whole = {"Mamba2": (duality, "state_space_duality")}.get(name, (hf_mixers, "selective_scan"))
    for module, function in (whole, (hf_mixers, "mamba2_step" if name == "Mamba2" else "mamba_step")):
        real = getattr(module, function)
        monkeypatch.setattr(module, function, lambda *a, r=real, f=function, **k: calls.append(f) or r(*a, **k))
    compat.install()
    try:
        after = run(model)
    finally:
        compat.uninstall()
    back = run(model)
    assert len(set(calls)) == 2, "the model still runs its own code"
    for key, expected in before.items():
        torch.testing.assert_close(after[key], expected, rtol=1e-3, atol=1e-4, msg=lambda m, key=key: f"{key}: {m}")
        assert torch.equal(back[key], expected), key
