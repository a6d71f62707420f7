"""A page that plays recordings and what was found in them side by side; it needs no other file where it is not too large."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Sequence
from pathlib import Path

LARGEST = 24_000_000  # bytes of sound within the page; with more it names the files
KINDS = {".wav": "audio/wav", ".flac": "audio/flac", ".ogg": "audio/ogg", ".mp3": "audio/mpeg", ".png": "image/png"}
HEAD = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Recordings taken apart</title><style>
body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222}
h2{font-size:1em;margin:2em 0 .5em}.row{display:flex;flex-wrap:wrap;gap:1em}figure{margin:0}figcaption{color:#777}
img{max-width:100%;margin-top:.5em}audio{width:19em}</style></head><body>
"""


def write_page(path: Path, recordings: Sequence[tuple[Path, Sequence[Path], Path | None]]) -> None:
    """Writes the page.

    Args:
        recordings: each with the files of what was found in it, and its picture.
    """
    everything = [
        file for original, found, picture in recordings for file in (original, *found, *([picture] if picture else []))
    ]
    within = sum(file.stat().st_size for file in everything) <= LARGEST

    def source(file: Path) -> str:
        if not within:
            return html.escape(os.path.relpath(file, path.parent), quote=True)
        return f"data:{KINDS[file.suffix.lower()]};base64,{base64.b64encode(file.read_bytes()).decode()}"

    parts = [HEAD]
    for original, found, picture in recordings:
        parts.append(f"<h2>{html.escape(original.name)}</h2><div class=row>")
        for file, name in ((original, "recording"), *((each, each.stem) for each in found)):
            sound = f'<audio controls preload="metadata" src="{source(file)}"></audio>'
            parts.append(f"<figure><figcaption>{html.escape(name)}</figcaption>{sound}</figure>")
        parts.append("</div>" + (f'<img alt="spectrograms" src="{source(picture)}">' if picture else ""))
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("\n".join([*parts, "</body></html>\n"]), encoding="utf-8")
    os.replace(temporary, path)
