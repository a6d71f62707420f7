"""The config groups and their options, as files: configs/<group>/, a domain's own configs/<domain>/<group>/ and
experiments/<domain>/, and folders laid out in the same way that a user adds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ...core.errors import UserError, closest
from .yaml_files import read_yaml

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
ROOT, DOMAIN = "train.yaml", "domain.yaml"


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
