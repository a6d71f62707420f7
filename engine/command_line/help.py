"""--help: what may be typed, from the config files themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

from . import signature
from .comments import explanations, option_comments
from .compose import compose
from .compose_part import compose_part, part_file
from .config import Config
from .convert import as_typed, describe
from .groups import Groups
from .options import SCRIPTS, Options
from .part_keys import FREE, OFFERED

USAGE = {
    "train": """Train a model.

  python train.py [group=option ...] [key=value ...]

  python train.py resume=runs/<domain>/<model>/<run>         go on with a run
  python train.py init=runs/<domain>/<model>/<run>           begin with the weights of another run
  python train.py -m seed=0,1                                one run for each combination
  python train.py debug=fast                                 one step of everything
""",
    "evaluate": """Test the weights of a run.

  python eval.py ckpt=<run folder, checkpoint or published weights> [data=...] [data.key=value ...]

  python eval.py ckpt=runs/<domain>/<model>/<run>            its own test data
""",
    "predict": """Show what a trained model answers, and what its answers rest on.

  python predict.py ckpt=<run folder, checkpoint or published weights> [key=value ...]

  trainer.threads=2, trainer.accelerator=cpu and data.root=FOLDER are the run's own settings
""",
}
PRINT = "  --cfg                  print the whole configuration with its comments and stop"
SEVERAL = "  -m                     values with commas mean several runs"
OPTIONS = {"train": (PRINT, SEVERAL), "evaluate": (PRINT,), "predict": ()}
OWN = """
  --help domain=<name> model=<name>    the keys that these choices have
  --list [models|data|scans|experiments] [domain] [name]   what may be chosen; * in a name stands for any letters
  --config-dir=<folder>  a folder of your own, laid out like configs/: mine/model/my_net.yaml adds model=my_net
  --allow=<package>      let _target_ in these files name things in your own package, which must be importable
"""


def help_text(options: Options, job: str) -> str:
    """The help of a job: examples of every domain, groups and their options, keys."""
    groups = options.groups()
    lines = [USAGE[job], *_examples(groups, SCRIPTS[job]), *OWN.splitlines(), *OPTIONS[job], ""]
    if job == "train":
        config = compose(options.arguments, groups, options.allow)
        lines += ["Groups and their options" + f" in domain={config.domain}", ""]
        named = ((group, groups.options(group, config.domain)) for group in groups.names if group != "recipe")
        lines += [f"  {group:<12} {', '.join(names) or 'nothing yet'}" for group, names in named]
        values = config.plain()
        said, rows = explanations(values, groups), keys(values)
        lines += ["", "Keys, as they are with what was typed: value, what it may be, what it means", ""]
        lines += [
            *_table(rows, said),
            "",
            "A key of a nested part may be typed without the part where no other has it.",
        ]
    if job == "predict":
        lines += _options_to_predict(options, groups)
    return "\n".join(lines) + "\n"


def _examples(groups: Groups, script: str) -> list[str]:
    """The commands for a script that stand in the cards of the domains."""
    cards = [groups.domain_file(domain).get("card") or {} for domain in groups.domains]
    return [f"  python {line}" for card in cards for line in card.get("examples", ()) if line.startswith(script)]


def _options_to_predict(options: Options, groups: Groups) -> list[str]:
    typed = [each for each in options.arguments if not each.startswith("domain=")]
    named = [each.partition("=")[2] for each in options.arguments if each.startswith("domain=")]
    domain = named[-1] if named else groups.domain_of(None)
    groups.domain_file(domain)
    path = part_file("predict", domain, groups)
    if path is None:
        return []
    values = compose_part("predict", domain, typed, groups, options.allow)
    said = option_comments(path, groups.search_path(domain))
    rows = [(key.partition(".")[2], value, kind) for key, value, kind in _part("predict", values)]
    return [f"Options in domain={domain}: value, what it may be, what it means", "", *_table(rows, said)]


def _table(rows: Any, said: Mapping[str, str]) -> list[str]:
    shown = ((f"{key}={as_typed(value)}", kind, said.get(key, "")) for key, value, kind in rows)
    return [f"  {key:<38} {kind:<42} {text}".rstrip() for key, kind, text in shown]


def keys(values: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Every key that may be typed with a configuration: its dotted name, its value, and what it may be, in words."""
    hints = get_type_hints(Config, include_extras=True)
    for name, value in values.items():
        if name in FREE:
            yield from _part(name, value)
        elif isinstance(value, Mapping):
            kinds = get_type_hints(hints[name], include_extras=True) if hasattr(hints[name], "__mro__") else {}
            for key, inner in value.items():
                if key not in signature.LABELS:
                    yield f"{name}.{key}", inner, _words(kinds.get(key))
        elif name != "domain" and not isinstance(hints[name], type):
            yield name, value, _words(hints[name])


def _part(path: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """The keys of a part with a `_target_`, those that its file names first."""
    found = signature.of(str(values["_target_"])) or signature.Signature()
    more = [] if found.open else sorted(set(found.parameters) - set(values))
    for key, value in {**values, **dict.fromkeys(more)}.items():
        if key in signature.LABELS or key in OFFERED:
            continue
        kind = found.parameters.get(key)
        if isinstance(kind, signature.Signature) and value is not None:
            for name, each in {**dict.fromkeys(kind.parameters), **value}.items():
                yield f"{path}.{key}.{name}", each, _words(kind.parameters.get(name))
        else:
            yield f"{path}.{key}", value, _words(kind)


def _words(kind: Any) -> str:
    return "" if kind in (None, Any, object) else describe(kind)
