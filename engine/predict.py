"""A trained language model goes on with a prompt, and the text appears as it is made."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from ..core.errors import UserError
from ..core.ranges import Count, Positive, Range, Seed, Share, Size, Weight
from .command_line.config import Config
from .command_line.convert import from_mapping, unknown_key


@dataclass(frozen=True)
class Wanted:
    """What is asked of the model. max_new_tokens: None: until Ctrl-C. stop: text that ends it, \\n for a line's end."""

    prompt: str = ""
    max_new_tokens: Size | None = 400
    temperature: Weight = 0.8
    top_k: Count = 0
    top_p: Annotated[float, Range(0, 1, above=True)] = 0.95
    min_p: Share = 0.0
    repetition_penalty: Positive = 1.0
    stop: str = ""
    seed: Seed = 0


def read_wanted(arguments: Sequence[str]) -> Wanted:
    """The `key=value` arguments; the prompt may hold any characters.

    Raises:
        UserError: an unknown key, a value of the wrong type or outside its range.
    """
    words = {each.name for each in fields(Wanted) if each.type == "str"}
    values: dict[str, Any] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError(
                "not of the form key=value", given=argument, allowed=[f"{each.name}=..." for each in fields(Wanted)],
                do=f'prompt="{argument}"',
            )  # fmt: skip
        if key not in {each.name for each in fields(Wanted)}:
            raise unknown_key(key, ["ckpt", *(each.name for each in fields(Wanted))], value)
        values[key] = value if key in words else _number(value)
    return from_mapping(Wanted, values)


def predict(
    config: Config,
    checkpoint: Path,
    wanted: Wanted,
    *,
    allow: Sequence[str] = (),
    write: Callable[[str], Any] | None = None,
) -> str:
    """Writes the prompt and what the model makes of it, piece by piece.

    Args:
        config: the configuration of the run that the checkpoint is from.
        checkpoint: a checkpoint folder.
        wanted: what was asked for.
        allow: further packages that a `_target_` may come from.
        write: where the pieces go; None: standard output, at once.

    Returns:
        the new text.

    Raises:
        UserError: the run is not a language model, or its weights do not fit.
    """
    model, tokenizer = _language_model(config, checkpoint, allow)
    return go_on(model, tokenizer, wanted, write)


def go_on(model: Any, tokenizer: Any, wanted: Wanted, write: Callable[[str], Any] | None = None) -> str:
    """Writes the prompt and what a language model makes of it; arguments and result as of `predict`."""
    write = write or _show
    from ..domains.nlp.generation import stream

    options = {each.name: getattr(wanted, each.name) for each in fields(Wanted) if each.name != "prompt"}
    options["stop"] = wanted.stop.replace("\\n", "\n").replace("\\t", "\t")
    said = []
    write(wanted.prompt)
    for step in stream(model, wanted.prompt, tokenizer, **options):
        if step.text[0]:
            write(step.text[0])
            said.append(step.text[0])
    write("\n")
    return "".join(said)


def _language_model(config: Config, checkpoint: Path, allow: Sequence[str]) -> tuple[Any, Any]:
    """The model with its weights on the run's device, and the run's own tokenizer."""
    from .training.assembly import build_trained
    from .training.hardware import choose_hardware

    hardware = choose_hardware(config.trainer)
    parts = build_trained(config, checkpoint, allow, with_data=False)
    tokenizer = parts.describe.get("tokenizer")
    if tokenizer is None or not hasattr(parts.model, "lm_head"):
        raise UserError(
            "this run is not a language model: it cannot go on with a text",
            given=f"data={parts.describe.get('name')}, model={config.model.get('name')}",
            allowed="runs of domain=nlp task=language_modelling", do="python eval.py ckpt=... tests other models",
        )  # fmt: skip
    return parts.model.to(hardware.device).eval(), tokenizer


def _show(text: str) -> None:
    # Half a surrogate or a letter that the terminal's encoding lacks must not end the text.
    sys.stdout.write(text.encode(sys.stdout.encoding or "utf-8", "replace").decode(sys.stdout.encoding or "utf-8"))
    sys.stdout.flush()


def _number(text: str) -> Any:
    if text in ("null", "none", "None", ""):
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
