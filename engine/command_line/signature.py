"""What a `_target_` accepts, read from its source without importing it: a typing mistake is found before torch is loaded."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from ...core import ranges

PACKAGE = "polymamba"
RANGES = {name: hint for name, hint in vars(ranges).items() if get_origin(hint) is Annotated}


@dataclass(frozen=True)
class Signature:
    """The keyword arguments of a function or class.

    Args:
        parameters: name -> type; `object` (anything but null) where it is not a plain one, `Any` where it is not written.
        open: True where further names are accepted that cannot be known without running it.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    open: bool = False


def of(target: str) -> Signature | None:
    """The signature of a dotted path `package.module.name`; None for what cannot be read (compiled, generated, not there)."""
    module, _, name = target.rpartition(".")
    return _lookup(module, name) if module else None


def source_file(module: str) -> Path | None:
    """The file of a module, found without importing it or anything above it (the namespace of this package excepted)."""
    parts = module.split(".")
    top = 2 if parts[0] == PACKAGE else 1
    try:
        spec = find_spec(".".join(parts[:top]))
    except (ImportError, ValueError):
        return None
    if spec is None or len(parts) < top:
        return None
    if not spec.submodule_search_locations:
        return Path(spec.origin) if len(parts) == top and spec.origin and spec.origin.endswith(".py") else None
    path = Path(next(iter(spec.submodule_search_locations)), *parts[top:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _lookup(module: str, name: str) -> Signature | None:
    path = source_file(module)
    if path is None:
        return None
    is_package = path.name == "__init__.py"
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _of_function(node, module)
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _of_class(node, module)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    origin = _origin(node, module, is_package)
                    return _lookup(origin, alias.name)
    return None


def _origin(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if node.level == 0:
        return node.module or ""
    parts = module.split(".")
    base = parts[: len(parts) - node.level + is_package]
    return ".".join([*base, *([node.module] if node.module else [])])


def _of_class(node: ast.ClassDef, module: str) -> Signature | None:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _of_function(item, module, node)
    if any("dataclass" in ast.dump(decorator) for decorator in node.decorator_list):
        own = {
            item.target.id: _type(item.annotation)
            for item in node.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        }
        inherited = _of_parent(node, module)
        return Signature({**(inherited.parameters if inherited else {}), **own})
    return _of_parent(node, module)


def _of_parent(node: ast.ClassDef, module: str) -> Signature | None:
    for base in node.bases:
        found = _lookup(module, base.id) if isinstance(base, ast.Name) else None
        if found is not None:
            return found
    return None


def _of_function(node: ast.FunctionDef, module: str, owner: ast.ClassDef | None = None) -> Signature:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    parameters = {each.arg: _type(each.annotation) for each in arguments if each.arg not in ("self", "cls")}
    positional = [*node.args.posonlyargs, *node.args.args]
    defaults = dict(zip(reversed(positional), reversed(node.args.defaults), strict=False))
    defaults |= dict(zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True))
    for each, default in defaults.items():
        if isinstance(default, ast.Constant) and default.value is None and each.arg in parameters:
            parameters[each.arg] = parameters[each.arg] | None
    if node.args.kwarg is None:
        return Signature(parameters)
    forwarded = _forwarded(node, module, node.args.kwarg.arg, owner)
    if not forwarded:
        return Signature(parameters, open=True)
    for each in forwarded:
        parameters = {**each.parameters, **parameters}
    return Signature(parameters, open=any(each.open for each in forwarded))


def _forwarded(node: ast.FunctionDef, module: str, name: str, owner: ast.ClassDef | None) -> list[Signature]:
    """The signatures of what `**name` is handed on to inside the function."""
    found = []
    for call in (each for each in ast.walk(node) if isinstance(each, ast.Call)):
        if not any(
            word.arg is None and isinstance(word.value, ast.Name) and word.value.id == name for word in call.keywords
        ):
            continue
        function, signature = call.func, None
        if isinstance(function, ast.Name):
            signature = _lookup(module, function.id)
        elif owner is not None and isinstance(function, ast.Attribute) and function.attr == "__init__":
            signature = _of_parent(owner, module)
        if signature is None:
            return []
        found.append(signature)
    return found


def _type(annotation: ast.expr | None) -> Any:
    """The annotation as a type where it is made of plain words (int, str | None, Literal["a"], tuple[int, int]) and of the
    names of core.ranges, else object."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if annotation is None or isinstance(annotation, ast.Attribute):
        return Any
    plain = {"int": int, "float": float, "str": str, "bool": bool, "dict": dict, "list": list, "tuple": tuple} | RANGES
    if isinstance(annotation, ast.Constant) and annotation.value is None:
        return type(None)
    if isinstance(annotation, ast.Name):
        return plain.get(annotation.id, object)
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _type(annotation.left) | _type(annotation.right)
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name):
        return _subscripted(annotation.value.id, annotation.slice)
    return object


def _subscripted(name: str, inside: ast.expr) -> Any:
    items = inside.elts if isinstance(inside, ast.Tuple) else [inside]
    if name == "Literal" and all(isinstance(item, ast.Constant) for item in items):
        return Literal[tuple(item.value for item in items)]
    if name in ("tuple", "list", "Sequence"):
        kinds = [
            Ellipsis if isinstance(item, ast.Constant) and item.value is Ellipsis else _type(item) for item in items
        ]
        return tuple[tuple(kinds)] if name == "tuple" else list[kinds[0]]
    return dict if name in ("dict", "Mapping") else object
