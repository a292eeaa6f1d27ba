"""A page as plain data: a finding, sections with tables, figures and sessions to look at; as Markdown and as HTML.

The HTML needs nothing but itself: plotly.js is inlined where there are figures, and a content policy forbids the page
to load anything. The Markdown holds the same words and tables, and says where its figures are to be seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rapport.experiments.report.figures import LICENCE_KUAIRAND, figure_html, template_of
from rapport.experiments.report.session_record import RecordedSession
from rapport.experiments.results.store import write_atomically
from rapport.experiments.results.summary import NOT_RUN, markdown

NAME = "report"
"""Name of both files, without their endings."""
_CONTENTS_FROM = 4
"""Sections from which on a page has a table of contents."""
_FEW, _ROOMY = 4, 6
"""Columns up to which a table is no wider than it has to be; and up to which intervals stand beside their points, not
below."""
_NUMBER = re.compile(r"[+-]?[\d.]")
_INTERVAL = re.compile(r"(.*\S) (\[[^\[\]]*\])")
_CASES = (
    ("user", ""),
    ("served by", ""),
    ("slates", ""),
    ("R_cum", "summed click rate"),
    ("clicked", "items"),
    ("shown again", "categories per slate"),
    ("ended", ""),
)


@dataclass(frozen=True)
class TableBlock:
    """A table of text.

    Attributes:
        columns: (name, unit) of each.
        rows: as many cells each. A row with nothing but its first cell is a heading of the rows below it; a cell
            ``"not run"`` is shown in grey.
        caption: what it shows.
        bold: place in ``rows`` of the row that stands out, or None.
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


@dataclass(frozen=True, eq=False)
class FigureBlock:
    """A plotly figure and what it shows.

    Attributes:
        figure: of plotly, with a height (:func:`~rapport.experiments.report.figures.lay_out` gives one). Names from
            outside in it have to be escaped already: plotly reads mark-up in them.
        caption: what it shows.
    """

    figure: Any
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Section:
    """A part of a page; what it holds is shown in this order.

    Attributes:
        title: heading.
        paragraphs: plain text.
        tables: one below the other.
        figures: side by side where there is room.
        sessions: to be looked at slate by slate, two of the same user at a time.
        anchor: short name for links, e.g. ``"controls"``; empty for one that is made from its place.
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[TableBlock, ...] = ()
    figures: tuple[FigureBlock, ...] = ()
    sessions: tuple[RecordedSession, ...] = ()
    anchor: str = ""


@dataclass(frozen=True, eq=False)
class Page:
    """Everything a page shows.

    Attributes:
        title: what the page is about.
        subtitle: what it rests on, in a few words.
        headline: the finding; the first line of the page.
        findings: further ones, a sentence each.
        sections: in the order shown.
        settings: what was run, name to value, in the order shown.
        licence: note on the data's licence.
    """

    title: str
    subtitle: str
    headline: str
    findings: tuple[str, ...]
    sections: tuple[Section, ...]
    settings: Mapping[str, str]
    licence: str = LICENCE_KUAIRAND

    def __post_init__(self) -> None:
        anchors = [section.anchor for section in self.sections if section.anchor]
        if twice := sorted({anchor for anchor in anchors if anchors.count(anchor) > 1}):
            raise ValueError(f"sections: more than one has the anchor {twice[0]!r}; give each its own")


def write_page(page: Page, folder: Path) -> tuple[Path, Path]:
    """Write the page into ``folder``, as Markdown and as HTML, each atomically; their paths in this order.

    Raises:
        ModuleNotFoundError: the ``report`` extra is not installed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{NAME}.md", folder / f"{NAME}.html"
    for path, text in zip(paths, (to_markdown(page), to_html(page)), strict=True):
        write_atomically(path, text)
    return paths


def to_markdown(page: Page) -> str:
    """The page as Markdown: the finding first; figures are left out with a word where they are to be seen."""
    blocks = [f"# {_plain(page.headline)}", f"{_plain(page.title)}. {_plain(page.subtitle)}"]
    blocks.append(_bullets(page.findings))
    for section in page.sections:
        blocks += [f"## {_plain(section.title)}", *map(_plain, section.paragraphs)]
        blocks += [_table_markdown(table) for table in section.tables]
        blocks += [f"*Figure, to be seen in {NAME}.html:* {_plain(figure.caption)}" for figure in section.figures]
        if section.sessions:
            blocks.append(_table_markdown(case_table(section.sessions)))
            blocks.append(f"*Slate by slate they are to be seen in {NAME}.html.*")
    blocks.append("## What was run" if page.settings else "")
    blocks.append(_bullets([f"{name}: {value}" for name, value in page.settings.items()]))
    blocks.append(_plain(page.licence))
    return "\n\n".join(block.rstrip() for block in blocks if block) + "\n"


def to_html(page: Page) -> str:
    """The page as one HTML text; everything that comes from outside is escaped.

    Raises:
        ModuleNotFoundError: the ``report`` extra is not installed.
    """
    template, shared = template_of("page.html.j2")
    shown = [_shown_section(section, place) for place, section in enumerate(page.sections, 1)]
    return str(
        template.render(
            page=page,
            sections=shown,
            contents=len(shown) >= _CONTENTS_FROM,
            has_figures=any(section.figures for section in shown),
            has_sessions=any(section.sessions for section in shown),
            **shared,
        )
    )


def case_table(sessions: Sequence[RecordedSession]) -> TableBlock:
    """One line per session, users together in the order of their first session."""
    users = list(dict.fromkeys(session.user for session in sessions))
    ordered = sorted(sessions, key=lambda session: users.index(session.user))
    return TableBlock(_CASES, tuple(_case(session) for session in ordered), "The sessions, in figures.")


def _case(session: RecordedSession) -> tuple[str, ...]:
    slates, again = session.slates, session.overlaps()
    clicks, items = sum(sum(slate.clicks) for slate in slates), sum(len(slate.items) for slate in slates)
    overlap = f"{sum(again) / len(again):.2f}" if again else "none"
    total = f"{sum(slate.reward for slate in slates):.2f}"
    return (str(session.user), session.label, str(len(slates)), total, f"{clicks} of {items}", overlap, session.ended)


def _plain(text: str) -> str:
    """A text on one line of Markdown, in which nothing reads as a tag."""
    return " ".join(text.split()).replace("<", "\\<")


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_plain(line)}" for line in lines)


def _table_markdown(table: TableBlock) -> str:
    columns = [(_plain(name).replace("|", "\\|"), _plain(unit).replace("|", "\\|")) for name, unit in table.columns]
    rows = [[_plain(cell) for cell in row] for row in table.rows]
    for place, row in enumerate(rows):
        if row[0] and (place == table.bold or _is_heading(table.rows[place])):
            row[0] = f"**{row[0]}**"
    text = markdown(columns, rows)
    return f"{_plain(table.caption)}\n\n{text}" if table.caption else text


class _Cell(NamedTuple):
    """A cell's text, its interval apart, and its class."""

    text: str
    interval: str
    kind: str


class _ShownTable(NamedTuple):
    """A table as the template wants it: columns as (name, unit, class), rows as (class, cells), its size as a class."""

    columns: list[tuple[str, str, str]]
    rows: list[tuple[str, list[_Cell]]]
    caption: str
    size: str


class _ShownSection(NamedTuple):
    """A section as the template wants it: figures as (HTML, caption), sessions as JSON, or None."""

    anchor: str
    title: str
    paragraphs: tuple[str, ...]
    tables: list[_ShownTable]
    figures: list[tuple[str, str]]
    sessions: str | None
    cases: _ShownTable | None


def _shown_section(section: Section, place: int) -> _ShownSection:
    return _ShownSection(
        section.anchor or f"section-{place}",
        section.title,
        section.paragraphs,
        [_shown_table(table) for table in section.tables],
        [(figure_html(block.figure), block.caption) for block in section.figures],
        _embedded([session.to_dict() for session in section.sessions]) if section.sessions else None,
        _shown_table(case_table(section.sessions)) if section.sessions else None,
    )


def _shown_table(table: TableBlock) -> _ShownTable:
    body = [row for row in table.rows if not _is_heading(row)]
    kinds = ["text" if i == 0 or _is_text([row[i] for row in body]) else "" for i in range(len(table.columns))]
    rows = []
    for place, row in enumerate(table.rows):
        kind = "group" if _is_heading(row) else "main" if place == table.bold else ""
        rows.append((kind, [_shown_cell(*pair) for pair in zip(row, kinds, strict=True)]))
    columns = [(name, unit, kind) for (name, unit), kind in zip(table.columns, kinds, strict=True)]
    size = "few" if len(columns) <= _FEW else "dense" if len(columns) > _ROOMY else ""
    return _ShownTable(columns, rows, table.caption, size)


def _shown_cell(cell: str, kind: str) -> _Cell:
    if cell == NOT_RUN:
        return _Cell(cell, "", f"{kind} none".strip())
    found = None if kind else _INTERVAL.fullmatch(cell)
    return _Cell(found[1], found[2], kind) if found else _Cell(cell, "", kind)


def _is_heading(row: tuple[str, ...]) -> bool:
    return len(row) > 1 and bool(row[0]) and not any(row[1:])


def _is_text(cells: Sequence[str]) -> bool:
    """Whether a column holds words alone, so that it is set from the left."""
    filled = [cell for cell in cells if cell and cell != NOT_RUN]
    return bool(filled) and not any(_NUMBER.match(cell) for cell in filled)


def _embedded(plain: object) -> str:
    """JSON that can stand in a script element: no character of it can end the element or a line."""
    text = json.dumps(plain, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
