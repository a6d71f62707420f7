"""Whether a run fits into memory, from the sizes of its parts and before they are made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import nn

from ...core.errors import UserError
from ...data.module import Description
from ..command_line.config import Config

FLOAT = 4  # bytes of a float32
ORDER = 24  # bytes of a sample in the order of an epoch: a position, a hash, a place
LARGE = 0.5  # share of the free memory from which on a run's need is worth a line
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Need:
    """Bytes that a run takes at the least.

    Args:
        parameters: how many numbers the model learns.
        model: weights, and in training their gradients, what the optimizer remembers of them and their average.
        batch: a batch, and in training what the backward pass needs of it. states: the part of it that mixers' states are.
        order: the order of an epoch's samples.
        samples: in a batch.
    """

    parameters: int
    model: int
    batch: int
    states: int
    order: int
    samples: int

    @property
    def total(self) -> int:
        return self.model + self.batch + self.order


def need(config: Config, model: nn.Module, description: Description, batch_size: int | None) -> Need:
    """What a run needs at the least.

    Args:
        model: may be on the meta device.
        batch_size: samples in a training batch; None: it does not train.
    """
    parameters = sum(each.numel() for each in model.parameters())
    copies = 1
    if batch_size:
        remembered = 2 if config.optimizer.name == "adamw" else int(bool(config.optimizer.momentum))
        copies += 1 + remembered + int(config.trainer.ema is not None)
    trained_on = description.counts.get("train", 1)
    samples = min(batch_size, trained_on) if batch_size else 1
    own = getattr(model, "tokens", None)
    tokens = max(description.length, own if isinstance(own, int) else 0)
    batch, states = samples * FLOAT * (description.values + tokens), 0
    if batch_size:
        size = FLOAT if config.trainer.precision in ("auto", "32") else 2
        checkpointing = bool(config.model.get("checkpointing"))
        batch += samples * tokens * size * _kept_of_a_token(model, checkpointing)
        states = samples * FLOAT * _kept_states(model, checkpointing)
        batch += states
    order = ORDER * trained_on if batch_size else 0
    return Need(parameters, FLOAT * parameters * copies, batch, states, order, samples)


def check_memory(config: Config, model: nn.Module, description: Description, batch_size: int | None) -> None:
    """Compares what a run needs at the least with what is free; arguments as of `need`.

    Raises:
        UserError: it cannot fit; the message says what takes how much and what to make smaller.
    """
    asked, free = need(config, model, description, batch_size), free_memory(config)
    if asked.total <= free:
        return
    room = free - asked.model - asked.order
    fitting = asked.samples * max(room, 0) // max(asked.batch, 1)
    if room <= 0:
        smaller = "a smaller model.size" if "size" in config.model else "a smaller model"
        do = f"{smaller}, or a machine with more memory"
    elif fitting:
        do = f"data.batch_size={fitting} or less, with trainer.accumulate for the same steps"
    elif asked.states > asked.batch / 2:
        do = "a smaller model.d_state"
    else:
        smaller = f"a smaller {description.resized_by}" if description.resized_by else "smaller samples"
        do = f"{smaller}, or model.checkpointing=true where the model has it"
    parts = {"the model": asked.model, f"a batch of {asked.samples:,}": asked.batch, "the samples' order": asked.order}
    raise UserError(
        "this run needs more memory than there is",
        given=f"{asked.parameters:,} parameters; "
        + ", ".join(f"{size / 2**30:,.1f} GiB for {name}" for name, size in parts.items() if size > 0.01 * asked.total),
        allowed=f"{free / 2**30:,.1f} GiB are free, {asked.total / 2**30:,.1f} GiB is the least it takes",
        do=do,
    )


def describe_memory(config: Config, model: nn.Module, description: Description, batch_size: int) -> str | None:
    """What training needs at the least, in a line; None where there is plenty."""
    asked, free = need(config, model, description, batch_size).total, free_memory(config)
    return (
        f"at least {asked / 2**30:,.1f} GiB of the {free / 2**30:,.1f} GiB that are free"
        if asked > LARGE * free
        else None
    )


def free_memory(config: Config) -> int:
    """Bytes that a new process can get where the run will compute, a container's limit kept to."""
    if config.trainer.accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    free = psutil.virtual_memory().available
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        cached = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, int(limit) - used + int(cached.get("inactive_file", 0)))


def _kept_states(model: nn.Module, checkpointing: bool) -> int:
    """Numbers of a state along each path of a sequence: mixers keep one a chunk, so one at the least, for the backward pass."""
    stateful = (m for m in model.modules() if hasattr(m, "d_inner") and hasattr(m, "d_state"))
    sizes = [m.d_inner * m.d_state * getattr(m, "paths", 1) for m in stateful]
    return max(sizes, default=0) if checkpointing else sum(sizes)


def _kept_of_a_token(model: nn.Module, checkpointing: bool) -> int:
    """Numbers that the backward pass needs of a token at the least: what each projection puts out."""
    layers: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            layer = name.partition("layers.")[2].partition(".")[0]
            layers[layer] = layers.get(layer, 0) + module.out_features
    return max(layers.values(), default=0) if checkpointing else sum(layers.values())
