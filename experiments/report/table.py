"""A table of text as plain data; for the terminal, for Markdown, and (through the page's template) for HTML."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from rapport.experiments.results.metrics import NOT_RUN

WIDTH = 110
"""Columns that a table takes on the terminal at most."""
_HEADER = 12
"""Letters of a header that are never broken into two lines for the sake of a narrow column."""
_NUMBER = re.compile(r"[+-]?[\d.]")


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        columns: (name, unit) of each.
        rows: as many cells each. A row with nothing but its first cell is a heading of the rows below it; a cell
            ``"not run"`` is shown in grey.
        caption: what it shows.
        bold: index in ``rows`` of the row that stands out, or None.
    """

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    bold: int | None = None

    def __post_init__(self) -> None:
        for place, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"rows: row {place} has {len(row)} cells for {len(self.columns)} columns; give one for each"
                )

    def is_text(self) -> tuple[bool, ...]:
        """For each column whether it holds words alone, so that it is set from the left; the first always is."""
        body = [row for row in self.rows if not is_heading(row)]
        return tuple(not i or _are_words([row[i] for row in body]) for i in range(len(self.columns)))

    def to_rich(self) -> RenderableType:
        """For the terminal: columns of words may wrap, numbers stay whole; rows of one first cell stand together."""
        shown = RichTable(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        headers = [self._header(i) for i in range(len(self.columns))]
        height = max(len(header) for header in headers)
        for header, text in zip(headers, self.is_text(), strict=True):
            lines = [Text()] * (height - len(header)) + header
            shown.add_column(
                Text("\n").join(lines), justify="left" if text else "right", no_wrap=not text, overflow="fold"
            )
        first = [row[0] for row in self.rows]
        grouped = len(set(first)) < len(first)
        for i, row in enumerate(self.rows):
            last = i + 1 == len(first)
            ends = not last and (is_heading(self.rows[i + 1]) or (grouped and first[i + 1] != first[i]))
            style = "bold" if i == self.bold or is_heading(row) else ""
            shown.add_row(*(Text(cell) for cell in row), style=style, end_section=ends and not is_heading(row))
        return Group(Text(self.caption, style="bold"), shown) if self.caption else shown

    def to_markdown(self) -> str:
        """As Markdown: the caption, then the table; the row that stands out and headings are bold."""
        header = [f"{name} [{unit}]" if unit else name for name, unit in self.columns]
        rule = [":--" if text else "--:" for text in self.is_text()]
        rows = [[plain(cell) for cell in row] for row in self.rows]
        for place, row in enumerate(self.rows):
            if row[0] and (place == self.bold or is_heading(row)):
                rows[place][0] = f"**{rows[place][0]}**"
        lines = ([cell.replace("|", "\\|") for cell in line] for line in (map(plain, header), rule, *rows))
        text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{plain(self.caption)}\n\n{text}" if self.caption else text

    def _header(self, column: int) -> list[Text]:
        """Lines of a column's header, no wider than its cells where these are not short."""
        name, unit = self.columns[column]
        width = max(_HEADER, *(len(row[column]) for row in self.rows if not is_heading(row)), 0)
        return [
            Text(line, style) for part, style in ((name, "bold"), (unit, "dim")) for line in textwrap.wrap(part, width)
        ]


def is_heading(row: Sequence[str]) -> bool:
    """Whether a row is a heading of the rows below it."""
    return len(row) > 1 and bool(row[0]) and not any(row[1:])


def plain(text: str) -> str:
    """A text on one line of Markdown, in which nothing reads as a tag."""
    return " ".join(text.split()).replace("<", "\\<")


def _are_words(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell and cell != NOT_RUN]
    return bool(filled) and not any(_NUMBER.match(cell) for cell in filled)
