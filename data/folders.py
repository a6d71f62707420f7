"""Walking through the user's folders: what systems and tools leave in them is not data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

LEFT_BY_SYSTEMS = {
    "__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db",
    "ehthumbs.db", "desktop.ini",
}  # fmt: skip


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's data: .git, .DS_Store, __MACOSX, Thumbs.db, …"""
    return name.startswith(".") or name.lower() in LEFT_BY_SYSTEMS


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder that is not hidden, sorted; links are followed, each folder is entered once."""
    return sorted(_walk(folder, {folder.resolve()}))


def _walk(folder: Path, entered: set[Path]) -> Iterator[Path]:
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if hidden(entry.name):
            continue
        if not entry.is_dir():
            # a link to nothing is kept, so that whoever reads it names it; sockets and pipes are not
            if entry.is_file() or not path.exists():
                yield path
        elif (real := path.resolve()) not in entered:
            entered.add(real)
            yield from _walk(path, entered)
