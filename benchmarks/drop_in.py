"""transformers' MambaForCausalLM (768 wide, 24 layers) before and after compat.install(): the same model, in turn."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable

import torch

from ..core.errors import UserError
from .timing import compare, row

WIDTH, LAYERS = 768, 24
FORWARD_TOKENS, DECODED = 512, 32
# One step of transformers' own code at this length takes 15 minutes of one core: each of its time steps clears gradients of all
# time steps, and from 342 tokens on each of those is above 32 MiB, which glibc asks of the operating system anew.
TRAINING_TOKENS = 512
OWN, OURS = "its own code", "compat.install()"


def drop_in_suite(device: str):
    """The forward pass and decoding."""
    model = _model(device)
    if model is None:
        return
    ids = torch.randint(50_000, (1, FORWARD_TOKENS), device=device)
    with torch.no_grad():
        theirs = model(ids, use_cache=False).logits
        ours = _installed(lambda: model(ids, use_cache=False).logits)()
        measured = _in_turn(lambda: model(ids, use_cache=False), rounds=5)
        yield _row("drop_in", f"forward, {FORWARD_TOKENS} tokens", measured, **_differences(model, ids, theirs, ours))
        cache = model(ids[:, :16], use_cache=True).cache_params

        def decode():
            for token in range(16, 16 + DECODED):
                model(ids[:, token : token + 1], cache_params=cache, use_cache=True)

        yield _row("drop_in", f"decoding {DECODED} tokens", _in_turn(decode, rounds=9))


def _differences(model, ids, theirs, ours) -> dict[str, float]:
    """How far the logits of both are from each other and from those in float64; 24 random layers enlarge every rounding."""
    exact = _installed(lambda: copy.deepcopy(model).double()(ids, use_cache=False).logits)()
    return {
        "logits_deviate": float(exact.std()),
        "largest_difference_of_logits": float((theirs - ours).abs().max()),
        "ours_to_float64": float((ours - exact).abs().max()),
        "its_own_to_float64": float((theirs - exact).abs().max()),
    }


def drop_in_training_suite(device: str):
    """One training step, once: see TRAINING_TOKENS."""
    model = _model(device)
    if model is None:
        return
    ids = torch.randint(50_000, (1, TRAINING_TOKENS), device=device)

    def step(tokens=ids):
        model(tokens, labels=tokens).loss.backward()
        model.zero_grad()

    model.train()
    _in_turn(lambda: step(ids[:, :64]), rounds=1)
    _installed(step)()
    yield _row("drop_in_training", f"forward+backward, {TRAINING_TOKENS} tokens", _in_turn(step, rounds=1, warmup=0))


def _model(device: str):
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from transformers import MambaConfig, MambaForCausalLM
    except ImportError as reason:
        print(f"transformers left out: {reason}. Type: pip install 'polymamba[bench]'")
        return None
    torch.manual_seed(0)
    model = MambaForCausalLM(MambaConfig(hidden_size=WIDTH, num_hidden_layers=LAYERS, use_mambapy=False))
    return model.eval().to(device)


def _in_turn(call: Callable[[], object], rounds: int, warmup: int = 1):
    return compare({OWN: call, OURS: _installed(call)}, rounds, warmup)


def _installed(call: Callable[[], object]) -> Callable[[], object]:
    """The call between compat.install() and uninstall(), which take about 10 ms."""
    from .. import compat

    def run():
        if not compat.install():
            raise UserError("the real mamba_ssm and causal_conv1d are installed", do="measure where they are not")
        try:
            return call()
        finally:
            compat.uninstall()

    return run


def _row(suite: str, what: str, measured, **facts) -> dict:
    return row(suite, f"{what}, MambaForCausalLM, {WIDTH} wide, {LAYERS} layers", measured, OWN, OURS, **facts)
