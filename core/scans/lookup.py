"""From what a user writes ("local", window=4; "raster+hilbert") to a Scan."""

from __future__ import annotations

import ast
import inspect
import types
import typing
from collections.abc import Sequence

from ..errors import UserError, closest
from .modes import MODES
from .scan import Part, Scan


def names() -> list[str]:
    """The names of all scan modes."""
    return list(MODES)


def get(name: str | Scan, **parameters) -> Scan:
    """The scan of that name.

    Args:
        name: a mode ("hilbert"), or modes joined with "+" ("raster+hilbert"): the paths of all of them. A mode of
            several may have its own parameters in brackets ("local(window=2)+local(window=7)"). A Scan stays as it is.
        parameters: the mode's parameters; with several modes, each goes to every mode that has it.

    Raises:
        UserError: an unknown name or parameter, or a value of the wrong type; the message says what is allowed.
    """
    if isinstance(name, Scan):
        if parameters:
            raise UserError("A scan that is already made takes no parameters.", given=parameters, do="Give its name.")
        return name
    written = _parse(name)
    accepted = {key for mode, _ in written for key in MODES[mode].parameters}
    for key, value in parameters.items():
        if key not in accepted:
            raise _unknown_parameter(name, key, value, accepted)
    parts = []
    for mode, inside in written:
        known = MODES[mode].parameters
        given = {key: value for key, value in parameters.items() if key in known} | inside
        values = tuple((key, _checked(mode, key, given.get(key, known[key].default))) for key in known)
        parts.append(Part(mode, values))
    return Scan(tuple(parts))


def _parse(text: str) -> list[tuple[str, dict[str, object]]]:
    """The modes and the parameters in their brackets."""
    try:
        terms = _terms(ast.parse(text.strip(), mode="eval").body)
        written = [_term(term, text) for term in terms]
    except (SyntaxError, ValueError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise _unknown_scan(text, text) from None
    for mode, inside in written:
        for key, value in inside.items():
            if key not in MODES[mode].parameters:
                raise _unknown_parameter(mode, key, value, MODES[mode].parameters)
    return written


def _terms(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*_terms(node.left), *_terms(node.right)]
    return [node]


def _term(node: ast.expr, text: str) -> tuple[str, dict[str, object]]:
    inside = {}
    if isinstance(node, ast.Call) and not node.args:
        inside = {keyword.arg: _literal(keyword.value) for keyword in node.keywords}
        node = node.func
    mode = node.id if isinstance(node, ast.Name) else ast.unparse(node)
    if mode not in MODES:
        raise _unknown_scan(mode, text)
    return mode, inside


def _literal(node: ast.expr) -> object:
    if isinstance(node, ast.Name) and node.id in ("true", "false"):
        return node.id == "true"
    return ast.literal_eval(node)


def _unknown_scan(mode: object, text: object) -> UserError:
    near = closest(mode, MODES)
    return UserError(
        f"There is no scan named '{mode}'.",
        given=f"scan={text}",
        allowed=[*MODES, "and several joined with +"],
        do=f"Did you mean scan={near}?" if near else None,
    )


def _unknown_parameter(scan: str, key: str, value: object, accepted: Sequence[str]) -> UserError:
    near = closest(key, accepted)
    return UserError(
        f"The scan '{scan}' has no parameter '{key}'.",
        given=f"{key}={value}",
        allowed=accepted or "no parameters at all",
        do=f"Did you mean {near}={value}?" if near else None,
    )


def _checked(mode: str, key: str, value: object) -> object:
    """The value in a hashable form, when it fits the parameter's annotation."""
    parameter: inspect.Parameter = MODES[mode].parameters[key]
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = tuple(value)
    kinds = typing.get_args(parameter.annotation) if _is_union(parameter.annotation) else (parameter.annotation,)
    if any(_fits(value, kind) for kind in kinds):
        return value
    raise UserError(
        f"The scan '{mode}' cannot take this value for '{key}'.",
        given=f"{key}={value!r}",
        allowed=" or ".join(_in_words(kind) for kind in kinds),
        do=f"Leave it out for {key}={parameter.default}.",
    )


def _is_union(annotation: object) -> bool:
    return isinstance(annotation, types.UnionType)


def _fits(value: object, kind: object) -> bool:
    if kind is int:
        return type(value) is int and value >= 1
    if kind is bool:
        return type(value) is bool
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and len(value) > 0 and all(_fits(item, int) for item in value)
    return any(type(value) is type(choice) and value == choice for choice in typing.get_args(kind))


def _in_words(kind: object) -> str:
    if kind is int:
        return "a whole number, 1 or more"
    if kind is bool:
        return "true or false"
    if typing.get_origin(kind) is tuple:
        return "one whole number for each axis"
    return ", ".join(map(str, typing.get_args(kind)))
