"""The error for text data that are not there."""

from __future__ import annotations

from pathlib import Path

from ...core.errors import UserError


def absent(what: str, root: Path) -> UserError:
    """The error for data that are not there."""
    return UserError(
        f"{what} is not there",
        given=f"data.root={root}",
        do="call prepare_data() first, or set POLYMAMBA_DATA=FOLDER to the folder that holds it",
    )
