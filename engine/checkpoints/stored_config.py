"""What a run goes on with: the configuration in its checkpoint rules, and what has changed since then is said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ...data.module import SPLITS, Description
from ..command_line.change_stored import WHEN_RESUMING, may_change
from ..command_line.config import SCHEMA_VERSION
from ..training.environment import versions
from ..training.run_folder import CONFIG, ENVIRONMENT, read_config, run_of
from . import folder as files

# What the weights and the optimizer's state are of.
BUILT = ("domain", "data", "model", "scan", "task", "optimizer.name")

DESCRIPTION = "description"  # in what a checkpoint's weights file says of itself
FLAT = {
    "title": "title",
    "source": "source",
    "licence": "licence",
    "protocol": "split",
}  # as earlier versions named them


def stored_config(checkpoint: Path, needed: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """The plain configuration that a checkpoint was made with, and a line for each value that config.yaml says otherwise.

    Args:
        checkpoint: a checkpoint folder.
        needed: what its state must hold. Where it holds no configuration (a checkpoint of weights alone), config.yaml counts.

    Raises:
        UserError: config.yaml cannot be read, or names another model, other data and the like than the checkpoint is of.
        Damaged: the checkpoint cannot be read.
    """
    folder = run_of(checkpoint)
    written = read_config(folder)
    ruling = files.read_state(checkpoint, needed, mapped=True).get("config", written)
    if ruling is written:
        return written, []
    if not isinstance(ruling, Mapping) or ruling.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{checkpoint} was written by another version", do=f"use the version named in {ENVIRONMENT}")
    ruling = {key: value for key, value in ruling.items() if key != "schema_version"}
    now, then = dict(_flat(written)), dict(_flat(ruling))
    changed = [key for key in {**then, **now} if now.get(key) != then.get(key)]
    for key in changed:
        if not may_change(key, WHEN_RESUMING) and any(key == each or key.startswith(f"{each}.") for each in BUILT):
            raise UserError(
                f"{folder / CONFIG} has been changed: its checkpoints are of another run", given=_said(now, key),
                allowed=_said(then, key), do="put it back as it was, or start a new run",
            )  # fmt: skip
    return ruling, [
        f"{folder / CONFIG} has been changed to {_said(now, key)}: the checkpoint counts, which was made with {_said(then, key)}"
        for key in changed
    ]


def stored_description(checkpoint: Path) -> Description | None:
    """What a checkpoint says of the data that its weights learnt from; None where it says nothing."""
    about = {name: value for name, value in files.read_about(checkpoint).items() if name not in ("model", "scan")}
    if not about:
        return None
    return _description_of_flat(about) if DESCRIPTION not in about else Description(**about[DESCRIPTION])


def _description_of_flat(about: dict[str, Any]) -> Description:
    """Earlier versions wrote one mapping of everything."""
    counts = {split: about[split] for split in SPLITS if about.get(split) is not None}
    origin = {name: about.get(key) or "" for name, key in FLAT.items()}
    others = {"domain", "name", *SPLITS, *FLAT.values()}
    for_model = {name: value for name, value in about.items() if name not in others}
    return Description(about["name"], counts, for_model=for_model, length=about.get("length") or 0, **origin)


def changed_environment(folder: Path) -> list[str]:
    """A line for each version, and for the commit, that is another one than when the run in `folder` started."""
    try:
        then = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
        before, sha = dict(then["versions"]), (then["commit"] or {}).get("sha")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [f"{folder / ENVIRONMENT} cannot be read: whether versions have changed is not known"]
    present = versions()
    lines = [
        f"{name} was {before.get(name)} when this run started, it is {now} now: results may differ from an uninterrupted run's"
        for name, now in present["versions"].items()
        if before.get(name) != now
    ]
    commit = (present["commit"] or {}).get("sha")
    if commit != sha:
        lines.append(
            f"this run started at commit {str(sha)[:10]}, the source is at {str(commit)[:10]} now: results may differ from an"
            " uninterrupted run's"
        )
    return lines


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", list(value) if isinstance(value, tuple) else value


def _said(values: Mapping[str, Any], key: str) -> str:
    return f"{key}={'null' if values[key] is None else values[key]}" if key in values else f"no {key}"
