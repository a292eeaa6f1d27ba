"""A table of text as plain data; for the terminal, for Markdown, and (through the page's template) for HTML."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from rapport.experiments.results.metrics import NOT_RUN

WIDTH = 110
"""Columns that a table takes on the terminal at most."""
_HEADER, _LABEL = 12, 20
"""Letters of a header, and of a cell of words, that stay on one line as long as there is room."""
_GAP = 2
"""Blanks between columns."""
_NUMBER = re.compile(r"(?!.*[a-zA-Z]{4})[+-]?[\d.]|[^a-zA-Z]*$")
_INTERVAL = re.compile(r"(.*\S) ([\[(].*[\])])")


@dataclass(frozen=True)
class Table:
    """A table of text. ``rich.print(table)`` and ``Console.print(table)`` show it.

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
        """For each column whether it is set from the left: the first is, and those of words rather than numbers."""
        body = self._body()
        return tuple(not i or _are_words([row[i] for row in body]) for i in range(len(self.columns)))

    def to_rich(self, width: int = WIDTH) -> RichTable:
        """For the terminal.

        Rows that share their first cell stand together. Where room is short, words wrap first, then intervals go below
        their points; numbers are never cut, even if the table then takes more than ``width`` columns.
        """
        lines, headers, widths = self._laid_out(width)
        shown = RichTable(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for header, text, own in zip(headers, self.is_text(), widths, strict=True):
            shown.add_column(header, justify="left" if text else "right", width=own)
        first = [row[0] for row in self.rows]
        grouped = len(set(first)) < len(first)
        for i, cells in enumerate(lines):
            heading, following = is_heading(self.rows[i]), i + 1 < len(first)
            ends = following and (is_heading(self.rows[i + 1]) or (grouped and first[i + 1] != first[i]))
            style = "bold" if i == self.bold or heading else ""
            shown.add_row(*map(Text, cells), style=style, end_section=ends and not heading)
        return shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.caption:
            yield Text(self.caption, style="bold")
        shown = self.to_rich(min(WIDTH, options.max_width))
        taken = sum((column.width or 0) + _GAP for column in shown.columns)
        yield from console.render(shown, options.update(width=max(options.max_width, taken)))

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

    def _body(self) -> list[tuple[str, ...]]:
        return [row for row in self.rows if not is_heading(row)]

    def _laid_out(self, width: int) -> tuple[list[list[str]], list[Text], list[int]]:
        """Cells and headers in lines, and widths of columns that with their gaps take ``width`` where possible."""
        text, room = self.is_text(), width - _GAP * (len(self.columns) - 1)
        rows = [list(row) for row in self.rows]
        # Letters that words and headers keep on one line, and whether intervals go below; the first that fits.
        for label, header, below in ((_LABEL, _HEADER, False), (_LABEL, 0, False), (0, 0, True)):
            if below:
                rows = [[_INTERVAL.sub(r"\1\n\2", cell) for cell in row] for row in rows]
            body = [row for row, own in zip(rows, self.rows, strict=True) if not is_heading(own)]
            cells = [[row[i] for row in body] for i in range(len(text))]
            needed = [max(_longest(own, "\n"), _longest(self.columns[i], " "), 1) for i, own in enumerate(cells)]
            headed = [max(n, min(header, _longest(self.columns[i], "\n"))) for i, n in enumerate(needed)]
            least = [max(min(label, n), _longest([*cells[i], *self.columns[i]], r"\s")) for i, n in enumerate(headed)]
            fixed = [low if words else n for low, n, words in zip(least, headed, text, strict=True)]
            widths = _shrunk(headed, fixed, room)
            if sum(widths) <= room:
                break
        wrapped = [[_wrapped(cell, n) for cell, n in zip(row, widths, strict=True)] for row in rows]
        return wrapped, _headers(self.columns, widths), widths


def is_heading(row: Sequence[str]) -> bool:
    """Whether a row is a heading of the rows below it."""
    return len(row) > 1 and bool(row[0]) and not any(row[1:])


def plain(text: str) -> str:
    """A text on one line of Markdown, in which nothing reads as a tag."""
    return " ".join(text.split()).replace("<", "\\<")


def _are_words(cells: Sequence[str]) -> bool:
    """Whether more of the different cells are words than numbers; a number column may say "none" here and there."""
    distinct = {cell for cell in cells if cell and cell != NOT_RUN}
    numbers = sum(bool(_NUMBER.match(cell)) for cell in distinct)
    return numbers < len(distinct) - numbers


def _longest(texts: Sequence[str], separator: str) -> int:
    """Letters of the longest part of any text."""
    return max((len(part) for text in texts for part in re.split(separator, text)), default=0)


def _shrunk(widths: list[int], least: list[int], room: int) -> list[int]:
    """Widths of which the widest that may are made narrower, until they fit or none may."""
    found = list(widths)
    while sum(found) > room and any(w > low for w, low in zip(found, least, strict=True)):
        _, widest = max((w, -i) for i, (w, low) in enumerate(zip(found, least, strict=True)) if w > low)
        found[-widest] -= 1
    return found


def _wrapped(cell: str, width: int) -> str:
    return "\n".join(part for line in cell.split("\n") for part in textwrap.wrap(line, width) or [""])


def _headers(columns: Sequence[tuple[str, str]], widths: Sequence[int]) -> list[Text]:
    """Names in bold over units in grey, all of the same height, the last lines level."""
    found = []
    for (name, unit), width in zip(columns, widths, strict=True):
        parts = ((name, "bold"), (unit, "dim"))
        found.append([Text(line, style) for part, style in parts for line in textwrap.wrap(part, width)])
    height = max(map(len, found), default=0)
    return [Text("\n").join([Text()] * (height - len(lines)) + lines) for lines in found]
