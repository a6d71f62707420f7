"""The folder of one run: its configuration, environment, pictures and checkpoints."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from .config import SCHEMA_VERSION, Config

CONFIG, ENVIRONMENT, OVERRIDES = "config.yaml", "environment.json", "overrides.txt"


def new_run_folder(config: Config) -> Path:
    """The path of a run that is about to start: `run_dir`, or runs/<domain>/<model>/<time>-<id>. Nothing is made yet.

    Raises:
        UserError: `run_dir` is in use.
    """
    if config.run_dir is None:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        return Path("runs", config.domain, str(config.model.get("name", "model")), name)
    folder = Path(config.run_dir)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(
            "this folder is in use, a run would overwrite it", given=f"run_dir={folder}",
            allowed="a folder that does not exist or is empty", do=f"resume={folder} goes on with the run in it",
        )  # fmt: skip
    return folder


def write_start(folder: Path, config: Config, overrides: Sequence[str], environment: dict[str, Any]) -> None:
    """Makes the folder and writes config.yaml, overrides.txt and environment.json into it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CONFIG, config_yaml(config))
    write_text(folder / OVERRIDES, "".join(f"{each}\n" for each in overrides))
    write_text(folder / ENVIRONMENT, json.dumps(environment, indent=1) + "\n")


def config_yaml(config: Config) -> str:
    """The whole configuration as YAML, with the version of its schema."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create({"schema_version": SCHEMA_VERSION, **config.plain()}))


def read_config(folder: Path) -> dict[str, Any]:
    """The plain values of a run's config.yaml.

    Raises:
        UserError: there is none, or a newer version wrote it.
    """
    from omegaconf import OmegaConf

    path = folder / CONFIG
    if not path.is_file():
        raise UserError("this is not the folder of a run", given=folder, allowed=f"a folder that holds {CONFIG}")
    values = dict(OmegaConf.to_container(OmegaConf.load(path)))
    version = values.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path} was written by another version", given=f"schema_version {version}", allowed=SCHEMA_VERSION,
            do="use the version of PolyMamba named in environment.json",
        )  # fmt: skip
    return values


def run_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint folder lies in, relative to the working directory where it lies below."""
    folder = checkpoint.resolve().parent.parent
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def write_text(path: Path, text: str) -> None:
    """Writes a file that is at no moment half written."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
