"""The few options that are not configuration: --help, --cfg, -m, --config-dir, --allow."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import UserError
from .groups import Groups

SCRIPTS = {"train": "train.py", "evaluate": "eval.py", "predict": "predict.py"}


@dataclass(frozen=True)
class Options:
    """What was typed, sorted out.

    Args:
        arguments: the key=value arguments.
        help, show_config, sweep: --help, --cfg, -m.
        config_dirs: folders laid out like configs/ that add options.
        allow: further packages that a `_target_` may come from.
    """

    arguments: tuple[str, ...]
    help: bool = False
    show_config: bool = False
    sweep: bool = False
    config_dirs: tuple[Path, ...] = ()
    allow: tuple[str, ...] = ()

    def groups(self) -> Groups:
        """The config groups with those of the user's folders."""
        return Groups(self.config_dirs)

    def command(self, script: str, *arguments: str) -> str:
        """A command line to paste: this Python, a script beside the one that runs, these options and arguments."""
        extra = [f"--config-dir={each}" for each in self.config_dirs] + [f"--allow={each}" for each in self.allow]
        return shlex.join([_short(sys.executable), _script(script), *extra, *arguments])


def read_options(arguments: Sequence[str]) -> Options:
    """Sorts options from key=value arguments, in any order.

    Raises:
        UserError: an option without its value.
    """
    plain, flags, folders, packages = [], set(), [], []
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.partition("=")
        if name in ("--config-dir", "--allow"):
            if not equals and waiting:
                value = waiting.pop(0)
            if not value:
                raise UserError(
                    f"{name} needs a value", given=word, do=f"{name}=<{'folder' if 'dir' in name else 'package'}>"
                )
            folders.append(Path(value).resolve()) if name == "--config-dir" else packages.append(value)
        elif word in ("--help", "-h", "help"):
            flags.add("help")
        elif word in ("--cfg", "-c", "--cfg=job"):
            flags.add("show_config")
            if waiting and waiting[0] in ("job", "all"):
                waiting.pop(0)
        elif word in ("-m", "--multirun"):
            flags.add("sweep")
        elif word in ("--resolve",):
            continue
        else:
            plain.append(word)
    return Options(tuple(plain), **dict.fromkeys(flags, True), config_dirs=tuple(folders), allow=tuple(packages))


def corrected(wrong: str, right: str, arguments: Sequence[str]) -> str:
    """The command line that was typed, to paste, with one argument put right."""
    words = sys.argv[1:] if wrong in sys.argv[1:] else list(arguments)
    name = Path(sys.argv[0]).name if sys.argv else ""
    script = name if name in SCRIPTS.values() else SCRIPTS["train"]
    return shlex.join(["python", _script(script), *(right if each == wrong else each for each in words)])


def joined(words: Sequence[str], script: str) -> str:
    """A command line, to paste, in which words that a space tore off are part of the value before them again."""
    whole: list[str] = []
    for word in words:
        torn = whole and not whole[-1].startswith("-") and not word.startswith(("-", "~"))
        if torn and (whole[-1].endswith("=") or word.startswith("=")):
            whole[-1] += word
        elif torn and "=" in whole[-1] and "=" not in word:
            whole[-1] += f" {word}"
        else:
            whole.append(word)
    return shlex.join(["python", _script(script), *whole])


def _short(executable: str) -> str:
    if shutil.which("python") == executable:
        return "python"
    path = Path(executable)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else executable


def _script(name: str) -> str:
    here = Path(sys.argv[0]).with_name(name) if sys.argv and sys.argv[0] else Path(name)
    return str(here if here.exists() else Path(name))
