"""Letters that a picture's font lacks: another installed font draws them, or they are written as escapes."""

from __future__ import annotations

import functools
import unicodedata

# fonts that hold pictures in colour cannot be drawn with
NO_LETTERS = ("Emoji", "Color", "Symbola", "Last Resort")


def drawable(text: str, family: str = "DejaVu Sans") -> tuple[str, list[str]]:
    """A text that can be drawn without a gap, and the fonts to draw it with, `family` first.

    A sign that no installed font has becomes its escape, like \\u4e16.
    """
    families, signs = [family], []
    for sign in text:
        found = family if sign == "\n" or ord(sign) in _letters(_file(family)) else _font_with(ord(sign))
        if found is None:
            signs.append(sign.encode("ascii", "backslashreplace").decode())
            continue
        signs.append(sign)
        if found not in families:
            families.append(found)
    return "".join(signs), families


def columns(text: str) -> int:
    """The columns of a fixed-width font that a text takes; a Chinese sign takes two."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


def cut(text: str, room: int) -> str:
    """The beginning of a text that so many columns hold."""
    while columns(text) > max(0, room):
        text = text[: min(len(text) - 1, max(0, room))]
    return text


@functools.cache
def _file(family: str) -> str:
    from matplotlib.font_manager import FontProperties, findfont

    return findfont(FontProperties(family=[family]))


@functools.cache
def _letters(file: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(file).get_charmap())
    except (RuntimeError, OSError):
        return frozenset()


@functools.cache
def _font_with(letter: int) -> str | None:
    """The name of an installed font that has a sign, those with Chinese, Japanese and Korean ones first."""
    from matplotlib.font_manager import fontManager

    plain = [font for font in fontManager.ttflist if not any(word in font.name for word in NO_LETTERS)]
    wide = ("CJK", "Han", "Hei", "Gothic", "Ming", "Song")
    ordered = sorted(plain, key=lambda font: (not any(word in font.name for word in wide), font.name))
    # matplotlib finds a file by its name again, which need not be this one
    names = dict.fromkeys(font.name for font in ordered)
    return next((name for name in names if letter in _letters(_file(name))), None)
