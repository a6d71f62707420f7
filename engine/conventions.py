"""What a domain answers by convention: its configs/<domain>/predict.yaml, and published.py beside the function named there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from .command_line.groups import Groups
from .command_line.signature import source_file
from .command_line.yaml_files import read_yaml
from .training.targets import check_listed, resolve

PREDICT, MANIFEST = "predict.yaml", "manifest.json"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class PredictFile:
    """A domain's predict.yaml.

    Args:
        domain: its name.
        target: the function that answers.
        options: what may be asked, with its defaults.
        card: `example`: what may be typed after ckpt=, where the task's card has none of its own; `rest`: the option that words
            without a key go to; `several`: whether several runs can answer together; `any_name`: whether any name on a hub may be
            one of its published weights', so that it is asked last.
    """

    domain: str
    target: str
    options: Mapping[str, Any]
    card: Mapping[str, Any]


def predict_files(groups: Groups, domain: str | None = None) -> list[PredictFile]:
    """The predict.yaml of every domain, or of one.

    Raises:
        UserError: the domain has none, or it cannot be read.
    """
    paths = {path.parent.name: path for folder in groups.folders for path in sorted(folder.glob(f"*/{PREDICT}"))}
    if domain is not None and domain not in paths:
        raise UserError(
            "this domain answers nothing by predict.py", given=f"domain={domain}", allowed=sorted(paths) or "none yet"
        )
    found = []
    for name in [domain] if domain is not None else paths:
        values = read_yaml(paths[name])
        target, card = str(values.pop("_target_", "")), values.pop("card", {})
        found.append(PredictFile(name, target, values, card if isinstance(card, Mapping) else {}))
    return found


def find_published(
    where: str, domain: str | None, groups: Groups, allow: Sequence[str] = ()
) -> tuple[PredictFile, str] | None:
    """The domain that knows the published weights `where`, and its module that reads them; None: no published weights.

    Args:
        where: a file, a folder or a name.
        domain: the only one to ask; None: each in turn.
    """
    name = not os.path.exists(where)
    for file in sorted(predict_files(groups, domain), key=lambda file: name and bool(file.card.get("any_name"))):
        module = published(where, file.target, allow)
        if module is not None:
            return file, module
    return None


def published(where: str, target: str, allow: Sequence[str] = ()) -> Any | None:
    """The published.py beside a function or class of a domain, where it knows the weights that `where` names; else None.

    Args:
        where: a file, a folder or a name.
        target: a dotted path like polymamba.domains.<d>.<module>.<name>.
        allow: further packages that a `_target_` may come from.
    """
    module = ".".join([*target.split(".")[:-2], "published"])
    if not may_be_published(where) or not _is_there(module):
        return None
    check_listed(module, allow)
    is_published = resolve(f"{module}.is_published", allow)
    return module if is_published(where) else None


def may_be_published(where: str) -> bool:
    """Whether this is no run and no checkpoint: a file or folder of another kind, or what could be a name on a hub."""
    path = Path(where).expanduser()
    try:
        if not path.exists():
            # A name under a folder that is here, or under runs/, is a run that is not there.
            return bool(HUB_NAME.fullmatch(where)) and path.parts[0] != "runs" and not Path(path.parts[0]).exists()
    except OSError:
        return False
    if path.is_file():
        return not (path.parent / MANIFEST).exists()
    marks = (
        "config.yaml",
        MANIFEST,
        "checkpoints",
        "*/checkpoints",
        "*/*/checkpoints",
        "*/*/*/checkpoints",
        f"*/{MANIFEST}",
    )
    return not any(next(path.glob(mark), None) for mark in marks)


def _is_there(module: str) -> bool:
    """Whether a module exists; nothing is imported to find out, but for a package from elsewhere its parent."""
    if source_file(module) is not None:
        return True
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
