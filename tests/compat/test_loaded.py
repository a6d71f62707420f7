"""Transformers' Mamba models: the same logits, gradients and tokens before and after install, also when imported before it."""

from __future__ import annotations

import pytest
import torch

from polymamba import compat
from polymamba.compat import convolution, duality, hf_mixers, scan

transformers = pytest.importorskip(
    "transformers", reason="transformers is in the extra: pip install 'polymamba[bench]'"
)

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
HEADS = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 60,
    "hidden_size": 32,
}
GROUPED = {"mamba_d_state": 8, "mamba_d_head": 8, "mamba_n_heads": 8, "mamba_n_groups": 2, "mamba_chunk_size": 16}
MODELS = {
    "Mamba": SMALL,
    "FalconMamba": SMALL,
    "Mamba2": SMALL | {"head_dim": 8, "num_heads": 8, "n_groups": 2, "chunk_size": 16},
    "Jamba": HEADS | {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 4},
    "Bamba": HEADS | GROUPED | {"num_hidden_layers": 2, "attn_layer_indices": [1]},
    "Zamba2": HEADS | {
        "num_hidden_layers": 2, "layers_block_type": ["mamba", "hybrid"], "mamba_d_state": 8, "mamba_headdim": 8,
        "n_mamba_heads": 8, "mamba_ngroups": 2, "chunk_size": 16, "num_mem_blocks": 1, "adapter_rank": 4,
    },
}  # fmt: skip


def run(model) -> dict[str, torch.Tensor]:
    """Logits, also behind padding, decoded tokens, and gradients of a training step."""
    ids = torch.randint(0, 60, (2, 21), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    model.eval()
    with torch.no_grad():
        found = {"logits": model(ids, use_cache=False).logits}
        found["behind padding"] = model(ids, attention_mask=mask, use_cache=False).logits[:, 5:]
        generated = model.generate(ids[:, :7], max_new_tokens=6, do_sample=False, pad_token_id=0)
    model.train()
    model(ids, labels=ids).loss.backward()
    found |= {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found | {"generated": generated}


def watched(name):
    """What a model must call of this core: whole mixers where there are some for it, else the functions of upstream."""
    if name in ("Mamba", "FalconMamba"):
        return (hf_mixers, "selective_scan"), (hf_mixers, "mamba_decode")
    if name == "Mamba2":
        return (duality, "state_space_duality"), (hf_mixers, "mamba2_decode")
    scanned = (scan, "selective_scan") if name == "Jamba" else (duality, "state_space_duality")
    return scanned, (convolution, "causal_conv1d")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_models_answer_the_same_through_this_core(name, monkeypatch):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**MODELS[name])
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    before = run(model)
    calls = []
    for module, function in watched(name):
        real = getattr(module, function)
        monkeypatch.setattr(module, function, lambda *a, r=real, f=function, **k: calls.append(f) or r(*a, **k))
    compat.install()
    try:
        after = run(model)
    finally:
        compat.uninstall()
    back = run(model)
    assert set(calls) == {function for _, function in watched(name)}, "the model still runs its own code"
    for key, expected in before.items():
        torch.testing.assert_close(after[key], expected, rtol=1e-3, atol=1e-4, msg=lambda m, key=key: f"{key}: {m}")
        assert torch.equal(back[key], expected), key
