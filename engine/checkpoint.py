"""Checkpoints on disk: whole or not there, and checked when they are read.

    checkpoints/step-00000120/weights.safetensors    the model's weights, those that validation measures
                              state.pt               everything else that a resumed run needs, plain values only
                              manifest.json          step, epoch and the sha256 of both files
    checkpoints/last, best                           links to one of these folders

A folder is written under another name, synced and renamed; the links are replaced in one move.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..core.errors import UserError

FORMAT = 1
WEIGHTS, STATE, MANIFEST = "weights.safetensors", "state.pt", "manifest.json"
PREFIX, UNFINISHED = "step-", ".unfinished-"


class Damaged(Exception):
    """A checkpoint folder that is incomplete or not what its manifest says."""


def write(
    folder: Path, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any], facts: Mapping[str, Any]
) -> Path:
    """Writes one checkpoint below `folder` and returns its path; a crash at any moment leaves the others untouched.

    Args:
        folder: the run's checkpoints folder.
        step: optimizer steps done.
        weights: tensors by name.
        state: tensors, numbers, words, lists and dicts of these: what torch reads with weights_only=True.
        facts: JSON values for the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    target = _free_name(folder, step)
    unfinished = folder / f"{UNFINISHED}{target.name}"
    unfinished.mkdir()
    save_file(_separate(weights), unfinished / WEIGHTS, metadata={"format": "pt"})
    torch.save(dict(state), unfinished / STATE)
    sums = {name: sha256(unfinished / name) for name in (WEIGHTS, STATE)}
    manifest = {"format": FORMAT, "step": step, **facts, "sha256": sums}
    (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    for path in (unfinished / WEIGHTS, unfinished / STATE, unfinished / MANIFEST, unfinished):
        _sync(path)
    os.rename(unfinished, target)
    _sync(folder)
    return target


def point(folder: Path, name: str, target: Path) -> None:
    """Makes `folder/name` a link to the checkpoint `target`, in one move."""
    link = folder / f".{name}.link"
    link.unlink(missing_ok=True)
    link.symlink_to(target.name)
    os.replace(link, folder / name)
    _sync(folder)


def tidy(folder: Path, keep: int = 2) -> None:
    """Removes checkpoints that no link points to, except the newest `keep`."""
    linked = {path.resolve() for path in folder.iterdir() if path.is_symlink()}
    for path in checkpoints(folder)[keep:]:
        if path.resolve() not in linked:
            shutil.rmtree(path)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint folders of a run, newest first."""
    found = [path for path in folder.glob(f"{PREFIX}*") if path.is_dir() and not path.is_symlink()]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


def verify(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are what it says.

    Raises:
        Damaged: a file is missing, cut off or changed.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        sums = manifest["sha256"]
        for name in (WEIGHTS, STATE):
            if sha256(path / name) != sums[name]:
                raise Damaged(f"{path / name} is not what {MANIFEST} says: wrong sha256")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path} is incomplete: {error}") from error
    return manifest


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint by name, on the CPU."""
    try:
        return load_file(path / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise Damaged(f"{path / WEIGHTS}: {error}") from error


def read_state(path: Path) -> dict[str, Any]:
    """What stands beside the weights, on the CPU; only plain values are ever unpickled."""
    return torch.load(path / STATE, map_location="cpu", weights_only=True)


def find(
    where: str | Path, prefer: tuple[str, ...] = ("last",), do: str = "start the run again"
) -> tuple[Path, str | None]:
    """A checkpoint that can be read, and a remark where it is not the one that was asked for.

    Args:
        where: a run folder, a checkpoints folder, a checkpoint or one of its files.
        prefer: links to try, in this order, where `where` holds several checkpoints.
        do: what to do where a folder holds none that can be read.

    Raises:
        UserError: there is none, or all are damaged.
    """
    where = Path(where)
    if where.is_file():
        where = where.parent
    if not where.exists():
        raise UserError(
            "there is no such checkpoint", given=where, allowed=_runs(where), do="give a run folder below runs/"
        )
    if (where / MANIFEST).is_file():
        folder, wanted = where.resolve().parent, [where.resolve()]
    else:
        folder = where / "checkpoints" if (where / "checkpoints").is_dir() else where
        wanted = [(folder / name).resolve() for name in prefer if (folder / name).exists()]
    candidates = list(dict.fromkeys([*wanted, *checkpoints(folder)]))
    if not candidates:
        raise UserError("there is no checkpoint in this folder", given=where, do=do)
    problems = []
    for path in candidates:
        try:
            verify(path)
        except Damaged as error:
            problems.append(str(error))
            continue
        return path, f"{'; '.join(problems)}. Using {path} instead." if problems else None
    raise UserError("every checkpoint here is damaged", given="; ".join(problems), do=do)


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes, lower-case hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _runs(where: Path) -> str | None:
    parent = next((each for each in where.parents if each.is_dir()), None)
    names = (
        sorted(each.name for each in parent.iterdir() if each.is_dir() and not each.name.startswith("."))
        if parent
        else []
    )
    return f"{parent}/: {', '.join(names[-8:])}" if names else None


def _free_name(folder: Path, step: int) -> Path:
    name, count = f"{PREFIX}{step:08d}", 1
    while (folder / name).exists():
        count += 1
        name = f"{PREFIX}{step:08d}-{count}"
    return folder / name


def _separate(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors, tied ones written once for each name: safetensors refuses shared memory."""
    seen, separate = set(), {}
    for name, tensor in weights.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        separate[name] = plain.clone() if place in seen else plain
        seen.add(place)
    return separate


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
