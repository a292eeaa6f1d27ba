"""Renders a session as an image of fixed size, so that the frames of a session make a video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rapport.envs.session.render.fonts import cut, legible, wrapped
from rapport.envs.session.render.marks import box, drawn, mark, ring
from rapport.envs.session.render.view import (
    SAME_PLACE,
    SessionFrame,
    behaviour_marks,
    category_name,
    cost_text,
    counted,
    ending,
    extra_name,
    figures,
    number,
    plain,
    repeats,
    rule_name,
    spending,
    traits,
    words,
)

LEAST_WIDTH, LEAST_HEIGHT = 640, 400

PAPER, INK, MUTED, FAINT = "#fbfaf7", "#20242b", "#6c727c", "#e4e2dc"
SHOWN, CLICKED, LEFT, EXTRA, SPENT, REPEATED = "#efeeea", "#d5ece6", "#11806a", "#c2410c", "#b9bcc2", "#d97706"
_TITLE, _TEXT, _SMALL = 22, 15, 13
_LINE, _MARK_STEP = 16, 17
_MARGIN, _TOP, _BOTTOM, _GAP = 24, 142, 76, 9
_NUMBER, _COSTS = 34, 104
"""Pixels of a slate's number on the left, and of its cost and the remaining budget on the right."""
_USUAL, _WIDEST = 166, 250
"""Usual and maximum width of a place, pixels; slates stand side by side if places of the usual width leave room."""
_NARROWEST = 100
"""Minimum width of a place, pixels; if places would be narrower, the last ones are only counted."""


@dataclass(frozen=True)
class Layout:
    """Positions in pixels. Slates run down the image, in one column or in several.

    Attributes:
        width: of the image.
        height: of the image.
        places: places of each slate that are drawn.
        rest: places that are only counted.
        card: width of a place.
        tall: height of a place.
        rows: slates in a column.
        columns: columns of slates.
    """

    width: int
    height: int
    places: int
    rest: int
    card: int
    tall: int
    rows: int
    columns: int

    @classmethod
    def of(cls, places: int, width: int, height: int) -> Layout:
        """Fit slates of so many places into an image."""
        whole = width - 2 * _MARGIN
        columns = max(1, whole // (_NUMBER + _COSTS + _USUAL * places))
        room = whole // columns - _NUMBER - _COSTS
        kept = min(places, max(1, room // _NARROWEST))
        kept -= kept > 1 and kept < places
        card = min(_WIDEST, room // (kept + (kept < places)))
        tall = 30 if places == 1 else 44
        rows = (height - _TOP - _BOTTOM + _GAP) // (tall + _GAP)
        return cls(width, height, kept, places - kept, card, tall, rows, columns)

    def left(self, index: int, place: int) -> int:
        """Left edge of a place of the slate at ``index``."""
        column = index // self.rows
        return _MARGIN + column * ((self.width - 2 * _MARGIN) // self.columns) + _NUMBER + place * self.card

    def top(self, index: int) -> int:
        """Top edge of the slate at ``index``."""
        return _TOP + index % self.rows * (self.tall + _GAP)

    def costs(self, index: int) -> int:
        """Left edge of the costs of the slate at ``index``."""
        return self.left(index, self.places + (self.rest > 0))


class _Picture:
    """An image being drawn."""

    def __init__(self, layout: Layout) -> None:
        self.image = Image.new("RGB", (layout.width, layout.height), PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def text(
        self,
        at: tuple[float, float],
        text: str,
        size: int = _TEXT,
        fill: str = INK,
        anchor: str = "ls",
        width: float = 1e9,
    ) -> float:
        """Write one line, cut to ``width`` pixels, and return its length in pixels."""
        text, font = legible(text, size)
        text = cut(text, font, width)
        self.draw.text(at, text, fill=fill, font=font, anchor=anchor)
        return font.getlength(text)

    def stamp(self, at: tuple[int, int], mask: Image.Image, fill: str) -> None:
        """Fill a mask with a colour."""
        self.image.paste(fill, at, mask)


def rgb_array(frame: SessionFrame, *, width: int = 960, height: int = 640) -> NDArray[np.uint8]:
    """Draw a session: the user, the budget, the last slates with the newest at the bottom, and why the user left.

    Args:
        frame: the session so far.
        width: pixels, at least 640.
        height: pixels, at least 400.

    Returns:
        shape (height, width, 3).

    Raises:
        ValueError: the image would be too small.
    """
    for name, value, least in (("width", width, LEAST_WIDTH), ("height", height, LEAST_HEIGHT)):
        if value < least:
            raise ValueError(f"{name}={value}; it must be at least {least}")
    layout = Layout.of(frame.slates.shape[1], width, height)
    picture = _Picture(layout)
    _head(picture, frame, layout)
    _slates(picture, frame, layout)
    _foot(picture, frame, layout)
    return np.asarray(picture.image).copy()


def _head(picture: _Picture, frame: SessionFrame, layout: Layout) -> None:
    right, room = layout.width - _MARGIN, layout.width - 2 * _MARGIN
    used = picture.text((_MARGIN, 40), plain(frame.user), _TITLE)
    rule = f"quit rule: {rule_name(frame)}"
    ruled = picture.text((right, 40), rule, _TEXT, MUTED, "rs")
    picture.text((_MARGIN + used + 16, 40), traits(frame), _SMALL, MUTED, width=room - used - ruled - 32)
    picture.text((_MARGIN, 64), figures(frame), _TEXT, MUTED, width=room)
    spent = spending(frame)
    parts = ((spent.left, LEFT), (spent.extra, EXTRA), (spent.slates, SPENT))
    total = max(sum(part for part, _ in parts), 1e-9)
    x = float(_MARGIN)
    for part, colour in parts:
        if part > 0:
            end = x + room * part / total
            picture.draw.rectangle((round(x), 78, round(end) - 1, 94), fill=colour)
            x = end
    x = float(_MARGIN)
    said = (
        (f"{number(spent.left)} of {number(frame.start_budget)} budget left", LEFT),
        (f"{number(spent.extra)} went on {extra_name(frame)}", EXTRA),
        (f"{number(spent.slates)} went on slates", MUTED),
    )
    for (part, colour), (text, ink) in zip(parts, said, strict=True):
        if part > 0 or colour == LEFT:
            picture.draw.rectangle((x, 103, x + 9, 112), fill=colour)
            x += 15 + picture.text((x + 15, 113), text, _SMALL, ink) + 22


def _slates(picture: _Picture, frame: SessionFrame, layout: Layout) -> None:
    first = max(0, len(frame.slates) - layout.rows * layout.columns)
    repeated, left = repeats(frame.slates), frame.start_budget - frame.costs.cumsum()
    least = spending(frame).least
    for index, step in enumerate(range(first, len(frame.slates))):
        x, costs, middle = layout.left(index, 0), layout.costs(index), layout.top(index) + layout.tall // 2 + 5
        if index % layout.rows == 0:
            for right, text in ((x - 4, "slate"), (costs + 38, "cost"), (costs + 86, "left")):
                picture.text((right, _TOP - 8), text, _SMALL, MUTED, "rs")
        newest = step == len(frame.slates) - 1
        picture.text((x - 12, middle), str(step + 1), _TEXT, INK if newest else MUTED, "rs")
        for place in range(layout.places):
            _card(picture, frame, layout, (index, step, place), int(repeated[step, place]))
        if layout.rest:
            hits = int((frame.feedback[step, layout.places :, 0] > 0).sum())
            said = f"+{layout.rest}, {counted(hits, words(frame.behaviours[0]))}"
            picture.text((layout.left(index, layout.places) + 6, middle), said, _SMALL, MUTED, width=layout.card)
        dear = frame.costs[step] > least
        picture.text((costs + 38, middle), cost_text(frame.costs[step]), _TEXT, EXTRA if dear else MUTED, "rs")
        picture.text((costs + 86, middle), number(max(left[step], 0.0)), _TEXT, INK, "rs")


def _card(picture: _Picture, frame: SessionFrame, layout: Layout, where: tuple[int, int, int], repeated: int) -> None:
    """One item: whether it was clicked, its category, other behaviours, and an outline where it repeats."""
    index, step, place = where
    x, y, wide = layout.left(index, place), layout.top(index), layout.card - 8
    category = int(frame.slates[step, place])
    if category < 0:
        picture.stamp((x, y), box(wide, layout.tall, 1), FAINT)
        return
    did = [name for name, done in zip(frame.behaviours, frame.feedback[step, place], strict=True) if done > 0]
    clicked = frame.behaviours[0] in did
    picture.stamp((x, y), box(wide, layout.tall), CLICKED if clicked else SHOWN)
    if repeated:
        picture.stamp((x, y), box(wide, layout.tall, 2 if repeated == SAME_PLACE else 1), REPEATED)
    if repeated == SAME_PLACE and index % layout.rows > 0:
        picture.draw.rectangle((x + 15, y - _GAP, x + 18, y), fill=REPEATED)
    middle = y + layout.tall // 2
    picture.stamp((x + 9, middle - 8), mark("click", 16) if clicked else ring(16), LEFT if clicked else SPENT)
    others = [name for name in did if name != frame.behaviours[0]]
    _caption(picture, frame, category, others, (x + 31, y, wide - 37, layout.tall))


def _caption(
    picture: _Picture, frame: SessionFrame, category: int, others: list[str], room: tuple[int, int, int, int]
) -> None:
    """A category's name and the marks of the other behaviours: under a short name, else beside it."""
    x, y, wide, tall = room
    text, font = legible(category_name(frame, category), _SMALL, f"category {category}")
    beside = _MARK_STEP * len(others)
    most = 1 if tall < 2 * _LINE else 2
    lines = wrapped(text, font, wide, most)
    under = bool(others) and most == 2 and len(lines) == 1
    if others and not under:
        lines = wrapped(text, font, wide - beside, most)
    first = y + (tall - _LINE * (len(lines) + under)) // 2 + 12
    for i, line in enumerate(lines):
        picture.draw.text((x, first + _LINE * i), line, fill=INK, font=font, anchor="ls")
    at = x if under else x + wide - beside + 5
    level = first + _LINE - 11 if under else first + _LINE * (len(lines) - 1) - 10
    for i, name in enumerate(others):
        _mark(picture, frame, name, (at + _MARK_STEP * i, level))


def _mark(picture: _Picture, frame: SessionFrame, name: str, at: tuple[int, int]) -> None:
    if drawn(name):
        picture.stamp(at, mark(name, 12), EXTRA if name == "hate" else LEFT)
    else:
        picture.text((at[0] + 6, at[1] + 11), behaviour_marks(frame.behaviours)[name], _SMALL, LEFT, "ms")


def _foot(picture: _Picture, frame: SessionFrame, layout: Layout) -> None:
    """The legend, and above it why the user left."""
    y, x = layout.height - 14, float(_MARGIN)
    for name in frame.behaviours:
        if x > layout.width - 420:
            break
        _mark(picture, frame, name, (round(x), y - 11))
        x += 16 + picture.text((x + 16, y), words(name), _SMALL, MUTED) + 16
    x += picture.text((x, y), "repeats the slate before:", _SMALL, MUTED) + 8
    for text, line in (("same place", 2), ("other place", 1)):
        picture.stamp((round(x), y - 12), box(22, 14, line), REPEATED)
        x += 28 + picture.text((x + 28, y), text, _SMALL, MUTED) + 12
    if frame.ended:
        top = layout.height - 70
        fill = EXTRA if frame.ended == "left" else MUTED
        picture.draw.rectangle((0, top, layout.width, top + 32), fill=fill)
        picture.text(
            (_MARGIN, top + 21), f"{plain(frame.user)}: {ending(frame)}", _TEXT, PAPER, width=layout.width - 48
        )
