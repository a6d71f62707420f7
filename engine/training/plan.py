"""What a run is going to do, in a dozen lines, before it does it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch

from ...core.errors import UserError
from ...core.ops import backends
from ...data.module import DataModule
from ...domains.task import Task
from ..command_line.config import Config
from .assembly import Parts
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


def plan_length(config: Config, data: DataModule) -> Length:
    """The run's optimizer steps, from the configuration and the number of training batches in an epoch."""
    settings, batch_size = config.trainer, data.loading.batch_size
    batches = len(data.train_dataloader())
    batches = min(batches, settings.limit_train or batches)
    batches = min(batches, settings.overfit or batches)
    if batches == 0:
        raise UserError("an epoch has no batch", given=f"data.batch_size={batch_size}", do="data.batch_size=1")
    steps = settings.epochs * ceil(batches / settings.accumulate)
    return Length(min(steps, settings.steps or steps), settings.epochs, batches, batch_size)


def resolve_backend(config: Config, hardware: Hardware) -> tuple[str, str]:
    """The backend of the core's operators for this run, and why."""
    return backends.resolve(hardware.device, hardware.dtype, config.model.get("backend") or "auto")


def write_plan(
    config: Config, parts: Parts, length: Length, hardware: Hardware, backend: tuple[str, str], folder: Path,
    scan_asked_for: bool, first_weights: str | None = None,
) -> str:  # fmt: skip
    """The plan, always the same lines in the same order.

    Args:
        scan_asked_for: True where the scan was named on the command line.
        first_weights: what training begins with; None: random weights.
    """
    model, scan = parts.model, parts.scan
    parameters = sum(each.numel() for each in model.parameters())
    size = config.model.get("size") or parts.describe.get("model_size")
    tokens, flops = getattr(model, "tokens", None), count_flops(parts.task, parts.data)
    asking = (
        f"{part}={values['name']}"
        for part, values in (("model", config.model), ("data", config.data))
        if "scan" in values.get("choose", {})
    )
    starts = next((f"what {each} asks for" for each in asking), f"what domain={config.domain} starts with")
    why = "asked for" if scan_asked_for else starts
    settings, memory = config.trainer, describe_memory(config, model, parts.description, length.batch_size)
    limit = f", at most {settings.time_limit}" if settings.time_limit else ""
    lines = {
        "domain": f"{config.domain}, task {config.task['_target_'].rpartition('.')[2]}",
        "data": parts.description.line,
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
        **({} if first_weights is None else {"begins": f"with the weights of {first_weights}"}),
        "folder": f"{folder}",
    }
    return "\n".join(f"  {name:<10} {text}" for name, text in lines.items())


def describe_scan(scan: Any) -> str:
    """A scan's name and parameters."""
    parameters = ", ".join(f"{name}={value}" for name, value in scan.parameters.items())
    return f"{scan.name}{f' {parameters}' if parameters else ''}"


def describe_optimizer(config: Config, length: Length) -> str:
    """Optimizer and schedule in one line."""
    settings, warmup = config.optimizer, warmup_steps(config.optimizer, length.steps)
    end = f" to {settings.lr * settings.final_lr:.2g}" if settings.schedule != "constant" else ""
    average = f", weight average {config.trainer.ema}" if config.trainer.ema else ""
    return (
        f"{settings.name}, lr {settings.lr:.3g} {settings.schedule}{end} after {warmup:,} warm-up steps, "
        f"weight decay {settings.weight_decay:g}{average}"
    )


def count_flops(task: Task, data: DataModule) -> int | None:
    """Floating point operations of one sample's forward pass; None where the model does not know.

    A model may know better itself (`flops(batch)`); otherwise matrix products and convolutions are counted while a sample
    passes.
    """
    model = task.model
    if hasattr(model, "flops"):
        return model.flops(1)
    from torch.utils.flop_counter import FlopCounterMode

    training, own = model.training, next(model.parameters())
    inputs = [
        each.to(own.device, own.dtype if each.is_floating_point() else None) if isinstance(each, torch.Tensor) else each
        for each in task.inputs(data.example())
    ]
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(*inputs)
    finally:
        model.train(training)
    return counter.get_total_flops()


def si(number: float) -> str:
    """A number with three figures and a prefix: 1234567 -> "1.23 M"."""
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {prefix}"
    return f"{number:.3g} "
