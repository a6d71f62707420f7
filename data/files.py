"""Where data files lie, and reading packed ones with errors that name them."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from ..core.errors import UserError

VARIABLE = "POLYMAMBA_DATA"
CACHE_VARIABLE = "POLYMAMBA_CACHE"
SUFFIXES = ("", ".gz", ".xz")
DAMAGED = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error)


def data_root(root: str | Path | None) -> Path:
    """The folder that holds the data: the one given, else $POLYMAMBA_DATA, else `.data` in the working directory."""
    return Path(root or os.environ.get(VARIABLE) or ".data").expanduser()


def cache_root() -> Path:
    """The folder for what can be computed again: $POLYMAMBA_CACHE, else polymamba in the user's cache folder."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "polymamba"


def cached(name: str, write: Callable[[Path], None]) -> Path:
    """A file of the cache, made by `write` where it is not there; it appears under its name only when it is whole.

    Raises:
        UserError: the cache cannot be written.
    """
    target = cache_root() / name
    if target.is_file():
        return target
    part = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        os.replace(part, target)
    except OSError as error:
        raise UserError(
            f"Cannot write {target}: {error.strerror or error}",
            do=f"make {target.parent} writable, or choose another folder with {CACHE_VARIABLE}=FOLDER",
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return target


def find(folders: Iterable[Path], name: str, suffixes: Iterable[str] = SUFFIXES) -> Path | None:
    """The first file of that name, plain or packed, in the given folders; None where there is none."""
    suffixes = tuple(suffixes)
    for folder in folders:
        for suffix in suffixes:
            path = folder / (name + suffix)
            if path.is_file():
                return path
    return None


def read(path: Path) -> bytes:
    """A file's content, unpacked where its name ends in .gz or .xz.

    Raises:
        UserError: the file cannot be read or unpacked.
    """
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    try:
        with opener(path, "rb") as stream:
            return stream.read()
    except DAMAGED as error:
        raise UserError(
            f"{path} is damaged or cut off: {error}", given=f"{path.stat().st_size:,} bytes", do=replace_it(path)
        ) from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}") from error


def check_content(path: Path, content: bytes, sha256: str) -> None:
    """Raise UserError where the content that was read from `path` does not have this sha256."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UserError(
            f"{path} does not hold what was published: wrong checksum",
            given=f"sha256 {found}",
            allowed=f"sha256 {sha256}",
            do=replace_it(path),
        )


def not_there(what: str, root: Path) -> UserError:
    """The error for data that are not below the folder where data lie."""
    return UserError(
        f"{what} is not there",
        given=f"data.root={root}",
        do="call prepare_data() first, or set POLYMAMBA_DATA=FOLDER to the folder that holds it",
    )


def replace_it(path: Path) -> str:
    """What to do about a bad file."""
    return f"delete {path} and run again to download it, or copy it anew"
