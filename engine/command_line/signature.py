"""What a `_target_` accepts, read from its source without importing it: a typing mistake is found before torch is loaded.

The one reader of signatures: checking, --help and building go by it.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard, get_origin

from ...core import ranges

PACKAGE = "polymamba"
RANGES = {name: hint for name, hint in vars(ranges).items() if get_origin(hint) is Annotated}


PLAIN = {"int": int, "float": float, "str": str, "bool": bool, "dict": dict, "list": list, "tuple": tuple}
# Keys of an option's file that are no arguments: passed on only where the target has a parameter of that name.
# domains: files written before a domain had a folder of its own name theirs.
LABELS = ("_target_", "name", "card", "choose", "domains", "defaults")


@dataclass(frozen=True, eq=False)
class Signature:
    """The keyword arguments of a function or class.

    Args:
        parameters: name -> type; `object` (anything but null) where it is not a plain one, `Any` where it is not written, a
            Signature where it is a dataclass: a nested part.
        open: True where further names are accepted that cannot be known without running it.
        required: the names without a default.
        nullable: of a nested part: null stands for none.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    open: bool = False
    required: tuple[str, ...] = ()
    nullable: bool = False

    @property
    def nested(self) -> dict[str, Signature]:
        """The parameters that are parts with keys of their own."""
        return {name: kind for name, kind in self.parameters.items() if isinstance(kind, Signature)}


def of(target: str) -> Signature | None:
    """The signature of a dotted path `package.module.name`; None for what cannot be read (compiled, generated, not there)."""
    module, _, name = target.rpartition(".")
    node, home = _definition(module, name) if module else (None, "")
    if isinstance(node, ast.ClassDef):
        return _of_class(node, home)
    return _of_function(node, home) if isinstance(node, ast.FunctionDef) else None


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


def _definition(module: str, name: str, near: bool = False) -> tuple[ast.stmt | None, str]:
    """The statement that defines a name at the top of a module, and the module where it stands; None where there is none.

    near: look no further than the module's own package and this one; what other libraries name in annotations is slow to read.
    """
    path = source_file(module)
    for node in _tree(path).body if path is not None else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node, module
        if isinstance(node, ast.Assign) and any(
            isinstance(each, ast.Name) and each.id == name for each in node.targets
        ):
            return node, module
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    origin = _origin(node, module, path.name == "__init__.py")
                    far = near and origin.partition(".")[0] not in (module.partition(".")[0], PACKAGE)
                    return (None, module) if far else _definition(origin, alias.name, near)
    return None, module


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
    inherited = _of_parent(node, module)
    if not _is_dataclass(node):
        return inherited
    inherited = inherited or Signature()
    own = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
    kinds = {item.target.id: _parameter(item.annotation, module) for item in own}
    required = tuple(item.target.id for item in own if item.value is None)
    return Signature({**inherited.parameters, **kinds}, required=(*inherited.required, *required))


def _is_dataclass(node: ast.stmt | None) -> TypeGuard[ast.ClassDef]:
    return isinstance(node, ast.ClassDef) and any("dataclass" in ast.dump(each) for each in node.decorator_list)


def _of_parent(node: ast.ClassDef, module: str) -> Signature | None:
    found = (of(f"{module}.{base.id}") for base in node.bases if isinstance(base, ast.Name))
    return next((each for each in found if each is not None), None)


def _of_function(node: ast.FunctionDef, module: str, owner: ast.ClassDef | None = None) -> Signature:
    positional = [*node.args.posonlyargs, *node.args.args]
    arguments = [each for each in (*positional, *node.args.kwonlyargs) if each.arg not in ("self", "cls")]
    parameters = {each.arg: _parameter(each.annotation, module) for each in arguments}
    defaults = dict(zip([each.arg for each in reversed(positional)], reversed(node.args.defaults), strict=False))
    keyword = zip((each.arg for each in node.args.kwonlyargs), node.args.kw_defaults, strict=True)
    defaults |= {name: default for name, default in keyword if default is not None}
    for name, default in defaults.items():
        if isinstance(default, ast.Constant) and default.value is None and name in parameters:
            parameters[name] = _or_null(parameters[name])
    required = tuple(name for name in parameters if name not in defaults)
    if node.args.kwarg is None:
        return Signature(parameters, required=required)
    forwarded = _forwarded(node, module, node.args.kwarg.arg, owner)
    for each in forwarded:
        parameters = {**each.parameters, **parameters}
    return Signature(parameters, not forwarded or any(each.open for each in forwarded), required)


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
            signature = of(f"{module}.{function.id}")
        elif owner is not None and isinstance(function, ast.Attribute) and function.attr == "__init__":
            signature = _of_parent(owner, module)
        if signature is None:
            return []
        found.append(signature)
    return found


def _parameter(annotation: ast.expr | None, module: str) -> Any:
    """The type of a parameter: a Signature for a dataclass (or None), else what `_type` makes of the annotation."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if (
        isinstance(annotation, ast.BinOp)
        and isinstance(annotation.right, ast.Constant)
        and annotation.right.value is None
    ):
        return _or_null(_parameter(annotation.left, module))
    if isinstance(annotation, ast.Name) and annotation.id not in PLAIN | RANGES:
        node, home = _definition(module, annotation.id, near=True)
        if _is_dataclass(node):
            return _of_class(node, home)
    return _type(annotation, module)


def _or_null(kind: Any) -> Any:
    return replace(kind, nullable=True) if isinstance(kind, Signature) else kind | None


def _type(annotation: ast.expr | None, module: str) -> Any:
    """The annotation as a type where it is made of plain words (int, str | None, Literal["a"], tuple[int, int]), of a Range, of
    the names of core.ranges, and of names given to such types in a module; else object."""
    if annotation is None or isinstance(annotation, ast.Attribute):
        return Any
    if isinstance(annotation, ast.Constant) and annotation.value is None:
        return type(None)
    if isinstance(annotation, ast.Name):
        known = PLAIN | RANGES
        if annotation.id in known:
            return known[annotation.id]
        node, home = _definition(module, annotation.id, near=True)
        return _type(node.value, home) if isinstance(node, ast.Assign) else object
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _type(annotation.left, module) | _type(annotation.right, module)
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name):
        return _subscripted(annotation.value.id, annotation.slice, module)
    return object


def _subscripted(name: str, inside: ast.expr, module: str) -> Any:
    items = inside.elts if isinstance(inside, ast.Tuple) else [inside]
    if name == "Literal" and all(isinstance(item, ast.Constant) for item in items):
        return Literal[tuple(item.value for item in items)]
    if name == "Annotated" and isinstance(items[1], ast.Call):
        values = [ast.literal_eval(each) for each in items[1].args]
        options = {each.arg: ast.literal_eval(each.value) for each in items[1].keywords}
        return Annotated[_type(items[0], module), ranges.Range(*values, **options)]
    if name in ("tuple", "list", "Sequence"):
        kinds = [
            Ellipsis if isinstance(item, ast.Constant) and item.value is Ellipsis else _type(item, module)
            for item in items
        ]
        return tuple[tuple(kinds)] if name == "tuple" else list[kinds[0]]
    return dict if name in ("dict", "Mapping") else object
