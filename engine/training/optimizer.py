"""The optimizer, its parameter groups and its learning-rate schedule.

By hand, because the rate has to be a formula of the step alone: the same however often a run was resumed.
"""

from __future__ import annotations

from fnmatch import fnmatch
from math import cos, pi

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ...core.errors import UserError
from ..command_line.config import OptimizerSettings

POWER = 0.9  # of the polynomial schedule, as DeepLab (arXiv 1606.00915) and nnU-Net have it
NEVER_DECAYED = ("A_log", "A_b_log", "D", "D_b", "dt_bias")


def build_optimizer(model: nn.Module, settings: OptimizerSettings, total_steps: int) -> tuple[Optimizer, LambdaLR]:
    """An optimizer over the model's trainable parameters and the schedule that moves once an optimizer step.

    Args:
        model: may name parameters in `no_weight_decay()` (full names or patterns) or mark them with `_no_weight_decay`; for
            `layer_decay` it says their layers in `group_matcher()`, as timm's do.
        settings: configs/optimizer.
        total_steps: optimizer steps of the whole run, from the configuration. Lightning's own estimate is not used: asking
            for it drops the state of a loader that is being resumed.
    """
    scales = {} if settings.layer_decay is None else layer_scales(model, settings.layer_decay)
    groups = []
    for parameters, decay in zip(parameter_groups(model), (settings.weight_decay, 0.0), strict=True):
        of_scale: dict[float, list[nn.Parameter]] = {}
        for name, parameter in parameters.items():
            of_scale.setdefault(scales.get(name, 1.0), []).append(parameter)
        groups += [
            {"params": params, "weight_decay": decay} | ({} if scale == 1 else {"lr": settings.lr * scale})
            for scale, params in sorted(of_scale.items())
        ]
    if settings.name == "sgd":
        momentum = settings.momentum or 0.0
        kind, more = torch.optim.SGD, {"momentum": momentum, "nesterov": bool(settings.nesterov and momentum)}
    else:
        kind, more = torch.optim.AdamW, {"betas": settings.betas, "eps": settings.eps}
    given = {name: value for name, value in more.items() if value is not None}
    optimizer = kind(groups, lr=settings.lr, fused=True, **given)
    return optimizer, LambdaLR(optimizer, lambda step: factor(step, settings, total_steps))


def parameter_groups(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Trainable parameters by name, (with, without) weight decay: vectors, scalars, A_log and D go without."""
    named = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    decayed, kept = {}, {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        without = (
            parameter.ndim <= 1
            or name.rpartition(".")[2] in NEVER_DECAYED
            or getattr(parameter, "_no_weight_decay", False)
            or any(name == pattern or fnmatch(name, pattern) for pattern in named)
        )
        (kept if without else decayed)[name] = parameter
    return decayed, kept


def layer_scales(model: nn.Module, decay: float) -> dict[str, float]:
    """What each parameter's learning rate is multiplied by: 1 in the last layer, `decay` times less in each one before it.

    Raises:
        UserError: the model does not say which layer a parameter belongs to.
    """
    if not hasattr(model, "group_matcher"):
        raise UserError(
            "this model does not say its layers", given=f"optimizer.layer_decay={decay}", allowed="null",
            do="give it timm's group_matcher()",
        )  # fmt: skip
    from timm.models._manipulate import group_with_matcher

    layers = group_with_matcher(model.named_parameters(), model.group_matcher(coarse=False), reverse=True)
    last = max(layers.values())
    return {name: decay ** (last - layer) for name, layer in layers.items()}


def factor(step: int, settings: OptimizerSettings, total_steps: int) -> float:
    """The learning rate of optimizer step `step` (the first is 0) as a fraction of settings.lr."""
    warmup = warmup_steps(settings, total_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    falling = (1 - progress) ** POWER if settings.schedule == "polynomial" else 0.5 * (1 + cos(pi * progress))
    return settings.final_lr + (1 - settings.final_lr) * falling


def warmup_steps(settings: OptimizerSettings, total_steps: int) -> int:
    """The number of warm-up steps: settings.warmup itself, or that fraction of all steps where it is below 1."""
    return round(settings.warmup * total_steps) if settings.warmup < 1 else int(settings.warmup)
