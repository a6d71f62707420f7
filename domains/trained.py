"""What a domain's predict.py is given and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Trained:
    """A trained model and what belongs to it.

    Args:
        model: on its device, in eval mode.
        task: the task that it was trained with; None: a published model that no run of this framework has made.
        data: the run's data module with what the run has kept restored; nothing is read yet. Of a published model what its
            domain's predict.py makes of it, or None.
        describe: what the model was built from: `Description.for_model` with the name of the data and what was kept.
        device: "cpu" or "cuda".
        folder: where results go unless something else is asked for: the run's folder, or the working directory.
        others: further runs that answer together with this one, where the domain's predict.yaml says `card: {several: true}`.
    """

    model: nn.Module
    task: Any
    data: Any
    describe: dict[str, Any]
    device: str
    folder: Path
    others: Sequence[Trained] = ()


@dataclass(frozen=True)
class Answer:
    """What predict.py has found: lines to print, files that were written, and what could not be answered and why."""

    lines: Sequence[str] = field(default_factory=tuple)
    files: Sequence[Path] = field(default_factory=tuple)
    problems: Sequence[str] = field(default_factory=tuple)
