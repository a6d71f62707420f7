"""The one place where a config's `_target_` becomes an object: only names on a short list are ever imported or called."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from ..core.errors import UserError
from .typed import unknown_key

ALLOWED = ("polymamba.core", "polymamba.domains", "polymamba.data", "timm.create_model", "torch.nn", "torch.optim")
LABELS = ("_target_", "domains", "name", "choose")


def build(config: Mapping[str, Any], allow: Sequence[str] = (), **offered: Any) -> Any:
    """The object that `config["_target_"]` names, called with the config's other keys.

    Args:
        config: plain values; a nested mapping with a `_target_` is built first. `domains`, `name` and `choose` are labels,
            passed on only where the target has parameters of that name.
        allow: further packages a target may come from, named by the person who starts the run.
        offered: arguments given to the target where it has parameters of that name (describe, scan, model).

    Raises:
        UserError: a target outside the list, a key that the target does not take, a required one that is missing.
    """
    target = str(config.get("_target_", ""))
    found = resolve(target, allow)
    parameters = inspect.signature(found).parameters
    takes_more = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    arguments = {key: value for key, value in offered.items() if key in parameters}
    for key, value in config.items():
        if key in LABELS and key not in parameters:
            continue
        if key not in parameters and not takes_more:
            raise unknown_key(key, list(parameters), value)
        arguments[key] = _nested(value, allow)
    missing = [
        name for name, each in parameters.items()
        if each.default is each.empty and name not in arguments and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    ]  # fmt: skip
    if missing:
        raise UserError(
            f"{target} needs more keys", given=sorted(arguments), allowed=list(parameters), do=f"add {missing}"
        )
    return found(**arguments)


def resolve(target: str, allow: Sequence[str] = ()) -> Any:
    """The class or function behind a dotted path, if it is on the list.

    Nothing outside the listed packages is imported, and an object that such a package merely imported from elsewhere
    (`polymamba.data.vision.os`) is refused.

    Raises:
        UserError: not on the list, or not there.
    """
    check_listed(target, allow)
    listed, parts = (*ALLOWED, *allow), target.split(".")
    module, names = _module(parts)
    if module is None or not names:
        raise UserError(
            "this _target_ does not exist", given=target, allowed="package.module.Class or package.module.function"
        )
    found: Any = module
    for name in names:
        found = getattr(found, name, None)
        if found is None:
            raise UserError("this _target_ does not exist", given=target, allowed=f"names in {module.__name__}")
    origin = getattr(found, "__module__", None) or ""
    roots = [each.partition(".")[0] if each == "timm.create_model" else each for each in listed]
    inside = any(origin == root or origin.startswith(f"{root}.") for root in roots)
    if isinstance(found, ModuleType) or not callable(found) or not inside:
        raise _refused(target, listed)
    return found


def check_listed(target: str, allow: Sequence[str] = ()) -> None:
    """Raises UserError where a dotted path is not below a listed package; imports nothing."""
    listed = (*ALLOWED, *allow)
    known = any(target == each or target.startswith(f"{each}.") for each in listed)
    if not known or any(part.startswith("_") or not part.isidentifier() for part in target.split(".")):
        raise _refused(target, listed)


def _module(parts: list[str]) -> tuple[ModuleType | None, list[str]]:
    """The deepest module along the path, and the names left over."""
    module, used = None, 0
    for count in range(1, len(parts)):
        path = ".".join(parts[:count])
        try:
            module, used = import_module(path), count
        except ModuleNotFoundError as error:
            if error.name != path:
                raise
            break
    return module, parts[used:]


def _refused(target: str, listed: Sequence[str]) -> UserError:
    return UserError(
        "this _target_ is not one that may be built from a config",
        given=f"_target_: {target or 'nothing'}",
        allowed=[f"{each}.*" if each != "timm.create_model" else each for each in listed],
        do="for a package of your own: python train.py --allow=<package> ...",
    )


def _nested(value: Any, allow: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        return (
            build(value, allow) if "_target_" in value else {key: _nested(item, allow) for key, item in value.items()}
        )
    return [_nested(item, allow) for item in value] if isinstance(value, list) else value
