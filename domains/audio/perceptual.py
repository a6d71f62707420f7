"""What people would say of speech, as far as formulas know: PESQ (ITU-T P.862) and STOI (Taal et al. 2011).

Both are torchmetrics', which asks packages of the extra "audio" for them: pip install "polymamba[audio]".
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from ...core.errors import UserError

log = logging.getLogger(__name__)

PACKAGES = {"pesq": "pesq", "stoi": "pystoi"}
MODES = {8000: "nb", 16000: "wb"}  # that PESQ is defined for
PESQ_BEST, PESQ_WORST = 4.5, 1.0


def installed(name: str) -> bool:
    """Whether "pesq" or "stoi" can be measured here."""
    return find_spec(PACKAGES[name]) is not None


def require(name: str, rate: int) -> None:
    """Raises UserError where this measure cannot be had."""
    if not installed(name):
        raise UserError(f"{name} is not installed", do='pip install "polymamba[audio]"')
    if name == "pesq" and rate not in MODES:
        raise UserError("PESQ is not defined at this rate", given=f"{rate} Hz", allowed=sorted(MODES))


@cache
def usable(rate: int) -> tuple[str, ...]:
    """What can be measured at a rate; what cannot is named once in the log."""
    found = []
    for name in PACKAGES:
        try:
            require(name, rate)
        except UserError as error:
            log.warning("%s is not measured: %s", name.upper(), str(error).replace("\n", "  "))
        else:
            found.append(name)
    return tuple(found)


def scores(name: str, estimates: Tensor, sources: Tensor, rate: int) -> Tensor:
    """What "pesq" (1 to 4.5) or "stoi" (0 to 1) says of estimates (batch, time) of sources (batch, time), float32 (batch,).

    NaN where it has no answer: a recording without speech, or too short.
    """
    from torchmetrics.functional import audio

    found = []
    for estimate, source in zip(estimates.float().cpu(), sources.float().cpu(), strict=True):
        try:
            if name == "pesq":
                value = audio.perceptual_evaluation_speech_quality(estimate, source, rate, MODES[rate])
            else:
                value = audio.short_time_objective_intelligibility(estimate, source, rate)
        except Exception as error:  # pesq raises bare errors of its own
            log.debug("no %s: %s", name, error)
            value = torch.tensor(torch.nan)
        found.append(value.float())
    return torch.stack(found)
