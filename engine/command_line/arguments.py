"""`key=value` arguments in Hydra's grammar, one by one."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from ...core.errors import UserError
from .options import corrected


def parse(arguments: Sequence[str]) -> list[Override]:
    """The arguments in Hydra's grammar.

    Raises:
        UserError: an argument that is not `key=value`.
    """
    parsed = []
    for argument in arguments:
        if argument.startswith("-"):
            raise UserError(
                f"there is no option {argument!r}",
                given=argument,
                allowed="key=value, --help, --list, --cfg, -m, --config-dir=<folder>, --allow=<package>",
                do=argument.lstrip("-") if "=" in argument else "python train.py --help",
            )
        if "=" not in argument and not argument.startswith("~"):
            raise UserError("not of the form key=value", given=argument, allowed="key=value", do=f"{argument}=<value>")
        try:
            parsed += OverridesParser.create().parse_overrides([argument])
        except HydraException as error:
            raise UserError(
                "this argument cannot be read", given=argument, allowed="key=value",
                do=corrected(argument, quoted(argument), arguments),
            ) from error  # fmt: skip
    return parsed


def quoted(argument: str) -> str:
    """`key=value` with the value in the quotes that Hydra's grammar asks for where it is not a plain word."""
    key, _, value = argument.partition("=")
    value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{key}="{value}"'


def check_single(override: Override) -> None:
    """Raises UserError where an argument deletes a key, or gives several values at once."""
    if override.is_delete():
        raise UserError("nothing can be deleted", given=override.input_line, do=f"{override.key_or_group}=null")
    if override.is_sweep_override():
        raise UserError(
            "several values at once need -m (one run each)", given=override.input_line,
            allowed="one value", do=f"python train.py -m {override.input_line}",
        )  # fmt: skip
