"""What the original implementations answered to weights that follow from each tensor's name and shape alone (tests/golden).

A model with the same key names, filled the same way and given the same input, must return the same numbers.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(os.environ.get("POLYMAMBA_GOLDEN", Path(__file__).resolve().parent.parent / "golden"))
SAMPLES = 2048
DECAYS, SKIPS = ("A_log", "A_logs", "A_b_log", "A_s_log"), ("D", "Ds", "D_b", "D_s")


def value(name: str, like: Tensor) -> Tensor:
    """The numbers of a tensor of that name and shape, of the size that such a parameter usually has."""
    generator, shape, last = (
        torch.Generator().manual_seed(zlib.crc32(name.encode())),
        like.shape,
        name.rsplit(".", 1)[-1],
    )
    noise = torch.randn(shape, generator=generator) if shape else torch.randn(1, generator=generator)[0]
    low = name.lower()
    if last in DECAYS or low.endswith("a_log"):
        rates = torch.arange(1, shape[-1] + 1).float() if len(shape) > 1 else torch.linspace(1, 8, max(shape[0], 1))
        return rates.log().expand(shape) + 0.05 * noise
    if last in SKIPS:
        return 1 + 0.1 * noise
    if ("dt" in low and "bias" in low) or last == "dt_bias":
        return -3 + 0.5 * noise
    if last == "running_var":
        return 1 + 0.1 * noise.abs()
    if last in ("running_mean", "bias") or (len(shape) <= 1 and "norm" not in low and last != "weight"):
        return 0.1 * noise
    if len(shape) <= 1:
        return 1 + 0.1 * noise
    return noise / (like.numel() / shape[0]) ** 0.5


@torch.no_grad()
def fill(model: nn.Module, rename: Callable[[str], str] = str, aliases: dict[str, str] | None = None) -> nn.Module:
    """The model with `value` in every floating point tensor, in eval mode.

    Args:
        rename: this model's key -> the original's.
        aliases: a record's meta["aliases"], where one tensor has several names.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            original = rename(name)
            tensor.copy_(value((aliases or {}).get(original, original), tensor).to(tensor.dtype))
    return model.eval()


def seeded(*shape: int, seed: int = 1234, low: int = 0, high: int | None = None) -> Tensor:
    """A record's input: normal numbers, or whole ones from `low` to below `high`."""
    generator = torch.Generator().manual_seed(seed)
    if high is None:
        return torch.randn(shape, generator=generator)
    return torch.randint(low, high, shape, generator=generator)


def meta_of(name: str) -> dict:
    """Where a record comes from: repository, commit, class, arguments, keys, parameters."""
    return json.loads(str(np.load(FOLDER / f"{name}.npz")["meta"]))


def weights(name: str) -> dict[str, Tensor]:
    """The original's state dict as it was filled for a record, under its own names: for what loads published files."""
    return {key: value(key, torch.empty(shape)) for key, shape in meta_of(name)["state"].items()}


def compare(
    name: str, outputs: Tensor | Sequence, model: nn.Module | None = None, rename: Callable[[str], str] = str
) -> dict:
    """The relative error of each output's samples; with a model also what differs in keys, shapes and parameter count."""
    record, meta = np.load(FOLDER / f"{name}.npz"), meta_of(name)
    given = [t for t in (outputs if isinstance(outputs, (list, tuple)) else [outputs]) if torch.is_tensor(t)]
    errors = []
    for number, output in enumerate(given):
        # Behind the samples stand the norm and the mean of all.
        found, expected = _samples(output), record[f"out{number}"][:-2]
        errors.append(float(np.linalg.norm(found - expected) / (np.linalg.norm(expected) + 1e-12)))
    result = {"errors": errors}
    if model is not None:
        mine, theirs = {rename(key): list(t.shape) for key, t in model.state_dict().items()}, meta["state"]
        result["missing"] = [key for key in theirs if key not in mine]
        result["extra"] = [key for key in mine if key not in theirs]
        result["shapes"] = [key for key in mine if key in theirs and theirs[key] != mine[key]]
        result["parameters"] = (sum(p.numel() for p in model.parameters()), meta["parameters"])
    return result


def _samples(output: Tensor) -> np.ndarray:
    flat = output.detach().float().flatten()
    kept = torch.linspace(0, flat.numel() - 1, min(flat.numel(), SAMPLES)).round().long()
    return flat[kept].numpy()
