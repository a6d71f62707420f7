"""Downloads that end in a whole, checked file or in no file at all."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import UserError
from .sources import RemoteFile

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

log = logging.getLogger(__name__)

BLOCK = 1 << 20
RETRY_STATUS = (408, 425, 429, 500, 502, 503, 504)


class _Damaged(Exception):
    """What arrived is not the file that was asked for."""


def fetch(file: RemoteFile, folder: str | Path, *, attempts: int = 4, timeout: float = 30.0, wait: float = 1.0) -> Path:
    """Download a file into a folder, unless it is there already, and return its path.

    The bytes go to `<name>.part` and are checked against the checksum before that file is renamed, so whatever carries the
    final name is whole. A partial file is continued, also after a crash; processes that ask for one file at the same time
    wait for each other.

    Args:
        file: what to download.
        folder: where to put it; made where it does not exist.
        attempts: how often each address is tried.
        timeout: seconds without a byte after which a connection is given up.
        wait: seconds before the second attempt; doubled before each further one.

    Raises:
        UserError: no address served the right bytes, or the folder cannot be written.
    """
    target = Path(folder) / file.name
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(target) as part:
            if not target.is_file():
                _download(file, part, attempts, timeout, wait)
                os.replace(part, target)
                _sync_folder(target.parent)
    except OSError as error:
        raise UserError(
            f"Cannot write the data set's file {target}: {error.strerror or error}",
            do=f"make {target.parent} writable, or choose another folder with data.root=FOLDER or POLYMAMBA_DATA=FOLDER",
        ) from error
    return target


def sha256_of(path: str | Path) -> str:
    """The sha256 of a file's bytes, lower-case hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(file: RemoteFile, part: Path, attempts: int, timeout: float, wait: float) -> None:
    """Fill `part` with the file's bytes, checked and synced; UserError where no address has them."""
    failures: dict[str, str] = {}
    urls = list(file.urls)
    for attempt in range(attempts):
        for url in tuple(urls):
            try:
                _receive(file, url, part, timeout)
                return
            except urllib.error.HTTPError as error:
                failures[url] = f"HTTP {error.code} {error.reason}"
                error.close()
                if error.code == 416:
                    part.unlink(missing_ok=True)
                elif error.code not in RETRY_STATUS:
                    urls.remove(url)
            except _Damaged as error:
                failures[url] = str(error)
                part.unlink(missing_ok=True)
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                failures[url] = str(getattr(error, "reason", None) or error or type(error).__name__)
        if not urls:
            break
        if attempt + 1 < attempts:
            log.info("retrying %s: %s", file.name, "; ".join(failures.values()))
            time.sleep(wait * 2**attempt)
    folder = part.parent
    raise UserError(
        f"{file.name} could not be downloaded",
        given="; ".join(f"{url}: {failure}" for url, failure in failures.items()),
        allowed=" ".join(["a file", *([f"of {file.size:,} bytes"] if file.size else []), "with", *file.checksum]),
        do=f"without a network, put the file at {folder / file.name} by hand, "
        "or set POLYMAMBA_DATA=FOLDER (or data.root=FOLDER) to the folder that holds it",
    )


def _receive(file: RemoteFile, url: str, part: Path, timeout: float) -> None:
    """Read one response into `part`, going on where an earlier attempt stopped."""
    kind, expected = file.checksum
    digest = hashlib.new(kind, usedforsecurity=False)
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "polymamba", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    if have < file.size or not (have and file.size):
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    else:
        response = None
    with contextlib.closing(response) if response else contextlib.nullcontext():
        continued = response is None or response.status == 206
        with open(part, "r+b" if have and continued else "wb") as stream:
            if have and continued:
                while block := stream.read(BLOCK):
                    digest.update(block)
            size = file.size
            if response is not None:
                size = size or stream.tell() + int(response.headers.get("Content-Length") or 0)
                _copy(response, stream, digest, file.name, size)
            stream.flush()
            os.fsync(stream.fileno())
            length = stream.tell()
    if length < size:
        raise http.client.IncompleteRead(b"", size - length)
    if digest.hexdigest() != expected:
        raise _Damaged(f"{kind} is {digest.hexdigest()}, {length:,} bytes")


def _copy(response: http.client.HTTPResponse, stream, digest, name: str, size: int) -> None:
    """Append a response to `stream`; size: of the whole file, 0: the server does not say."""
    shown = 0.0
    while block := response.read1(BLOCK):
        stream.write(block)
        digest.update(block)
        if 0 < size < stream.tell():
            raise _Damaged(f"more than the expected {size:,} bytes")
        if sys.stderr.isatty() and time.monotonic() - shown > 0.5:
            shown = time.monotonic()
            done = f"{stream.tell() / size:4.0%} of {size / 1e6:.0f}" if size else f"{stream.tell() / 1e6:.0f}"
            print(f"\r{name}: {done} MB", end="", file=sys.stderr)
    if shown:
        print(file=sys.stderr)


@contextlib.contextmanager
def _only_one(target: Path) -> Iterator[Path]:
    """Hold the target's lock and yield the path of its partial file.

    The lock goes with the process that holds it, so a crash leaves nothing to clean up. Where files cannot be locked,
    the partial file's name is the process's own: nothing is continued, and nothing is mixed up either.
    """
    lock = target.with_name(f".{target.name}.lock")
    with open(lock, "ab") as stream:
        try:
            if fcntl is None:
                raise OSError("no file locks on this system")
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError:
            part = target.with_name(f"{target.name}.{os.getpid()}.part")
            try:
                yield part
            finally:
                part.unlink(missing_ok=True)
        else:
            yield target.with_name(f"{target.name}.part")


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
