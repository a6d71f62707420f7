"""Clouds of points in files: tables of numbers, NumPy arrays, and meshes (OFF) whose surfaces are sampled."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from ...core.errors import UserError
from ..folders import files_below

SUFFIXES = (".npy", ".txt", ".xyz", ".pts", ".csv", ".off")
ON_A_MESH = 2048  # points drawn from a mesh


class CloudFiles:
    """Finds, opens and prepares clouds.

    Args:
        points: of a cloud that the model sees.
    """

    def __init__(self, points: int):
        self.points = points

    def find(self, where: str) -> list[Path]:
        """The files that a path or a pattern means; raises UserError where there is none."""
        path = Path(where).expanduser()
        found = [path] if path.is_file() else []
        if path.is_dir():
            found = [each for each in files_below(path) if each.suffix.lower() in SUFFIXES]
        elif not found:
            found = sorted({Path(each) for each in glob.glob(str(path), recursive=True) if Path(each).is_file()})
        if not found:
            raise UserError(
                "there are no clouds of points",
                given=f"input={where}",
                allowed=f"files that end in {', '.join(SUFFIXES)}",
            )
        return found

    def open(self, path: str | Path) -> np.ndarray:
        """The points of a file, float32 (points, 3); raises UserError naming what is wrong with it."""
        path = Path(path)
        try:
            if path.suffix.lower() == ".npy":
                values = np.load(path, allow_pickle=False)
            elif path.suffix.lower() == ".off":
                values = _of_mesh(path)
            else:
                lines = path.read_text().replace(",", " ").replace(";", " ").splitlines()
                values = np.loadtxt(lines, ndmin=2)
        except (OSError, ValueError, EOFError, IndexError) as error:
            raise UserError(f"{path} holds no cloud of points", given=str(error).splitlines()[0]) from error
        if values.ndim != 2 or values.shape[1] < 3 or len(values) == 0:
            raise UserError(
                f"{path} holds no cloud of points", given=f"shape {values.shape}", allowed="(points, 3 or more)"
            )
        values = np.asarray(values[:, :3], np.float64)
        if not np.isfinite(values).all():
            raise UserError(
                f"{path} holds a number that is not finite",
                given=f"row {int((~np.isfinite(values)).any(1).argmax()) + 1}",
            )
        return values.astype(np.float32)

    def prepare(self, clouds: Sequence[np.ndarray]) -> torch.Tensor:
        """Clouds of any number of points to what the model sees, float32 (batch, points, 3)."""
        return torch.stack([torch.from_numpy(self._one(each)) for each in clouds])

    def _one(self, points: np.ndarray) -> np.ndarray:
        # The same points each time; of a cloud of fewer some twice.
        random = np.random.default_rng(0)
        index = random.permutation(len(points))[: self.points]
        index = np.concatenate([index, random.integers(0, len(points), self.points - len(index))])
        return normalised(points[index].astype(np.float64)).astype(np.float32)


def normalised(points: np.ndarray) -> np.ndarray:
    """Clouds ([samples,] points, 3) moved to their mean and made to reach 1 from there."""
    points = points - points.mean(-2, keepdims=True)
    reach = np.linalg.norm(points, axis=-1, keepdims=True).max(-2, keepdims=True)
    return points / np.maximum(reach, np.finfo(np.float32).tiny)


def on_surface(corners: np.ndarray, faces: Sequence[Sequence[int]], count: int) -> np.ndarray:
    """Points drawn evenly from a mesh's faces, (count, 3); faces of more corners than three are fans of triangles."""
    triangles = np.array([(face[0], *pair) for face in faces for pair in pairwise(face[1:])])
    first, second, third = (corners[triangles[:, each]] for each in range(3))
    area = np.linalg.norm(np.cross(second - first, third - first), axis=1)
    random = np.random.default_rng(0)
    if area.sum() == 0:
        return corners[random.integers(0, len(corners), count)]
    chosen = random.choice(len(triangles), count, p=area / area.sum())
    across, along = np.sqrt(random.uniform(size=(count, 1))), random.uniform(size=(count, 1))
    return (1 - across) * first[chosen] + across * ((1 - along) * second[chosen] + along * third[chosen])


def _of_mesh(path: Path) -> np.ndarray:
    """Points on the surface of an OFF file's mesh, or its corners where it has no faces: (points, 3)."""
    # the counts follow in the first line, or on the same without a space, as in ModelNet
    words = path.read_text().removeprefix("OFF").split()
    corners, faces = int(words[0]), int(words[1])
    values, place, found = np.array(words[3 : 3 + 3 * corners], float).reshape(corners, 3), 3 + 3 * corners, []
    for _ in range(faces):
        count = int(words[place])
        found.append([int(word) for word in words[place + 1 : place + 1 + count]])
        place += 1 + count
    return on_surface(values, found, ON_A_MESH) if any(len(face) > 2 for face in found) else values
