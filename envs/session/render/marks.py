"""Marks for behaviours in an image, drawn large and scaled down so that edges are smooth."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from PIL import Image, ImageDraw

_SCALE = 8
_Draw = ImageDraw.ImageDraw


def _disc(d: _Draw, s: float) -> None:
    d.ellipse((0.06 * s, 0.06 * s, 0.94 * s, 0.94 * s), fill=255)
    d.line(
        [(0.27 * s, 0.52 * s), (0.44 * s, 0.69 * s), (0.74 * s, 0.34 * s)], fill=0, width=round(0.12 * s), joint="curve"
    )


def _play(d: _Draw, s: float) -> None:
    d.polygon([(0.16 * s, 0.06 * s), (0.94 * s, 0.5 * s), (0.16 * s, 0.94 * s)], fill=255)


def _heart(d: _Draw, s: float) -> None:
    points = []
    for i in range(60):
        t = 2 * math.pi * i / 60
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((s * (0.5 + x / 36), s * (0.47 - y / 36)))
    d.polygon(points, fill=255)


def _bubble(d: _Draw, s: float) -> None:
    d.rounded_rectangle((0.04 * s, 0.1 * s, 0.96 * s, 0.72 * s), radius=0.18 * s, fill=255)
    d.polygon([(0.2 * s, 0.65 * s), (0.2 * s, 0.98 * s), (0.5 * s, 0.68 * s)], fill=255)


def _arrow(d: _Draw, s: float) -> None:
    d.rectangle((0.04 * s, 0.38 * s, 0.55 * s, 0.62 * s), fill=255)
    d.polygon([(0.5 * s, 0.1 * s), (0.98 * s, 0.5 * s), (0.5 * s, 0.9 * s)], fill=255)


def _star(d: _Draw, s: float) -> None:
    spikes = [(0.5 if i % 2 == 0 else 0.21, math.pi * (i / 5 - 0.5)) for i in range(10)]
    d.polygon([(s * (0.5 + r * math.cos(a)), s * (0.53 + r * math.sin(a))) for r, a in spikes], fill=255)


def _cross(d: _Draw, s: float) -> None:
    for ends in ([(0.16, 0.16), (0.84, 0.84)], [(0.84, 0.16), (0.16, 0.84)]):
        d.line([(s * x, s * y) for x, y in ends], fill=255, width=round(0.2 * s))


_SHAPES: dict[str, Callable[[_Draw, float], None]] = {
    "click": _disc,
    "long_view": _play,
    "like": _heart,
    "comment": _bubble,
    "forward": _arrow,
    "follow": _star,
    "hate": _cross,
}


def drawn(behaviour: str) -> bool:
    """Whether a behaviour has a mark of its own."""
    return behaviour in _SHAPES


@lru_cache(maxsize=64)
def mark(behaviour: str, size: int) -> Image.Image:
    """The mark of a behaviour as a mask of ``size`` x ``size`` pixels."""
    large = Image.new("L", (size * _SCALE, size * _SCALE))
    _SHAPES[behaviour](ImageDraw.Draw(large), float(size * _SCALE))
    return large.resize((size, size), Image.Resampling.LANCZOS)


@lru_cache(maxsize=64)
def ring(size: int) -> Image.Image:
    """An empty circle: the item was shown and not clicked."""
    large = Image.new("L", (size * _SCALE, size * _SCALE))
    s = float(size * _SCALE)
    ImageDraw.Draw(large).ellipse((0.1 * s, 0.1 * s, 0.9 * s, 0.9 * s), outline=255, width=round(0.09 * s))
    return large.resize((size, size), Image.Resampling.LANCZOS)


@lru_cache(maxsize=64)
def box(width: int, height: int, line: int = 0) -> Image.Image:
    """A rectangle with rounded corners as a mask, filled, or an outline of ``line`` pixels."""
    scale = 4
    large = Image.new("L", (width * scale, height * scale))
    corners = (0, 0, width * scale - 1, height * scale - 1)
    if line:
        ImageDraw.Draw(large).rounded_rectangle(corners, radius=6 * scale, outline=255, width=line * scale)
    else:
        ImageDraw.Draw(large).rounded_rectangle(corners, radius=6 * scale, fill=255)
    return large.resize((width, height), Image.Resampling.LANCZOS)
