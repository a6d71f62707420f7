"""The frame knows no domain: its files name none, no model, data set or task of one, and no kind of data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from domains_under_test import CONFIGS, NAMES

ROOT = Path(__file__).resolve().parents[1]
KINDS = {
    "image", "images", "pixel", "pixels", "photo", "photos", "tokenizer", "tokenizers", "prompt", "prompts", "spectrogram",
    "waveform", "vocabulary", "vocab_size", "image_size", "language",
}  # fmt: skip
ORDINARY = {"digits", "hub"}  # words that mean something else too
SHARED = {path.stem for path in (ROOT / "domains").glob("*.py")}  # words of the frame, like classification
MAY_NAME = {
    "test_frame_names.py": "it lists them",
    "test_readme.py": "it types the commands of README.md and docs, which are about the domains that there are",
}
FRAME = sorted(
    [
        *(ROOT / "engine").rglob("*.py"), *(ROOT / "data").glob("*.py"), *(ROOT / "domains").glob("*.py"),
        *(ROOT / "tests").glob("*.py"), *(ROOT / "tests" / "engine").rglob("*.py"),
        *(path for path in CONFIGS.glob("*/*.yaml") if path.parent.name not in NAMES),
    ]
)  # fmt: skip


def belonging_to_domains() -> set[str]:
    """The names of domains, and of their models, data sets and tasks."""
    parts = (
        path for name in NAMES for part in ("model", "data", "task") for path in (CONFIGS / name / part).glob("*.yaml")
    )
    return {*NAMES, *(path.stem for path in parts)} - SHARED - ORDINARY


def words(path: Path) -> set[str]:
    """The words of a file, names taken apart at their dots."""
    return set(re.findall(r"[A-Za-z_][A-Za-z_0-9]*", path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", FRAME, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_word_of_a_domain(path):
    if path.name in MAY_NAME:
        pytest.skip(MAY_NAME[path.name])
    assert sorted(words(path) & (belonging_to_domains() | KINDS)) == []
