"""Transformers decides while it is imported which kernels it calls; this lets models that are already imported change theirs.

Its decorator `use_kernel_func_from_hub_with_fallback` keeps its choice in a closure: the implementation, which arguments it
takes, and whether it is another than the model's own. Where a release keeps it otherwise, nothing is changed, and a warning
says what to do.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterable, Iterator
from importlib import import_module
from types import FunctionType, ModuleType

# Whole mixers in one function, which models call while they train. They are not offered: what a function is handed weights of
# cannot mask padding behind the convolution, nor call an output projection that LoRA stands in for or a norm that has a hook.
WHOLE = ("mamba_inner_fn", "mamba_split_conv1d_scan_combined")
CHOICE = {"func_name", "package", "torch_function", "implementation", "applicable_params", "is_new_implementation"}


def rewire(packages: Iterable[str], back: bool = False) -> int:
    """Point what imported models call at the packages as they resolve now, or at the models' own code; how many functions."""
    modules = [module for name, module in list(sys.modules.items()) if is_model(name)]
    return sum(rewire_module(module, packages, back) for module in modules)


def is_model(name: str) -> bool:
    """Whether a module of that name holds a model of transformers."""
    return name.startswith("transformers.models.") and ".modeling_" in name


def rewire_module(module: ModuleType, packages: Iterable[str], back: bool = False) -> int:
    """rewire for one model's module."""
    found = [cells for value in list(vars(module).values()) for cells in _choices(value)]
    if not found and any(hasattr(module, name) for name in ("selective_scan_fn", "mamba_inner_fn", "causal_conv1d_fn")):
        warnings.warn(
            f"{module.__name__} was imported before compat.install() and keeps its own code: install before importing it",
            stacklevel=3,
        )
    return sum(_choose(cells, packages, back) for cells in found)


def _choices(value) -> Iterator[dict]:
    """The closure cells, by name, of a decorated function, and of those it wraps."""
    seen = set()
    while isinstance(value, FunctionType) and id(value) not in seen:
        seen.add(id(value))
        cells = dict(zip(value.__code__.co_freevars, value.__closure__ or (), strict=True))
        if set(cells) >= CHOICE:
            yield cells
            return
        value = getattr(value, "__wrapped__", None)


def _choose(cells: dict, packages: Iterable[str], back: bool) -> bool:
    if cells["package"].cell_contents not in packages:
        return False
    own = cells["torch_function"].cell_contents
    implementation = own
    if not back and cells["func_name"].cell_contents in WHOLE:
        implementation = declined
    elif not back:
        module = import_module(cells["package"].cell_contents)
        implementation = getattr(module, cells["func_name"].cell_contents, own)
    cells["implementation"].cell_contents = implementation
    cells["applicable_params"].cell_contents = tuple(inspect.signature(implementation).parameters)
    cells["is_new_implementation"].cell_contents = implementation is not own
    return True


def declined(*_, **__) -> None:
    """What models take for "compute it in steps"."""
