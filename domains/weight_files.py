"""Files of weights that others have written: tensors and plain values are read, nothing that stands in them is run."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..core.errors import UserError

HEAD = 1 << 20  # bytes of a file in which its names stand
WRONG = (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, SafetensorError, UnpicklingError)


def read(path: Path, known: Callable[[Sequence[str]], Sequence[Any]] | None = None) -> Any:
    """What a .safetensors file or a file of torch.save holds, on the CPU.

    Args:
        known: from the names of the classes that a file wants, beyond tensors and plain values, to those that it gets, as
            torch.serialization.safe_globals takes them; None: it gets none.

    Raises:
        UserError: it cannot be read, or wants more than that.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        classes = [] if known is None else list(known(torch.serialization.get_unsafe_globals_in_checkpoint(path)))
        with torch.serialization.safe_globals(classes):
            return torch.load(path, map_location="cpu", weights_only=True)
    except WRONG as error:
        raise UserError(
            f"cannot read the weights in {path}: cut off, or more than plain values (none of it was run)",
            given=str(error).split("\n")[0][:200], do="fetch the file again",
        ) from error  # fmt: skip


def names_in(path: Path) -> bytes:
    """Bytes of a file among which the names of its tensors are; quick, whatever its size."""
    with suppress(OSError, zipfile.BadZipFile):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return b"".join(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
        with open(path, "rb") as file:
            return file.read(HEAD)
    return b""
