"""Makes `import mamba_ssm` and `import causal_conv1d` find this core where the real packages are absent."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType

from .hf_models import MODELS, give_back, take, take_over
from .loaded import is_model, rewire, rewire_module
from .names import ABSENT, ABSENT_MODULES, MODULES, VERSIONS

PACKAGES = tuple(VERSIONS)


def install(force: bool = False) -> list[str]:
    """Let imports of mamba_ssm and causal_conv1d resolve to this core; published code then runs unchanged, on a CPU too.

    Transformers' models of the family (Mamba, Mamba-2, FalconMamba, Jamba, Bamba, Zamba2) use it as well, also where they were
    imported before.

    Args:
        force: even where the real package is installed.

    Returns:
        The packages that now resolve to this core.
    """
    finder = _finder() or Finder()
    taken = [name for name in PACKAGES if force or name in finder.packages or not _real(name)]
    for name in taken:
        if name not in finder.packages:
            _forget(name)
    finder.packages |= set(taken)
    if finder not in sys.meta_path:
        sys.meta_path.insert(0, finder)
    rewire(taken)
    if "mamba_ssm" in taken:
        take_over()
    return taken


def uninstall() -> None:
    """Undo install: the names resolve to what is installed, or to nothing."""
    finder = _finder()
    if finder is None:
        return
    sys.meta_path.remove(finder)
    for name in finder.packages:
        _forget(name)
    rewire(finder.packages, back=True)
    give_back()


class Finder(MetaPathFinder, Loader):
    """Finds and makes the modules in names.py."""

    def __init__(self):
        self.packages: set[str] = set()

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        if is_model(fullname) and self.packages:
            return _taken_after(PathFinder.find_spec(fullname, path, target), self.packages)
        if fullname.split(".")[0] not in self.packages:
            return None
        if fullname in ABSENT_MODULES:
            raise ModuleNotFoundError(f"{fullname} is {ABSENT_MODULES[fullname]}", name=fullname)
        if fullname not in MODULES:
            return None
        inner = any(name.startswith(f"{fullname}.") for name in MODULES)
        return ModuleSpec(fullname, self, origin=f"polymamba.compat ({fullname})", is_package=inner)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Alias(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__version__ = VERSIONS[module.__name__.split(".")[0]]
        module.__all__ = list(MODULES[module.__name__])


class Taking(Loader):
    """Loads a model's module of transformers as its own loader does, then gives it this core's functions and forwards."""

    def __init__(self, loader: Loader, packages: Iterable[str]):
        self.loader, self.packages = loader, packages

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The module is to look as if its own loader had loaded it.
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        if module.__name__ in MODELS and "mamba_ssm" in self.packages:
            take(module)
        with warnings.catch_warnings():
            # A module of another release resolved the packages itself, just now.
            warnings.simplefilter("ignore")
            rewire_module(module, self.packages)


def _taken_after(spec: ModuleSpec | None, packages: Iterable[str]) -> ModuleSpec | None:
    if spec is not None and spec.loader is not None:
        spec.loader = Taking(spec.loader, packages)
    return spec


class Alias(ModuleType):
    """A module whose names are looked up where this package has them, at first use."""

    def __getattr__(self, name: str):
        known, path = MODULES[self.__name__], f"{self.__name__}.{name}"
        if path in MODULES:
            return import_module(path)
        why = ABSENT_MODULES.get(path) or ABSENT.get(self.__name__, {}).get(name)
        if why:
            # What `from ... import` would turn an AttributeError into does not say why.
            raise ImportError(f"{path} is {why}", name=self.__name__)
        if name not in known:
            raise AttributeError(
                f"polymamba.compat has no {self.__name__}.{name}; it has {', '.join(known) or 'submodules only'}"
            )
        where, there = known[name]
        value = getattr(import_module(f".{where}", __package__), there)
        setattr(self, name, value)
        return value

    def __dir__(self):
        return sorted({*super().__dir__(), *MODULES[self.__name__]})


def _finder() -> Finder | None:
    return next((finder for finder in sys.meta_path if isinstance(finder, Finder)), None)


def _real(name: str) -> bool:
    loaded = sys.modules.get(name)
    if loaded is not None:
        return not isinstance(loaded, Alias)
    return find_spec(name) is not None


def _forget(package: str) -> None:
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]
