"""Forecasters: a training step and a forecast against iTransformer, PatchTST and DLinear, over look-backs and variables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import nn

from ..domains.timeseries.models import cmamba, itransformer, linear, mamba_forecaster, patchtst, smamba
from .timing import compare, row

HORIZON = 96
# (look-back, variables): one grows while the other stays
CASES = ((96, 7), (336, 7), (1536, 7), (6144, 7), (96, 21), (96, 321), (96, 862))
BUILD: dict[str, Callable[[dict], nn.Module]] = {
    "smamba": lambda describe: smamba.build(describe, size="etth"),
    "cmamba": lambda describe: cmamba.build(describe, size="base"),
    "mamba_forecaster": lambda describe: mamba_forecaster.build(describe, size="base"),
    "itransformer": lambda describe: itransformer.build(describe, size="etth"),
    "patchtst": lambda describe: patchtst.build(describe, size="base"),
    "dlinear": linear.build,
}
BASELINES = ("itransformer", "patchtst", "dlinear")


def timeseries_suite(
    device: str,
    cases: Sequence[tuple[int, int]] = CASES,
    batch: int = 8,
    rounds: int = 7,
    names: Sequence[str] = tuple(BUILD),
) -> Iterator[dict]:
    """All models in turn, in one process, at the sizes that their papers have for ETTh1 (PatchTST, CMamba: their base sizes)."""
    for lookback, variables in cases:
        torch.manual_seed(0)
        describe = {
            "name": "noise",
            "lookback": lookback,
            "horizon": HORIZON,
            "variables": variables,
            "mark_features": 0,
        }
        models = {name: BUILD[name](describe).to(device) for name in names}
        x = torch.randn(batch, lookback, variables, device=device)
        target = torch.randn(batch, HORIZON, variables, device=device)
        case = f"look-back {lookback}, {variables} variables, batch {batch}, float32"
        for what, step in (("forecast", _forecast), ("training step", _train)):
            measured = compare({name: partial(step, model, x, target) for name, model in models.items()}, rounds)
            for name in names:
                for other in BASELINES:
                    if name not in BASELINES and other in models:
                        parameters = sum(each.numel() for each in models[name].parameters())
                        yield row("timeseries", f"{what}, {case}", measured, name, other, parameters=parameters)


def _forecast(model: nn.Module, x: torch.Tensor, target: torch.Tensor) -> None:
    model.eval()
    with torch.inference_mode():
        model(x)


def _train(model: nn.Module, x: torch.Tensor, target: torch.Tensor) -> None:
    model.train()
    model.zero_grad()
    nn.functional.mse_loss(model(x), target).backward()
