"""The domains that the tests which cross all of them run over: those of the package, and a toy one made in a temporary folder.

A domain joins by existing. What is its own to say stands in `tests/domains/<d>/crossing.py`:

    SHORT: arguments that make a run of any model take seconds; DEFAULT: further ones for the default model
    MODELS: further arguments for models that do not take the usual data, by name; may be left out
    prepare(folder): makes the files that SHORT names; may be left out
    ODD: lists of arguments, each a form of the data that is not the usual one (odd sizes, one sample, ...)
    PICTURES: files that a run leaves beside those of every run
    predict(folder) -> lists of arguments for predict.py, with the files they name made in the folder
    described(task) -> what data say of themselves to the task of this name (`Parts.describe`); left out where the data of SHORT
        serve every task of the domain
    EXPLAIN: arguments for a picture of what answers rest on; None: the domain has none
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import polymamba.configs

CONFIGS = Path(polymamba.configs.__file__).parent
TESTS = Path(__file__).resolve().parents[1]
TOY = TESTS / "support" / "toy_domain"
NAMES = sorted(path.parent.name for path in CONFIGS.glob("*/domain.yaml"))


@dataclass(frozen=True)
class Domain:
    """options: what is typed before everything else (a domain of the user's own: where its configs and its package are)."""

    name: str
    options: tuple[str, ...]
    crossing: ModuleType

    @property
    def chosen(self) -> tuple[str, ...]:
        """The options and the choice of the domain."""
        return (*self.options, f"domain={self.name}")

    def models(self) -> list[str]:
        """Its models, by name."""
        return sorted(path.stem for path in (CONFIGS / self.name / "model").glob("*.yaml"))


def packaged(name: str) -> Domain:
    """A domain of the package."""
    return Domain(name, (), _module(TESTS / "domains" / name / "crossing.py"))


def toy(folder: Path = TOY) -> Domain:
    """The toy domain: where it is, or copied into another folder; the folder has to be importable."""
    if folder != TOY:
        shutil.copytree(TOY, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return Domain("toy", (f"--config-dir={folder / 'configs'}", "--allow=toy"), _module(folder / "crossing.py"))


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"crossing_of_{path.parent.name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
