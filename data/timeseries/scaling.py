"""Means and deviations of each series' training part, which a trained model keeps: without them its answers have no units."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import UserError

FILE = "scaler.json"


@dataclass(frozen=True)
class Scaler:
    """Values minus a mean over a deviation, for each series and variable.

    Args:
        series, variables: names.
        mean, deviation: (series, variables) float64, of the training parts; a constant variable has deviation 1.
        seasonal_error: (series, variables) float64: the mean absolute error, in scaled units, of repeating the training part's
            last season, which MASE is measured by (Hyndman and Koehler 2006).
        about: what else the data module wants back, as JSON values.
    """

    series: Sequence[str]
    variables: Sequence[str]
    mean: np.ndarray
    deviation: np.ndarray
    seasonal_error: np.ndarray
    about: Mapping[str, Any] = field(default_factory=dict)

    def scaled(self, values: np.ndarray, series: int) -> np.ndarray:
        """Values (steps, variables) of a series, in units of its deviation, float32."""
        return ((values - self.mean[series]) / self.deviation[series]).astype(np.float32)

    def original(self, values: np.ndarray, series: int) -> np.ndarray:
        """The way back, for as many variables as there are: (..., variables) float64."""
        some = slice(values.shape[-1])
        return values * self.deviation[series, some] + self.mean[series, some]

    def save(self, folder: Path) -> None:
        """Write it into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(self, name).tolist() for name in ("mean", "deviation", "seasonal_error")}
        said = {"series": list(self.series), "variables": list(self.variables), "about": dict(self.about), **arrays}
        (folder / FILE).write_text(json.dumps(said), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Scaler:
        """Read it from a folder.

        Raises:
            UserError: the folder holds none, or one that is damaged.
        """
        path = folder / FILE
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            arrays = {name: np.array(said[name]) for name in ("mean", "deviation", "seasonal_error")}
            return cls(said["series"], said["variables"], **arrays, about=said["about"])
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path} cannot be read: {error}", do="copy the run's folder data/ anew") from error


def fitted(
    parts: Sequence[np.ndarray], series: Sequence[str], variables: Sequence[str], period: int, scale: bool = True
) -> Scaler:
    """The scaler of training parts, each (steps, variables); scale False: values stay as they are."""
    mean = np.stack([part.mean(0) if scale else np.zeros(part.shape[1]) for part in parts])
    deviation = np.stack([part.std(0) if scale else np.ones(part.shape[1]) for part in parts])
    # constant: up to the rounding of the mean
    deviation = np.where(deviation <= 1e-12 * (1 + np.abs(mean)), 1.0, deviation)
    errors = []
    for number, part in enumerate(parts):
        lag = period if len(part) > period else 1
        errors.append(np.abs(part[lag:] - part[:-lag]).mean(0) / deviation[number])
    return Scaler(series, variables, mean, deviation, np.stack(errors))
