"""Language models: decoding against reading the weights."""

from __future__ import annotations

import copy

import torch

from ..domains.nlp.models.language_model import LanguageModel
from .timing import compare, row

WIDTH, LAYERS, VOCABULARY = 768, 24, 50277


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
