"""core <- domains <- engine, data <- engine, domains <- compat, all <- benchmarks; core: ops <- mixers.

Nothing points back, and no domain at another.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "core": {"core"},
    "domains": {"core", "domains"},
    "data": {"core", "data"},
    "engine": {"core", "domains", "data", "engine", "configs", "experiments"},
    "compat": {"core", "domains", "compat"},
    "configs": {"configs"},
    "experiments": {"experiments"},
    "benchmarks": {"core", "domains", "data", "engine", "compat", "benchmarks"},
}
# Errors for people at the keyboard and the ranges of settings are core's; nothing else of core may be needed to read data.
DATA_MAY_IMPORT_OF_CORE = {"core.errors", "core.ranges"}


def imported(file: Path) -> set[str]:
    """Dotted names, relative to the repository root, of the project's modules that a file imports."""
    package = file.relative_to(ROOT).parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names |= {stem} if node.module else {f"{stem}.{alias.name}" for alias in node.names}
    return {name.removeprefix("polymamba.") for name in names}


def is_published_of(file: Path, name: str) -> bool:
    """A domain's published.py reads files as its own data package does. Nothing imports it in return."""
    folder, *rest = file.relative_to(ROOT).parts
    return (
        folder == "domains"
        and len(rest) == 2
        and rest[1] == "published.py"
        and name.startswith(("data.loading", f"data.{rest[0]}."))
    )


DOMAINS = {path.parent.name for path in (ROOT / "configs").glob("*/domain.yaml")}
FILES = [file for folder in MAY_IMPORT for file in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_follow_the_law(file):
    folder = file.relative_to(ROOT).parts[0]
    for name in imported(file):
        top = name.split(".")[0]
        if is_published_of(file, name):
            continue
        assert top not in MAY_IMPORT or top in MAY_IMPORT[folder], f"{file} imports {name}"
        if folder in ("domains", "data"):
            own = file.relative_to(ROOT / folder).parts[0]
            assert own not in DOMAINS or not DOMAINS & {*name.split(".")[1:2]} - {own}, f"{file} imports {name}"
        if folder == "data" and top == "core":
            assert name in DATA_MAY_IMPORT_OF_CORE, f"{file} imports {name}"
        if file.is_relative_to(ROOT / "core" / "ops"):
            assert not name.startswith(("core.mixers", "core.scans")), f"{file} imports {name}"


def test_nothing_imports_the_folders_bare():
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert (node.module or "").split(".")[0] not in MAY_IMPORT, file
            elif isinstance(node, ast.Import):
                assert not any(alias.name.split(".")[0] in MAY_IMPORT for alias in node.names), file
