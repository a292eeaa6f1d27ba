"""A page as one HTML text that loads nothing."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from rapport.experiments.report.blocks import Block, Figure, Viewer
from rapport.experiments.report.table import Table, is_heading
from rapport.experiments.results.metrics import NOT_RUN

if TYPE_CHECKING:
    from rapport.experiments.report.page import Page, Section

_CONTENTS_FROM = 4
"""Sections from which on a page has a table of contents."""
_FEW, _ROOMY = 4, 6
"""Columns up to which a table is no wider than it has to be; and up to which intervals stand beside their points, not
below."""
FIGURE_TYPE = "application/vnd.plotly+json"
"""Type of the script elements that hold figures."""
_INTERVAL = re.compile(r"(.*\S) (\[[^\[\]]*\])")


def to_html(page: Page) -> str:
    """The page as one HTML text; everything that comes from outside is escaped.

    Raises:
        ModuleNotFoundError: the ``report`` extra is not installed.
    """
    jinja2, plotly_script = _libraries()
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(template_text),
    )
    sections = [_shown_section(section, place) for place, section in enumerate(page.sections, 1)]
    return str(
        environment.get_template("page.html.j2").render(
            page=page,
            sections=sections,
            contents=len(sections) >= _CONTENTS_FROM,
            has_figures=any(part.kind == "figures" for section in sections for part in section.parts),
            plotly_script=plotly_script,
        )
    )


def template_text(name: str) -> str:
    """A file of this folder, e.g. ``"page.html.j2"``."""
    return files("rapport.experiments.report").joinpath(name).read_text("utf-8")


def figure_html(figure: Any, name: str) -> str:
    """A plotly figure as a piece of a page, whose script draws it; ``name`` is its own on the page."""
    plain = _harmless(str(figure.to_json()))
    return (
        f'<div class="plotly-graph-div" id="{name}" style="height:{figure.layout.height}px"></div>\n'
        f'<script type="{FIGURE_TYPE}">{plain}</script>'
    )


@cache
def _packed_plotly() -> str:
    """plotly.js, compressed and in letters that can stand in a script element: 2 MB in place of 5."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _libraries() -> tuple[Any, Callable[[], str]]:
    try:
        import jinja2
        import plotly  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'the page needs {error.name}, which is not installed; install it: pip install "rapport-gym[report]"',
            name=error.name,
        ) from error
    return jinja2, _packed_plotly


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


class _Part(NamedTuple):
    """One or more blocks as the template wants them: ``"text"``, ``"table"``, ``"figures"`` or ``"viewer"``."""

    kind: str
    content: Any
    small: bool = False


class _ShownSection(NamedTuple):
    """A section as the template wants it."""

    anchor: str
    title: str
    parts: list[_Part]


def _shown_section(section: Section, place: int) -> _ShownSection:
    anchor = section.anchor or f"section-{place}"
    return _ShownSection(anchor, section.title, list(_parts(section.blocks, f"figure-{place}")))


def _parts(blocks: Sequence[Block], name: str) -> Iterator[_Part]:
    """Blocks one by one; consecutive figures of one size together; figures are called ``name-1``, ``name-2``, ..."""
    drawn = 0
    for size, group in groupby(blocks, lambda block: block.small if isinstance(block, Figure) else None):
        if size is not None:
            figures = [block for block in group if isinstance(block, Figure)]
            shown = [(figure_html(one.draw(), f"{name}-{drawn + n}"), one.caption) for n, one in enumerate(figures, 1)]
            drawn += len(figures)
            yield _Part("figures", shown, size)
            continue
        for block in group:
            if isinstance(block, Table):
                yield _Part("table", _shown_table(block))
            elif isinstance(block, Viewer):
                yield _Part("viewer", (block.template, _embedded(block.data), block.hint, _shown_table(block.table)))
            else:
                yield _Part("text", block)


def _shown_table(table: Table) -> _ShownTable:
    kinds = ["text" if text else "" for text in table.is_text()]
    rows = []
    for place, row in enumerate(table.rows):
        kind = "group" if is_heading(row) else "main" if place == table.bold else ""
        rows.append((kind, [_shown_cell(*pair) for pair in zip(row, kinds, strict=True)]))
    columns = [(name, unit, kind) for (name, unit), kind in zip(table.columns, kinds, strict=True)]
    size = "few" if len(columns) <= _FEW else "dense" if len(columns) > _ROOMY else ""
    return _ShownTable(columns, rows, table.caption, size)


def _shown_cell(cell: str, kind: str) -> _Cell:
    if cell == NOT_RUN:
        return _Cell(cell, "", f"{kind} none".strip())
    found = None if kind else _INTERVAL.fullmatch(cell)
    return _Cell(found[1], found[2], kind) if found else _Cell(cell, "", kind)


def _embedded(plain: object) -> str:
    """JSON that can stand in a script element: no character of it can end the element or a line."""
    return _harmless(json.dumps(plain, allow_nan=False, separators=(",", ":")))


def _harmless(text: str) -> str:
    """JSON of which no character can end a script element."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
