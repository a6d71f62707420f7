"""Prepared cases: in memory, or, where a data set is too large, in files of the cache that are mapped while they are used."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from ..files import cache_root, cached
from .checks import Checked
from .plan import IGNORED, Plan, prepared_labels
from .volumes import prepared

log = logging.getLogger(__name__)

FOLDER = "cases"
FORM = 1  # counts up when the same files and plan are prepared otherwise
PARTS = ("image", "labels", "inside")


@dataclass(frozen=True)
class Case:
    """An image and its labels.

    Args:
        name: of its file. image: float32 (channels, *sizes), normalised. labels: uint8 (*sizes), IGNORED where not known.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        """Places in the flattened labels of the voxels that are neither background nor unknown, ascending."""
        return np.flatnonzero((self.labels > 0) & (self.labels != IGNORED))


@dataclass(frozen=True)
class StoredCase:
    """A Case whose arrays lie in files.

    They are mapped anew at each use: a mapping keeps its file open, and a process may have a thousand open.
    """

    name: str
    files: tuple[Path, ...]

    @property
    def image(self) -> np.ndarray:
        """See Case."""
        return self._part("image")

    @property
    def labels(self) -> np.ndarray:
        """See Case."""
        return self._part("labels")

    @property
    def inside(self) -> np.ndarray:
        """See Case."""
        return self._part("inside")

    def _part(self, part: str) -> np.ndarray:
        return np.load(self.files[PARTS.index(part)], mmap_mode="c")


AnyCase = Case | StoredCase


class Preparation:
    """Prepares cases by a plan: the first of them stay in memory, so many as `held` bytes hold; the others go into the cache.

    Args:
        plan: see Plan. ignored: the label that stands for "not known"; None: none does.
        held: bytes.
    """

    def __init__(self, plan: Plan, ignored: int | None, held: int):
        self.plan, self.ignored, self.held, self.left = plan, ignored, held, held

    def __call__(self, case: Checked) -> AnyCase:
        """Raises UserError as reading the files does, or where the cache cannot be written."""
        voxels = int(np.prod(self.plan.sizes_for(case.sizes, case.spacing)))
        needed = voxels * (4 * case.channels + 1)
        if needed <= self.left:
            self.left -= needed
            return self._made(case)
        if self.left >= 0:
            log.warning(
                "memory holds %.1f GB of the prepared cases; from %s on they lie in %s",
                self.held / 1e9, case.name, cache_root() / FOLDER,
            )  # fmt: skip
            self.left = -1
        key, made = self._key(case), cache(partial(self._made, case))

        def write(part: str, path: Path) -> None:
            np.save(path, getattr(made(), part))

        files = (cached(f"{FOLDER}/{key}.{part}.npy", partial(write, part)) for part in PARTS)
        return StoredCase(case.name, tuple(files))

    def _made(self, case: Checked) -> Case:
        image, labels = case.files.read()
        return Case(
            case.name, prepared(image, self.plan), prepared_labels(labels, self.plan, image.spacing, self.ignored)
        )

    def _key(self, case: Checked) -> str:
        """Of the files as they are now, and of all in the plan that rules what becomes of them."""
        paths = [each for path in case.files.paths for each in (sorted(path.iterdir()) if path.is_dir() else [path])]
        marks = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
        plan = self.plan
        intensities = (plan.low, plan.high, plan.mean, plan.std) if plan.normalisation == "ct" else ()
        what = (FORM, marks, plan.axes, plan.spacing, plan.values, plan.normalisation, intensities, self.ignored)
        return hashlib.sha256(repr(what).encode()).hexdigest()[:32]
