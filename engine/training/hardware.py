"""Device, precision and threads of a run, each with its reason in words."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from ...core.errors import UserError
from ..command_line.config import TrainerSettings

LIGHTNING_PRECISION = {"32": "32-true", "bf16": "bf16-true", "bf16-autocast": "bf16-mixed"}


@dataclass(frozen=True)
class Hardware:
    """Where and how a run computes. dtype: what the scans see."""

    device: str
    device_reason: str
    precision: str
    precision_reason: str
    dtype: torch.dtype
    threads: int


def choose_hardware(settings: TrainerSettings) -> Hardware:
    """Resolves "auto" in the trainer's settings and sets the number of CPU threads.

    Raises:
        UserError: CUDA is asked for and not there, or several devices without torchrun.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device, reason = _device(settings)
    if settings.devices > 1 and int(os.environ.get("WORLD_SIZE", "1")) != settings.devices:
        raise UserError(
            "several devices need one process each", given=f"trainer.devices={settings.devices}",
            allowed=f"WORLD_SIZE={settings.devices}, as torchrun sets it",
            do=f"torchrun --nproc-per-node={settings.devices} train.py ...",
        )  # fmt: skip
    precision, precision_reason = _precision(settings.precision, device)
    dtype = torch.float32 if precision == "32" else torch.bfloat16
    return Hardware(device, reason, precision, precision_reason, dtype, torch.get_num_threads())


def _device(settings: TrainerSettings) -> tuple[str, str]:
    if settings.accelerator == "auto":
        if torch.cuda.is_available():
            return "cuda", torch.cuda.get_device_name(0)
        return "cpu", "no CUDA device here"
    if settings.accelerator == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "there is no CUDA device here", given="trainer.accelerator=cuda", allowed="auto, cpu", do="trainer.accelerator=auto"
        )  # fmt: skip
    return settings.accelerator, "asked for"


def _precision(asked: str, device: str) -> tuple[str, str]:
    if asked != "auto":
        return asked, "asked for"
    if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-autocast", "the GPU computes in bfloat16"
    return "32", "float32 is fastest on a CPU" if device == "cpu" else "the GPU has no bfloat16"
