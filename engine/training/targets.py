"""The one place where a config's `_target_` becomes an object: only names on a short list are ever imported or called."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

from ...core.errors import UserError
from ..command_line import signature
from ..command_line.convert import from_mapping, unknown_key
from ..command_line.signature import LABELS

ALLOWED = ("polymamba.core", "polymamba.domains", "polymamba.data", "timm.create_model", "torch.nn", "torch.optim")
# What unpickles a file, which may run any code that stands in it; refused also where the person allows the package.
PICKLES = (
    "pickle", "_pickle", "joblib", "dill", "cloudpickle", "marshal", "shelve", "torch.load", "torch.serialization",
    "torch.jit.load", "torch.jit._serialization", "torch.hub", "torch.package", "pandas.read_pickle", "pandas.io.pickle",
)  # fmt: skip
# Keys of timm.create_model's pretrained_cfg that name weights of the config's choice.
SOURCES = ("url", "file", "state_dict", "hf_hub_id", "custom_load", "source")


def build(config: Mapping[str, Any], allow: Sequence[str] = (), path: str = "", **offered: Any) -> Any:
    """The object that `config["_target_"]` names, called with the config's other keys.

    A mapping for a parameter that is annotated with a dataclass is made into one, its names, types and ranges checked.

    Args:
        config: plain values; a nested mapping with a `_target_` is built first. LABELS are passed on only where the target has
            parameters of that name.
        allow: further packages a target may come from, named by the person who starts the run.
        path: the dotted key of the config, for messages.
        offered: arguments given to the target where it has parameters of that name (describe, scan, model).

    Raises:
        UserError: a target outside the list, a key that the target does not take, a required one that is missing,
            a file to unpickle; what the target itself raises, in one line.
    """
    target = str(config.get("_target_", ""))
    found = resolve(target, allow)
    accepts = signature.of(target) or _inspected(found)
    parameters = accepts.parameters
    arguments = {key: value for key, value in offered.items() if key in parameters}
    for key, value in config.items():
        if key in LABELS and key not in parameters:
            continue
        if key not in parameters and not accepts.open:
            raise unknown_key(key, list(parameters), value)
        _check_unpickles_nothing(key, value, path)
        place = f"{path}.{key}".lstrip(".")
        if key in accepts.nested and isinstance(value, Mapping):
            arguments[key] = from_mapping(_annotation(found, key), value, f"{place}.")
        else:
            arguments[key] = _nested(value, allow, place)
    missing = [name for name in accepts.required if name not in arguments]
    if missing:
        raise UserError(
            f"{target} needs more keys", given=sorted(arguments), allowed=list(parameters), do=f"add {missing}"
        )
    try:
        return found(**arguments)
    except UserError:
        raise
    # Whatever another library objects to was written in the config.
    except Exception as error:
        describe = arguments.get("describe")
        if isinstance(error, KeyError) and isinstance(describe, Mapping) and error.args[0] not in describe:
            name, data = config.get("name", target), describe.get("name")
            raise UserError(
                f"{path or 'this'} {name!r} is not for these data: they say no {error.args[0]!r}",
                given=f"data={data}",
                do=f"leave data= or {path}= out: what is typed brings what goes with it",
            ) from error
        raise UserError(
            f"{target} cannot be built: {one_line(error)}", given=named_settings(config, path, str(error)),
            do=f"change {path or 'it'}, or choose another {path or 'one'}",
        ) from error  # fmt: skip


def _annotation(found: Any, name: str) -> type:
    """The dataclass that a parameter is annotated with; X of X | None."""
    hint = get_type_hints(found.__init__ if isinstance(found, type) else found)[name]
    return hint if isinstance(hint, type) else next(each for each in get_args(hint) if is_dataclass(each))


def _inspected(found: Any) -> signature.Signature:
    """The signature of what has no source that can be read: compiled or generated code."""
    named = [each for each in inspect.signature(found).parameters.values() if each.kind is not each.VAR_POSITIONAL]
    plain = {each.name: each for each in named if each.kind is not each.VAR_KEYWORD}
    required = tuple(name for name, each in plain.items() if each.default is each.empty)
    return signature.Signature(dict.fromkeys(plain, Any), len(plain) < len(named), required)


def one_line(error: BaseException) -> str:
    """What an error says, on one line, and where it was raised."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = f" ({Path(frame.tb_frame.f_code.co_filename).name}, line {frame.tb_lineno})" if frame is not None else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{where}"


def named_settings(config: Mapping[str, Any], path: str, said: str) -> str:
    """The settings that an error's text names, by key or value; all of them where it names none."""
    settings = {key: value for key, value in config.items() if key not in LABELS and value is not None}
    words = {key: f"{key}|{re.escape(value)}" if isinstance(value, str) else key for key, value in settings.items()}
    named = {key: settings[key] for key, each in words.items() if re.search(rf"\b(?:{each})\b", said)}
    prefix = f"{path}." if path else ""
    shown = [f"{prefix}{key}={value}" for key, value in (named or settings).items()]
    return " ".join(shown) or f"{prefix}_target_={config['_target_']}"


def _check_unpickles_nothing(key: str, value: Any, path: str) -> None:
    names_weights = key in ("pretrained_cfg", "pretrained_cfg_overlay") and isinstance(value, Mapping)
    refused = [f"{key}.{each}" for each in SOURCES if value.get(each)] if names_weights else []
    if key == "checkpoint_path" and value and not str(value).endswith(".safetensors"):
        refused = [key]
    if (key == "allow_pickle" and value) or (key == "weights_only" and value is False):
        refused = [key]
    if refused:
        raise _pickles(", ".join(f"{path}.{each}".lstrip(".") for each in refused) + f" ({key}={value})")


def resolve(target: str, allow: Sequence[str] = ()) -> Any:
    """The class or function behind a dotted path, if it is on the list.

    Nothing outside the listed packages is imported, and an object that such a package merely imported from elsewhere
    (`polymamba.data.files.os`) is refused.

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
    real = f"{origin}.{getattr(found, '__qualname__', '')}"
    if _unpickles(real):
        raise _pickles(target)
    inside = any(origin == root or origin.startswith(f"{root}.") for root in roots)
    if isinstance(found, ModuleType) or not callable(found) or not inside:
        raise _refused(target, listed)
    return found


def check_listed(target: str, allow: Sequence[str] = ()) -> None:
    """Raises UserError where a dotted path is not below a listed package; imports nothing."""
    listed = (*ALLOWED, *allow)
    if _unpickles(target):
        raise _pickles(target)
    known = any(target == each or target.startswith(f"{each}.") for each in listed)
    if not known or any(part.startswith("_") or not part.isidentifier() for part in target.split(".")):
        raise _refused(target, listed)


def _pickles(given: str) -> UserError:
    return UserError(
        "a config may not name a file to unpickle: that can run any code", given=given, allowed="weights as .safetensors",
        do="leave it out; init=<run folder> begins with the weights of a run",
    )  # fmt: skip


def _unpickles(name: str) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in PICKLES)


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


def _nested(value: Any, allow: Sequence[str], path: str) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return build(value, allow, path)
        for key, item in value.items():
            _check_unpickles_nothing(key, item, path)
        return {key: _nested(item, allow, f"{path}.{key}") for key, item in value.items()}
    return [_nested(item, allow, path) for item in value] if isinstance(value, list) else value
