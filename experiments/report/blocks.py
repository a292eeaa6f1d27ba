"""What a page may hold beside text and tables: figures, and viewers of recorded data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rapport.experiments.report.table import Table


@dataclass(frozen=True, eq=False)
class Figure:
    """A plotly figure and what it shows.

    Attributes:
        draw: makes the figure when the HTML is written, so that all else of a page needs no plotly. The figure has a
            height (:func:`~rapport.experiments.report.figures.lay_out` gives one), and names from outside in it are
            escaped already: plotly reads mark-up in them.
        caption: what it shows.
        small: whether it may stand beside other small ones.
    """

    draw: Callable[[], Any]
    caption: str = ""
    small: bool = False


@dataclass(frozen=True, eq=False)
class Viewer:
    """Data that a reader looks at by means of a script of its own.

    Attributes:
        template: HTML with its style and script, trusted and put into the page as it stands. It finds its data as JSON
            in ``document.currentScript.closest(".viewer").querySelector("script").textContent``, loads nothing, and
            must write texts from the data as text only.
        data: JSON-ready.
        table: the same in figures: what Markdown shows, and the page below the viewer.
        hint: what there is to be seen in the viewer, e.g. ``"slate by slate"``.
    """

    template: str
    data: Any
    table: Table
    hint: str


Block = str | Table | Figure | Viewer
"""What a section holds: a paragraph of plain text, a table, a figure, a viewer."""
