"""The config groups and their options, as files: configs/<group>/, a domain's own configs/<domain>/<group>/ and
experiments/<domain>/, and folders laid out in the same way that a user adds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml
from yaml import YAMLError

from ...core.errors import UserError, closest

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
ROOT, DOMAIN = "train.yaml", "domain.yaml"


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML as OmegaConf reads it, by libyaml where PyYAML was built with it, ten times as quick: 1e-3 is a number, a date a word,
    a key that stands twice a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                mark = node.value[place][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"found duplicate key {key[1]}", mark)
        return super().construct_mapping(node, deep)


Loader.yaml_implicit_resolvers = {
    letter: [each for each in known if each[0] != "tag:yaml.org,2002:timestamp"]
    for letter, known in Loader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+$"), list("-+0123456789")
)

Files = dict[str, dict[str, Path]]  # group -> option -> file


class Groups:
    """What may be chosen. A domain is a folder with a domain.yaml; its options are seen by its runs alone.

    Args:
        folders: more folders laid out like configs/; they add options and domains, and may not replace one.
        experiments: the folder of reproduced results, with a folder for each domain; the options of the group `experiments`.

    Raises:
        UserError: a folder that is not there.
    """

    def __init__(self, folders: Sequence[Path] = (), experiments: Path = EXPERIMENTS):
        self.folders, self.experiments = [CONFIGS, *folders], experiments
        for folder in self.folders:
            if not folder.is_dir():
                raise UserError(
                    "there is no such folder of configs", given=folder, do="--config-dir=<an existing folder>"
                )
        self.domains = {path.parent.name: path for each in self.folders for path in sorted(each.glob(f"*/{DOMAIN}"))}
        self._files: dict[str, Files] = {}

    @cached_property
    def root(self) -> dict[str, Any]:
        """What train.yaml says."""
        return read_yaml(CONFIGS / ROOT)

    @cached_property
    def names(self) -> list[str]:
        """The groups, sorted: those of train.yaml, and the domain."""
        defaults = [next(iter(each)) for each in self.root["defaults"] if isinstance(each, dict)]
        return sorted(["domain", *(each.removeprefix("optional ") for each in defaults)])

    def search_path(self, domain: str) -> list[Path]:
        """The folders where a domain's options are looked for, those of this package first."""
        return [place for each in self.folders for place in (each, each / domain) if place.is_dir()]

    def files(self, domain: str) -> Files:
        """The options of every group, for a domain.

        Raises:
            UserError: two files that define one option.
        """
        if domain not in self._files:
            found: Files = {group: {} for group in self.names} | {"domain": dict(self.domains)}
            places = [(group, place / group) for place in self.search_path(domain) for group in self.names]
            for group, folder in [*places, ("experiments", self.experiments / domain)]:
                for path in sorted(folder.glob("*.yaml")):
                    if path.stem in found[group]:
                        both = f"{found[group][path.stem]} and {path}"
                        raise UserError(f"two files define {group}={path.stem}", given=both, do="rename one")
                    found[group][path.stem] = path
            self._files[domain] = found
        return self._files[domain]

    def options(self, group: str, domain: str) -> list[str]:
        """The names that may follow `group=`, sorted."""
        return sorted(self.files(domain)[group])

    def domain_of(self, experiment: str | None) -> str:
        """The domain of a run where none is typed: the one whose folder holds its experiment, else the one of train.yaml."""
        usual = str(self.root["domain"])
        if experiment is None:
            return usual
        holding = [each for each in self.domains if experiment in self.files(each)["experiments"]]
        if usual in holding or len(holding) < 2:
            return usual if usual in holding or not holding else holding[0]
        raise UserError(
            f"several domains have an experiment {experiment!r}", given=f"experiments={experiment}",
            allowed=[f"domain={each}" for each in holding], do=f"domain={holding[0]} experiments={experiment}",
        )  # fmt: skip

    def domain_file(self, domain: str) -> dict[str, Any]:
        """The plain content of a domain's domain.yaml.

        Raises:
            UserError: there is no such domain, or its file cannot be read.
        """
        if domain not in self.domains:
            near = closest(domain, self.domains)
            do = f"domain={near}" if near else None
            raise UserError(
                f"there is no domain {domain!r}", given=f"domain={domain}", allowed=sorted(self.domains), do=do
            )
        return read_yaml(self.domains[domain])

    def read(self, group: str, name: str, domain: str) -> dict[str, Any]:
        """The plain content of one option's file.

        Raises:
            UserError: there is no such option, or another domain has it, or its file cannot be read.
        """
        files = self.files(domain)[group]
        if name in files:
            return read_yaml(files[name])
        elsewhere = [each for each in self.domains if name in self.files(each)[group]]
        if elsewhere:
            raise UserError(
                f"{group} {name!r} belongs to {' and '.join(elsewhere)}, not to {domain}",
                given=f"domain={domain} {group}={name}",
                allowed=f"{group} of {domain}: {', '.join(sorted(files)) or 'nothing yet'}",
                do=f"domain={elsewhere[0]} {group}={name}",
            )
        near = closest(name, files)
        raise UserError(
            f"there is no {group} {name!r}", given=f"{group}={name}", allowed=sorted(files) or "nothing yet",
            do=f"{group}={near}" if near else None,
        )  # fmt: skip

    def summary(self, group: str, name: str, domain: str) -> str:
        """An option's title and paper, from its card; without one, the first comment line of its file that says something."""
        card = self.read(group, name, domain).get("card") or {}
        if card.get("title"):
            return "; ".join(str(card[key]) for key in ("title", "paper") if card.get(key))
        for line in self.files(domain)[group][name].read_text(encoding="utf-8").splitlines():
            if line.startswith("#") and "@package" not in line:
                return line.lstrip("# ").strip()
        return ""


def read_yaml(path: Path) -> dict[str, Any]:
    """The plain content of a YAML file of keys, interpolations as they are written.

    Raises:
        UserError: it is none; the message names the line.
    """
    try:
        values = _read(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, YAMLError) as error:
        raise unreadable(path, error) from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no keys", given=type(values).__name__, allowed="lines of the form key: value")
    return deepcopy(values)


@cache
def _read(path: Path, changed: int) -> Any:
    # One start asks for a file several times: what it offers, what goes with it, what it says of its keys.
    return yaml.load(path.read_text(encoding="utf-8"), Loader=Loader) or {}


def unreadable(path: Path | str, error: Exception) -> UserError:
    """The error for a YAML file that cannot be read: which line, and why."""
    mark = getattr(error, "problem_mark", None)
    line = f", line {mark.line + 1}" if mark is not None else ""
    why = getattr(error, "problem", None) or str(error).partition("\n")[0] or type(error).__name__
    does = {"tab": "indent with spaces", "\\t": "indent with spaces", "duplicate": "each key once"}
    do = next((does[word] for word in does if word in why), "write it as key: value")
    return UserError(f"{path} cannot be read", given=f"{why}{line}", allowed="a YAML file", do=do)
