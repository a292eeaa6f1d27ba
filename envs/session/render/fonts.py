"""Text in images, in fonts that have its letters."""

from __future__ import annotations

import bisect
from functools import lru_cache
from typing import NamedTuple

from PIL import ImageFont

Font = ImageFont.FreeTypeFont

_SYSTEM = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "segoeui.ttf"),
    *("NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "wqy-microhei.ttc", "wqy-zenhei.ttc"),
    *("PingFang.ttc", "Hiragino Sans GB.ttc", "msyh.ttc", "simhei.ttf"),
)
"""Fonts that are tried in this order if a text has a letter that Pillow's own font lacks."""
_MISSING = "\U0010ffff"
"""A character that no font has: its glyph is the one drawn for missing letters."""


class LegibleText(NamedTuple):
    """A text and a font that has all its letters."""

    text: str
    font: Font


@lru_cache(maxsize=4096)
def legible(text: str, size: int, otherwise: str | None = None) -> LegibleText:
    """The text in the first font that has all its letters.

    Args:
        text: one line.
        size: in pixels.
        otherwise: the text to use, in ASCII, if no font has all letters; by default the text with a question mark for
            every missing letter.
    """
    own = _own(size)
    if covers(own, text):
        return LegibleText(text, own)
    for name in _SYSTEM:
        font = _system(name, size)
        if font is not None and covers(font, text):
            return LegibleText(text, font)
    return LegibleText(otherwise or "".join(c if covers(own, c) else "?" for c in text), own)


def covers(font: Font, text: str) -> bool:
    """Whether the font has every letter of the text."""
    return all(_has(font, c) for c in set(text))


@lru_cache(maxsize=8192)
def cut(text: str, font: Font, width: float) -> str:
    """The text; if it is wider than ``width`` pixels, its end is replaced by an ellipsis."""
    if font.getlength(text) <= width:
        return text
    fitting = bisect.bisect_right(range(1, len(text)), width, key=lambda n: font.getlength(text[:n] + "…"))
    return text[:fitting].rstrip() + "…"


@lru_cache(maxsize=4096)
def wrapped(text: str, font: Font, width: float, most: int) -> tuple[str, ...]:
    """At most ``most`` lines of at most ``width`` pixels; lines that are too long end in an ellipsis."""
    lines: list[str] = []
    for word in text.split() or [""]:
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and (font.getlength(joined) <= width or len(lines) == most):
            lines[-1] = joined
        else:
            lines.append(word)
    return tuple(cut(line, font, width) for line in lines)


@lru_cache(maxsize=16)
def _own(size: int) -> Font:
    font = ImageFont.load_default(size)
    if not isinstance(font, Font):
        raise ImportError('render_mode="rgb_array" needs a Pillow with FreeType; install it: pip install -U pillow')
    return font


@lru_cache(maxsize=128)
def _system(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@lru_cache(maxsize=8192)
def _has(font: Font, character: str) -> bool:
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask(_MISSING))
