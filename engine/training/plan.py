"""What a run is going to do, in a dozen lines, before it does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...core.errors import UserError
from ...core.ops import backends
from ..command_line.config import Config
from .hardware import Hardware
from .memory import describe_memory
from .optimizer import warmup_steps


@dataclass(frozen=True)
class Length:
    """How long training is: optimizer steps in all, and what they are made of."""

    steps: int
    epochs: int
    batches: int
    batch_size: int


def plan_length(config: Config, batches: int) -> Length:
    """The run's optimizer steps, from the configuration and the number of training batches in an epoch."""
    settings = config.trainer
    batches = min(batches, settings.limit_train or batches)
    batches = min(batches, settings.overfit or batches)
    if batches == 0:
        raise UserError(
            "an epoch has no batch", given=f"data.batch_size={config.data.get('batch_size')}", do="data.batch_size=1"
        )
    steps = settings.epochs * ceil(batches / settings.accumulate)
    return Length(min(steps, settings.steps or steps), settings.epochs, batches, config.data.get("batch_size", 1))


def resolve_backend(config: Config, hardware: Hardware) -> tuple[str, str]:
    """The backend of the core's operators for this run, and why."""
    return backends.resolve(hardware.device, hardware.dtype, config.model.get("backend") or "auto")


def write_plan(
    config: Config, describe: Mapping[str, Any], model: nn.Module, scan: Any, length: Length, hardware: Hardware,
    backend: tuple[str, str], folder: Path, typed: bool, begins: str | None = None,
) -> str:  # fmt: skip
    """The plan, always the same lines in the same order.

    Args:
        typed: True where the scan was named on the command line.
        begins: the weights that training begins with; None: random ones.
    """
    parameters = sum(each.numel() for each in model.parameters())
    size = config.model.get("size") or describe.get("model_size")
    tokens, flops = getattr(model, "tokens", None), count_flops(model, describe)
    chosen = "scan" in config.data.get("choose", {})
    starts = f"what data={config.data['name']} asks for" if chosen else f"what domain={config.domain} starts with"
    why = "asked for" if typed else starts
    settings, memory = config.trainer, describe_memory(config, model, describe)
    limit = f", at most {settings.time_limit}" if settings.time_limit else ""
    lines = {
        "domain": f"{config.domain}, task {config.task['_target_'].rpartition('.')[2]}",
        "data": describe_data(describe),
        "model": f"{config.model.get('name', type(model).__name__)}{f' {size}' if size else ''}, {parameters:,} parameters",
        "scan": f"{describe_scan(scan)} ({why})" if scan is not None else "none: this model has no scan",
        "compute": ", ".join(
            [
                f"{tokens:,} tokens" if isinstance(tokens, int) else "tokens unknown",
                f"{si(flops)}FLOPs" if flops else "FLOPs unknown",
            ]
        )
        + " a sample, forward",
        "training": f"{length.steps:,} steps: {length.epochs} epochs of {length.batches:,} batches of {length.batch_size}{limit}",
        "optimizer": describe_optimizer(config, length),
        "precision": f"{hardware.precision} ({hardware.precision_reason})",
        "backend": f"{backend[0]} ({backend[1]})",
        "device": f"{hardware.device} ({hardware.device_reason}), {hardware.threads} CPU threads",
        **({} if memory is None else {"memory": memory}),
        "seed": f"{config.seed}",
        **({} if begins is None else {"begins": f"with the weights of {begins}"}),
        "folder": f"{folder}",
    }
    return "\n".join(f"  {name:<10} {text}" for name, text in lines.items())


def describe_data(describe: Mapping[str, Any]) -> str:
    """Name, sizes and shape of a data set in one line."""
    counts = ", ".join(
        f"{describe[split]:,} {split}" for split in ("train", "val", "test") if describe.get(split) is not None
    )
    shape = ""
    if "image_size" in describe:
        shape = f"; {describe.get('channels', 1)}×{'×'.join(map(str, describe['image_size']))}"
    if "length" in describe:
        tokenizer = describe.get("tokenizer")
        shape = f"; {describe['length']:,} tokens" + (
            f" ({tokenizer.name}, {tokenizer.vocab_size:,})" if tokenizer else ""
        )
    classes = f", {describe['num_classes']} classes" if "num_classes" in describe else ""
    return f"{describe.get('name', 'data')}: {counts}{shape}{classes}"


def describe_scan(scan: Any) -> str:
    """A scan's name and parameters."""
    parameters = ", ".join(f"{name}={value}" for name, value in scan.parameters.items())
    return f"{scan.name}{f' {parameters}' if parameters else ''}"


def describe_optimizer(config: Config, length: Length) -> str:
    """Optimizer and schedule in one line."""
    settings, warmup = config.optimizer, warmup_steps(config.optimizer, length.steps)
    end = f" to {settings.lr * settings.final_lr:.2g}" if settings.schedule == "cosine" else ""
    average = f", weight average {config.trainer.ema}" if config.trainer.ema else ""
    return (
        f"{settings.name}, lr {settings.lr:.3g} {settings.schedule}{end} after {warmup:,} warm-up steps, "
        f"weight decay {settings.weight_decay:g}{average}"
    )


def count_flops(model: nn.Module, describe: Mapping[str, Any]) -> int | None:
    """Floating point operations of one sample's forward pass; None where the sample's shape is not known.

    A model may know better itself (`flops(batch)`); otherwise matrix products and convolutions are counted while a
    sample of zeros passes.
    """
    if hasattr(model, "flops"):
        return int(model.flops(1))
    if "image_size" not in describe:
        return None
    from torch.utils.flop_counter import FlopCounterMode

    training = model.training
    parameter = next(model.parameters())
    sample = torch.zeros(
        1, describe.get("channels", 3), *describe["image_size"], device=parameter.device, dtype=parameter.dtype
    )
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(sample)
    finally:
        model.train(training)
    return counter.get_total_flops()


def si(number: float) -> str:
    """A number with three figures and a prefix: 1234567 -> "1.23 M"."""
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {prefix}"
    return f"{number:.3g} "
