"""The folder of one run, and what is in it.

config.yaml, overrides.txt, environment.json    written at the start: the whole configuration, what was typed, versions and machine
metrics.csv, progress.png, …                    the run's numbers and pictures, written by callbacks
checkpoints/                                    checkpoints/folder.py
.lock                                           held by the process that trains in it
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from ...core.errors import UserError
from ..command_line.config import SCHEMA_VERSION, Config
from ..command_line.yaml_files import Loader, to_yaml
from .stop import Stopped

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

CONFIG, ENVIRONMENT, OVERRIDES, LOCK = "config.yaml", "environment.json", "overrides.txt", ".lock"
METRICS, PROGRESS, SCAN, CHECKPOINTS = "metrics.csv", "progress.png", "scan.png", "checkpoints"


def new_run_folder(config: Config) -> Path:
    """The path of a run that is about to start: `run_dir`, or runs/<domain>/<model>/<time>-<id>. Nothing is made yet.

    Raises:
        UserError: `run_dir` is in use.
    """
    if config.run_dir is None:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        folder = Path("runs", config.domain, str(config.model.get("name", "model")), name)
    else:
        folder = Path(config.run_dir)
    if not is_first():
        return folder
    try:
        if (folder / LOCK).is_file():
            with locked(folder):
                pass
        if folder.is_file() or (folder.is_dir() and any(each.name != LOCK for each in folder.iterdir())):
            raise in_use(folder)
        _try_to_make(folder)
    except OSError as error:
        raise _not_to_be_made(folder, error) from error
    return folder


def is_first() -> bool:
    """Whether this is the process, of several of one run, that writes into its folder."""
    return int(os.environ.get("RANK", "0")) == 0


def _not_to_be_made(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"this folder cannot be made or written: {error.strerror or error}", given=f"run_dir={folder}",
        allowed="a folder in a place that you may write to", do="run_dir=<another folder>",
    )  # fmt: skip


def in_use(folder: Path) -> UserError:
    """The error for a new run in a folder that holds something."""
    goes_on = any(folder.glob(f"{CHECKPOINTS}/[!.]*")) or not (folder / CONFIG).is_file()
    return UserError(
        "this folder is in use, a run would overwrite it", given=f"run_dir={folder}",
        allowed="a folder that does not exist or is empty",
        do=f"resume={folder} goes on with the run in it" if goes_on else "run_dir=<another folder>, or remove this one",
    )  # fmt: skip


def _try_to_make(folder: Path) -> None:
    """Raises OSError where the folder cannot be made or written; leaves nothing behind."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    probe = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not probe.exists():
            probe.touch()
            probe.unlink()
    finally:
        for each in made:
            with suppress(OSError):
                each.rmdir()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from training in a run folder; the system lifts the lock where this process dies.

    A record lock, not flock: workers that outlive a killed trainer do not hold it.

    Raises:
        UserError: another process trains in it, or the folder cannot be written.
    """
    if fcntl is None or not is_first():
        yield
        return
    path = folder / LOCK
    try:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  closed below; closing it lifts the lock
    except OSError as error:
        raise UserError(
            "this run folder cannot be written", given=f"{folder} ({error.strerror})", do="make it writable, or copy the run"
        ) from error  # fmt: skip
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise UserError(
                "another process is training in this run folder", given=folder, allowed="one process a folder",
                do=f"wait for {holder}, or stop it",
            ) from None  # fmt: skip
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


@contextmanager
def start(folder: Path, config: Config, overrides: Sequence[str], environment: dict[str, Any]) -> Iterator[None]:
    """Makes a run's folder, locked within the block, with config.yaml, overrides.txt and environment.json.

    Raises:
        UserError: another run has started in it meanwhile, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_to_be_made(folder, error) from error
    with locked(folder):
        if is_first():
            if any(each.name != LOCK for each in folder.iterdir()):
                raise in_use(folder)
            write_config(folder, config)
            write_text(folder / OVERRIDES, "".join(f"{each}\n" for each in overrides))
            write_text(folder / ENVIRONMENT, json.dumps(environment, indent=1) + "\n")
        try:
            yield
        except Stopped:
            # Without a checkpoint nothing in it is worth keeping, and the same command can start again.
            if is_first() and not any(folder.glob(f"{CHECKPOINTS}/[!.]*")):
                shutil.rmtree(folder, ignore_errors=True)
            raise


def read_arguments(folder: Path) -> list[str]:
    """What was typed to start a run; nothing where that cannot be read."""
    try:
        return (folder / OVERRIDES).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def write_config(folder: Path, config: Config) -> None:
    """Writes config.yaml, unless it says just that."""
    path, text = folder / CONFIG, config_yaml(config)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def config_yaml(config: Config) -> str:
    """The whole configuration as YAML, with the version of its schema."""
    return to_yaml({"schema_version": SCHEMA_VERSION, **config.plain()})


def read_config(folder: Path) -> dict[str, Any]:
    """The plain values of a run's config.yaml.

    Raises:
        UserError: there is none, it cannot be read, or another version wrote it.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise UserError("this is not the folder of a run", given=folder, allowed=f"a folder that holds {CONFIG}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _damaged(path, " ".join(str(error).split())[:200]) from error
    if not isinstance(values, dict) or not values:
        raise _damaged(path, "a list" if isinstance(values, list) else "no keys")
    version = values.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path} was written by another version", given=f"schema_version {version}", allowed=f"schema_version {SCHEMA_VERSION}",
            do="use the version of PolyMamba named in environment.json",
        )  # fmt: skip
    return values


def _damaged(path: Path, found: str) -> UserError:
    return UserError(
        f"{path} is not a run's configuration", given=found, allowed="what the run has written there",
        do="put the file back as it was, or start a new run",
    )  # fmt: skip


def run_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint folder lies in, relative to the working directory where it lies below."""
    folder = checkpoint.resolve().parent.parent
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def write_text(path: Path, text: str) -> None:
    """Writes a file that is at no moment half written."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
