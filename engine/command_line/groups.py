"""The config groups and their options: configs/<group>/<option>.yaml, experiments/<name>.yaml, and folders a user adds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yaml import YAMLError

from ...core.errors import UserError, closest

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


class Groups:
    """What may be chosen, as files on disk.

    Args:
        folders: more folders laid out like configs/; they add options and may not replace one.
        experiments: the folder of reproduced results, the options of the group `experiments`.
    """

    def __init__(self, folders: Sequence[Path] = (), experiments: Path = EXPERIMENTS):
        self.folders = [CONFIGS, *folders]
        self.files: dict[str, dict[str, Path]] = {"experiments": _options(experiments)}
        for folder in self.folders:
            if not folder.is_dir():
                raise UserError(
                    "there is no such folder of configs", given=folder, do="--config-dir=<an existing folder>"
                )
            for group in sorted(each for each in folder.iterdir() if each.is_dir() and each.name != "__pycache__"):
                known = self.files.setdefault(group.name, {})
                for name, path in _options(group).items():
                    if name in known:
                        raise UserError(
                            f"two files define {group.name}={name}", given=f"{known[name]} and {path}", do="rename one"
                        )
                    known[name] = path

    def options(self, group: str) -> list[str]:
        """The names that may follow `group=`, sorted."""
        return sorted(self.files[group])

    def for_domain(self, group: str, domain: str) -> list[str]:
        """The options of a group whose file lists `domain` under `domains`, or lists none."""
        return [name for name in self.options(group) if domain in self._domains(group, name, domain)]

    def read(self, group: str, name: str) -> dict[str, Any]:
        """The plain content of one option's file."""
        values = read_yaml(self.files[group][name])
        domains = values.get("domains", [])
        if not isinstance(domains, list) or not all(isinstance(each, str) for each in domains):
            raise UserError(f"{self.files[group][name]}: domains is a list of words", given=domains, allowed="[vision]")
        return values

    def _domains(self, group: str, name: str, domain: str) -> Sequence[str]:
        try:
            return self.read(group, name).get("domains", [domain])
        except UserError:  # a file that nobody chose is not what this run has to tell about
            return []

    def summary(self, group: str, name: str) -> str:
        """An option's title and paper, from its card; without one, the first comment line of its file that says something."""
        card = self.read(group, name).get("card") or {}
        if card.get("title"):
            return "; ".join(str(card[key]) for key in ("title", "paper") if card.get(key))
        for line in self.files[group][name].read_text(encoding="utf-8").splitlines():
            if line.startswith("#") and "@package" not in line:
                return line.lstrip("# ").strip()
        return ""

    def check(self, group: str, name: str | None) -> None:
        """Raises UserError where `group=name` does not exist or cannot be read; None (choose nothing) always does."""
        if name is None:
            return
        if name in self.files[group]:
            self.read(group, name)
            return
        near = closest(name, self.options(group))
        raise UserError(
            f"there is no {group} {name!r}",
            given=f"{group}={name}",
            allowed=self.options(group) or "nothing yet",
            do=f"{group}={near}" if near else None,
        )


def read_yaml(path: Path) -> dict[str, Any]:
    """The plain content of a YAML file of keys, interpolations as they are written.

    Raises:
        UserError: it is none; the message names the line.
    """
    from omegaconf import OmegaConf

    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, YAMLError) as error:
        raise unreadable(path, error) from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no keys", given=type(values).__name__, allowed="lines of the form key: value")
    return values


def unreadable(path: Path | str, error: Exception) -> UserError:
    """The error for a YAML file that cannot be read: which line, and why."""
    mark = getattr(error, "problem_mark", None)
    line = f", line {mark.line + 1}" if mark is not None else ""
    why = getattr(error, "problem", None) or str(error).partition("\n")[0] or type(error).__name__
    do = "indent with spaces" if "'\\t'" in why else "each key once" if "duplicate" in why else "write it as key: value"
    return UserError(f"{path} cannot be read", given=f"{why}{line}", allowed="a YAML file", do=do)


def _options(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
