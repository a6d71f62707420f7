"""Language models: decoding against reading the weights, and transformers' Mamba before and after compat.install()."""

from __future__ import annotations

import copy
import os
import statistics
import time

import torch

from ...core.errors import UserError
from ...domains.nlp.models.language_model import LanguageModel
from .timing import compare, row

WIDTH, LAYERS, VOCABULARY = 768, 24, 50277
# What transformers' own code takes minutes for is measured on this many tokens.
FORWARD_TOKENS, TRAINING_TOKENS, DECODED = 512, 256, 16


def decode_suite(device: str):
    """One token of a model of 130m size against a plain read of its float32 weights."""
    if device != "cpu":
        return
    torch.manual_seed(0)
    for mixer in ("mamba", "mamba2"):
        model = LanguageModel(VOCABULARY, WIDTH, LAYERS, mixer).eval()
        single, half = _stepper(model), _stepper(model, torch.bfloat16)
        weights = torch.randn(sum(p.numel() for p in model.parameters()))
        measured = compare(
            {"reading the weights": weights.sum, "float32": single, "bfloat16": half}, rounds=25, warmup=3
        )
        case = f"one token, {mixer} of 130m size"
        for kind in ("float32", "bfloat16"):
            bandwidth = weights.nbytes / measured.median("reading the weights") / 1e9
            yield row("decode", case, measured, kind, "reading the weights", gigabytes_per_second=round(bandwidth, 2))


def _stepper(model: LanguageModel, dtype: torch.dtype | None = None):
    """A call that reads one token, from the state after another one."""
    if dtype is not None:
        model = copy.deepcopy(model).to(dtype)
    token = torch.randint(VOCABULARY, (1, 1))
    with torch.inference_mode():
        _, states = model(token)

    def step():
        with torch.inference_mode():
            return model(token, states)

    return step


def drop_in_suite(device: str):
    """transformers' MambaForCausalLM (768 wide, 24 layers), the same model before and after compat.install()."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from transformers import MambaConfig, MambaForCausalLM
    except ImportError as reason:
        print(f"transformers left out: {reason}. Type: pip install 'polymamba[bench]'")
        return
    from ... import compat

    torch.manual_seed(0)
    model = MambaForCausalLM(MambaConfig(hidden_size=WIDTH, num_hidden_layers=LAYERS, use_mambapy=False)).to(device)
    ids = torch.randint(50_000, (1, FORWARD_TOKENS), device=device)
    own = _run_transformers(model, ids)
    if not compat.install():
        raise UserError("the real mamba_ssm and causal_conv1d are installed", do="measure where they are not")
    try:
        _run_transformers(model, ids[:, :64])
        ours = _run_transformers(model, ids)
    finally:
        compat.uninstall()
    difference = float((own.pop("logits") - ours.pop("logits")).abs().max())
    for what, seconds in own.items():
        yield {
            "suite": "drop_in", "case": f"{what}, MambaForCausalLM, {WIDTH} wide, {LAYERS} layers", "what": "its own code",
            "against": "compat.install()", "ratio": round(seconds / ours[what], 4), "ms": round(1e3 * seconds, 3),
            "against_ms": round(1e3 * ours[what], 3), "rounds": 1, "largest_difference_of_logits": difference,
        }  # fmt: skip


def _run_transformers(model, ids) -> dict:
    """Seconds of a forward pass, a training step and a decoded token; the logits of the forward pass."""
    found, model = {}, model.eval()
    with torch.no_grad():
        begin = time.perf_counter()
        found["logits"] = model(ids, use_cache=False).logits
        found[f"forward, {ids.shape[1]} tokens"] = time.perf_counter() - begin
        out = model(ids[:, :16], use_cache=True)
        seconds = []
        for _ in range(DECODED):
            token = out.logits[:, -1:].argmax(-1)
            begin = time.perf_counter()
            out = model(token, cache_params=out.cache_params, use_cache=True)
            seconds.append(time.perf_counter() - begin)
    found["decoding a token"] = statistics.median(seconds)
    some = ids[:, :TRAINING_TOKENS]
    begin = time.perf_counter()
    model.train()(some, labels=some).loss.backward()
    found[f"forward+backward, {some.shape[1]} tokens"] = time.perf_counter() - begin
    model.zero_grad()
    return found
