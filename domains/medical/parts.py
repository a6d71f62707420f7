"""The largest connected part of a class: what a segmentation keeps of it, where that has helped in validation."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def largest_parts(classes: np.ndarray, of: Iterable[int]) -> np.ndarray:
    """The same, with all but the largest connected part of some classes made background; the array given is changed.

    Args:
        classes: (*sizes), whole numbers. of: those classes. Voxels that share a face are connected.
    """
    from scipy.ndimage import find_objects, label

    boxes = find_objects(classes)
    for number in of:
        box = boxes[number - 1] if number <= len(boxes) else None
        if box is None:
            continue
        parts, found = label(classes[box] == number)
        if found > 1:
            counts = sum(np.bincount(plane.ravel(), minlength=found + 1) for plane in parts)
            classes[box][(parts > 0) & (parts != counts[1:].argmax() + 1)] = 0
    return classes
