"""Checkpoints on disk: whole or not there, and checked when they are read.

    checkpoints/step-00000120/weights.safetensors    the model's weights, those that validation measures
                              state.pt               everything else that a resumed run needs, plain values only
                              manifest.json          step, epoch and the sha256 of both files
    checkpoints/last, best                           links to one of these folders

A folder is written under another name, synced and renamed; the links are replaced in one move. By hand, because Lightning moves a
file from the system's temporary folder to its place, which may be on another disk, syncs nothing, and checks nothing when it reads.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...core.errors import UserError
from ..training.run_folder import CHECKPOINTS

FORMAT = 1
WEIGHTS, STATE, MANIFEST = "weights.safetensors", "state.pt", "manifest.json"
PREFIX, UNFINISHED, LINKS = "step-", ".unfinished-", ("last", "best")

EARLIER = "resume=<an earlier checkpoint of the run>, or start a new run"
# Keys of the state without which a run cannot go on.
RESUMABLE = (
    "config", "global_step", "epoch", "loops", "callbacks", "optimizer_states", "lr_schedulers", "trained",
    "trained_in_weights_file", "pytorch-lightning_version",
)  # fmt: skip


class Damaged(UserError):
    """A checkpoint folder that is incomplete, not what its manifest says, or holds what may not be read."""


def write(
    folder: Path, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any], facts: Mapping[str, Any],
    about: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Writes one checkpoint below `folder` and returns its path; a crash at any moment leaves the others untouched.

    Args:
        folder: the run's checkpoints folder.
        step: optimizer steps done.
        weights: tensors by name.
        state: tensors, numbers, words, lists and dicts of these: what torch reads with weights_only=True.
        facts: JSON values for the manifest.
        about: JSON values that say what the weights are, for the weights file's own metadata.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    target = _free_name(folder, step)
    unfinished = folder / f"{UNFINISHED}{target.name}"
    try:
        unfinished.mkdir()
        metadata = {name: json.dumps(value, ensure_ascii=False) for name, value in (about or {}).items()}
        save_file(_separate(weights), unfinished / WEIGHTS, metadata={**metadata, "format": "pt"})
        # safetensors lets the owner alone read it, whatever the umask
        (unfinished / WEIGHTS).chmod(0o666 & ~_umask())
        with open(unfinished / STATE, "wb") as file:
            torch.save(dict(state), file)
        sums = {name: sha256(unfinished / name) for name in (WEIGHTS, STATE)}
        manifest = {"format": FORMAT, "step": step, "written": time.time_ns(), **facts, "sha256": sums}
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        for path in (unfinished / WEIGHTS, unfinished / STATE, unfinished / MANIFEST, unfinished):
            _sync(path)
        os.rename(unfinished, target)
    except (SafetensorError, RuntimeError) as error:
        # Other RuntimeErrors may come in between: that a loader's worker has died, say.
        if not isinstance(error, SafetensorError) and "enforce fail" not in str(error):
            raise
        raise _cause(error, unfinished) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    _sync(folder)
    return target


def _cause(error: Exception, path: Path) -> OSError:
    """What the system said, where one of the two libraries could not write."""
    if isinstance(error.__context__, OSError):
        return error.__context__
    number = re.search(r"os error (\d+)", str(error))
    code = int(number[1]) if number else errno.EIO
    return OSError(code, os.strerror(code) if number else _line(error), str(path))


def remove_leftovers(folder: Path) -> None:
    """Removes what writes that were cut short have left in a checkpoints folder."""
    for leftover in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def settle(checkpoint: Path) -> Path:
    """Puts a checkpoints folder in order before a run goes on in it; returns where `checkpoint` is then.

    What writes that were cut short left is removed. `last` and `best` that are folders, as they are where a run was copied
    without its links, become links to checkpoints again, and a `last` that leads nowhere leads to `checkpoint`.
    """
    folder = checkpoint.parent
    remove_leftovers(folder)
    for name in LINKS:
        copy = folder / name
        if copy.is_symlink() or not (copy / MANIFEST).is_file():
            continue
        manifest = json.loads(_text(copy / MANIFEST))
        same = [each for each in checkpoints(folder) if _text(each / MANIFEST) == _text(copy / MANIFEST)]
        if not same:
            same = [_free_name(folder, int(manifest["step"]))]
            shutil.copytree(copy, folder / f"{UNFINISHED}{name}")
            os.rename(folder / f"{UNFINISHED}{name}", same[0])
        point(folder, name, same[0])
        checkpoint = same[0] if checkpoint == copy else checkpoint
    if last(folder) is None:
        point(folder, "last", checkpoint)
    return checkpoint


def point(folder: Path, name: str, target: Path) -> None:
    """Makes `folder/name` a link to the checkpoint `target`, in one move; a folder of that name gives way to it."""
    link, place = folder / f".{name}.link", folder / name
    link.unlink(missing_ok=True)
    link.symlink_to(target.name)
    if place.is_dir() and not place.is_symlink():
        os.rename(place, folder / f"{UNFINISHED}{name}-before")
    os.replace(link, place)
    remove_leftovers(folder)
    _sync(folder)


def tidy(folder: Path, keep: int = 2) -> None:
    """Removes checkpoints that no link points to, except the newest `keep`."""
    linked = {os.path.realpath(folder / name) for name in LINKS}
    for path in checkpoints(folder)[keep:]:
        if os.path.realpath(path) not in linked:
            shutil.rmtree(path)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint folders of a run, newest first."""
    found = [path for path in folder.glob(f"{PREFIX}*") if path.is_dir() and not path.is_symlink()]
    return sorted(found, key=lambda path: (_written(path), path.name), reverse=True)


def last(folder: Path) -> tuple[Path, int] | None:
    """The checkpoint that `last` of a checkpoints folder points to and its step; None where there is none."""
    try:
        path = Path(os.path.realpath(folder / "last"))
        return path, int(json.loads(_text(path / MANIFEST))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def verify(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are what it says.

    Raises:
        Damaged: a file is missing, cut off or changed.
    """
    try:
        manifest = json.loads(_text(path / MANIFEST))
        sums = manifest["sha256"]
        for name in (WEIGHTS, STATE):
            if sha256(path / name) != sums[name]:
                raise Damaged(f"{path / name} is not what {MANIFEST} says: wrong sha256")
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path} is incomplete: {_line(error)}") from error
    return manifest


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint by name, on the CPU."""
    try:
        return load_file(path / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise Damaged(f"{path / WEIGHTS}: {_line(error)}") from error


def read_state(path: Path, needed: Iterable[str] = (), mapped: bool = False) -> dict[str, Any]:
    """What stands beside the weights, on the CPU; only plain values are ever unpickled.

    Args:
        path: a checkpoint folder.
        needed: keys that must be there.
        mapped: tensors stay in the file: for whoever wants only the other values.

    Raises:
        Damaged: the file holds anything else, is cut off, or lacks one of the keys `needed`.
    """
    try:
        state = torch.load(path / STATE, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, UnpicklingError) as error:
        raise Damaged(
            f"{path / STATE} is cut off or holds more than plain values (torch.load, weights_only); none of it was run",
            do=EARLIER,
        ) from error
    missing = [key for key in needed if not isinstance(state, Mapping) or key not in state]
    if missing:
        raise Damaged(f"{path / STATE} lacks {', '.join(missing)}", do=EARLIER)
    return state


def read_about(path: Path) -> dict[str, Any]:
    """What a checkpoint's weights file says of itself: `about` as it was written; empty where it says nothing."""
    try:
        with safe_open(path / WEIGHTS, "pt") as file:
            metadata = file.metadata() or {}
            return {name: json.loads(value) for name, value in metadata.items() if name != "format"}
    except (OSError, SafetensorError, ValueError) as error:
        raise Damaged(f"{path / WEIGHTS}: {_line(error)}") from error


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
    problems = []
    if (where / MANIFEST).is_file():
        folder, wanted = where.resolve().parent, [where.resolve()]
    else:
        folder = where / CHECKPOINTS if (where / CHECKPOINTS).is_dir() else where
        folder = folder.resolve()
        wanted, broken = _linked(folder, prefer)
        if not wanted and broken:
            problems.append(f"{' and '.join(broken)} of {folder} leads to no checkpoint")
    candidates = list(dict.fromkeys([*wanted, *checkpoints(folder)]))
    if not candidates:
        raise UserError("there is no checkpoint in this folder", given=where, do=do)
    for path in candidates:
        try:
            verify(path)
        except Damaged as error:
            problems.append(str(error))
            continue
        return path, f"{'; '.join(problems)}. Using {path} instead." if problems else None
    raise UserError("every checkpoint here is damaged", given="; ".join(problems), do=do)


def _linked(folder: Path, prefer: tuple[str, ...]) -> tuple[list[Path], list[str]]:
    """Where links lead, and those of them that lead nowhere or out of the folder."""
    wanted, broken = [], []
    for name in prefer:
        target = Path(os.path.realpath(folder / name))
        if target.is_dir() and target.parent == folder:
            wanted.append(target)
        elif os.path.lexists(folder / name):
            broken.append(name)
    return wanted, broken


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes, lower-case hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _runs(where: Path) -> str | None:
    parent = next(each for each in where.absolute().parents if each.is_dir())
    names = sorted(each.name for each in parent.iterdir() if each.is_dir() and not each.name.startswith("."))
    return f"{parent}/: {', '.join(names[-8:])}" if names else None


def _written(path: Path) -> int:
    """When a checkpoint was written; a copy of the folder has another time of change."""
    try:
        return int(json.loads(_text(path / MANIFEST))["written"])
    except (OSError, ValueError, KeyError, TypeError):
        return path.stat().st_mtime_ns


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


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


def _umask() -> int:
    """The process's umask, which can be read only by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
