"""A page as plain data: a finding, and sections of text, tables, figures and viewers; as Markdown and as HTML.

The HTML needs nothing but itself: plotly.js is inlined where there are figures, and a content policy forbids the page
to load anything. The Markdown holds the same words and tables, and says where its figures are to be seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.text import Text

from rapport.experiments.report.blocks import Block, Figure, Viewer
from rapport.experiments.report.html import to_html
from rapport.experiments.report.table import WIDTH, Table, plain
from rapport.experiments.results.store import wrote

NAME = "report"
"""Name of both files of a page, without their endings."""
BEWARE = "Before you read on:"
"""Beginning of a banner."""


@dataclass(frozen=True, eq=False)
class Section:
    """A part of a page.

    Attributes:
        title: heading.
        blocks: what it holds, in the order shown; consecutive small figures stand side by side.
        anchor: short name for links, e.g. ``"controls"``; empty for one that is made from its place.
    """

    title: str
    blocks: Sequence[Block] = ()
    anchor: str = ""

    def tables(self) -> list[Table]:
        """The section's tables, those of its viewers not among them."""
        return [block for block in self.blocks if isinstance(block, Table)]


@dataclass(frozen=True, eq=False)
class Page:
    """Everything a page shows.

    Attributes:
        title: what the page is about.
        finding: what was found, in a sentence; the first line of the page.
        findings: further ones, a sentence each.
        subtitle: what it rests on, in a few words.
        sections: in the order shown.
        settings: what was run, name to value, in the order shown.
        licence: note on the data's licence (:func:`~rapport.datasets.registry.licence.licence_note`).
        banner: what a reader has to know before any result, such as that the simulator is no better than counting.
    """

    title: str
    finding: str
    findings: Sequence[str] = ()
    subtitle: str = ""
    sections: Sequence[Section] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    licence: str = ""
    banner: str = ""

    def __post_init__(self) -> None:
        anchors = [section.anchor for section in self.sections if section.anchor]
        if twice := sorted({anchor for anchor in anchors if anchors.count(anchor) > 1}):
            raise ValueError(f"sections: more than one has the anchor {twice[0]!r}; give each its own")

    def tables(self) -> list[Table]:
        """The tables of all sections."""
        return [table for section in self.sections for table in section.tables()]


def publish(
    page: Page, folder: Path, console: Console, *, tables: Iterable[Table] | None = None, name: str = NAME
) -> tuple[Path, ...]:
    """Print the page's tables and findings, write it as Markdown and as HTML into ``folder``, and say where.

    Args:
        page: what was found.
        folder: made when it is not there; each file is written atomically.
        console: where to print.
        tables: those that are printed; all of the page's by default.
        name: of both files, without their endings.

    Returns:
        The files written: without the ``report`` extra the Markdown alone, and the console says so.
    """
    print_page(page, console, tables)
    markdown, html = Path(folder) / f"{name}.md", Path(folder) / f"{name}.html"
    wrote(console, markdown, to_markdown(page, html.name))
    try:
        wrote(console, html, to_html(page))
    except ModuleNotFoundError as error:
        console.print(f"No page: {error}", style="yellow", highlight=False, markup=False, soft_wrap=True)
        return (markdown,)
    return markdown, html


def write_page(page: Page, path: Path, console: Console) -> None:
    """Write the page to one file, as HTML where its name ends in ``.html``, else as Markdown, and say so.

    Raises:
        ModuleNotFoundError: HTML is wanted and the ``report`` extra is not installed.
    """
    wrote(console, path, to_html(page) if path.suffix == ".html" else to_markdown(page, None))


def print_page(page: Page, console: Console, tables: Iterable[Table] | None = None) -> None:
    """Print tables, the findings, and what was run; no wider than :data:`~rapport.experiments.report.table.WIDTH`."""
    shown = console if console.is_terminal else Console(file=console.file, width=WIDTH)
    if page.banner:
        shown.print()
        shown.print(Text(f"{BEWARE} {page.banner}", style="bold red"), width=WIDTH)
    for table in page.tables() if tables is None else tables:
        shown.print()
        shown.print(table, crop=False)
    shown.print()
    shown.print(Text(page.finding, style="bold"), width=WIDTH)
    for line in page.findings:
        shown.print(Text(f"- {line}"), width=WIDTH)
    if page.settings:
        shown.print()
    for name, value in page.settings.items():
        shown.print(Text(f"{name}: {value}", style="dim"), width=WIDTH)


def to_markdown(page: Page, html: str | None = f"{NAME}.html") -> str:
    """The page as Markdown, the finding first.

    Args:
        page: the page.
        html: name of the file beside it where figures are to be seen; None where there is none: figures are left out.
    """
    beware = f"> **{BEWARE}** {plain(page.banner)}" if page.banner else ""
    about = [plain(part) for part in (page.title, page.subtitle) if part]
    blocks = [beware, f"# {plain(page.finding)}", ". ".join(about), _bullets(page.findings)]
    for section in page.sections:
        blocks.append(f"## {plain(section.title)}")
        blocks += [text for block in section.blocks for text in _block_markdown(block, html)]
    blocks.append("## What was run" if page.settings else "")
    blocks.append(_bullets([f"{name}: {value}" for name, value in page.settings.items()]))
    blocks.append(plain(page.licence))
    return "\n\n".join(block.rstrip() for block in blocks if block) + "\n"


def _block_markdown(block: Block, html: str | None) -> list[str]:
    if isinstance(block, Figure):
        return [] if html is None else [f"*Figure, to be seen in {html}:* {plain(block.caption)}"]
    if isinstance(block, Viewer):
        seen = [] if html is None else [f"*To be seen {plain(block.hint)} in {html}.*"]
        return [block.table.to_markdown(), *seen]
    return [block.to_markdown() if isinstance(block, Table) else plain(block)]


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {plain(line)}" for line in lines)
