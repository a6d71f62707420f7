"""The classes of points."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from polymamba.core.ranges import Count, Size
from polymamba.domains.trained import Answer, Trained


def predict(
    run: Trained, input: str | None = None, first: Count = 0, count: Size = 3, say: str | None = None,
    explain: Literal["gradient"] | None = None,
) -> Answer:  # fmt: skip
    """The classes of a few points, of a file or else of the first test points; points after the last are problems."""
    if input is None:
        points, _ = next(iter(run.data.test_dataloader()))
    else:
        points = torch.from_numpy(np.loadtxt(input, dtype=np.float32, ndmin=2)) - run.describe["centre"]
    points = points.to(run.device).requires_grad_()
    scores = run.model(points)
    labels = scores.argmax(1).tolist()
    if explain is not None:
        scores.amax(1).sum().backward()
        return Answer([" ".join(f"{each:.3f}" for each in point) for point in points.grad.tolist()])
    asked = range(first, first + count)
    path = run.folder / "labels.txt"
    path.write_text(f"{say}: {labels}")
    lines = [f"point {each}: {labels[each]}" for each in asked if each < len(labels)]
    return Answer(lines, [path], [f"there is no point {each}" for each in asked if each >= len(labels)])
