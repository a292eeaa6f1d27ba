"""The page: whole, self-contained, escaped; its Markdown says the same."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from rapport.experiments.report.blocks import Block, Figure, Viewer
from rapport.experiments.report.figures import lay_out
from rapport.experiments.report.html import FIGURE_TYPE, to_html
from rapport.experiments.report.page import Page, Section, print_page, publish, to_markdown, write_page
from rapport.experiments.report.session_record import RecordedSession, RecordedSlate
from rapport.experiments.report.session_viewer import session_table, session_viewer
from rapport.experiments.report.table import Table

pytest.importorskip("jinja2")
go = pytest.importorskip("plotly.graph_objects")
get_plotlyjs = pytest.importorskip("plotly.offline").get_plotlyjs
EVIL = "</script><b>bad|\u2028name"
VOID = {"meta", "br"}


def a_slate(categories: tuple[str, ...], clicks: tuple[int, ...], budget: float) -> RecordedSlate:
    return RecordedSlate(categories[:1], ("#1", "#2"), categories, clicks, sum(clicks) / 2, 1.0, budget)


def a_session(user: int = 7, label: str = "LERL", category: str = "Food", method: str = "lerl") -> RecordedSession:
    slates = (
        a_slate((category, "Music"), (1, 0), 9.0),
        a_slate(("Music", "Dance"), (1, 1), 8.0),
        a_slate(("Sports", "Cars"), (0, 0), 0.0),
    )
    return RecordedSession(method, label, user, slates, "the budget was used up")


def a_table(name: str = "LERL") -> Table:
    rows = (
        ("Learned", "", "", ""),
        (name, "5.20 [5.01, 5.44]", "its plans", "200,000"),
        ("PPO", "not run", "not run", "none"),
    )
    return Table((("method", ""), ("R_cum", "clicks"), ("may know", ""), ("learned from", "slates")), rows, "All.", 1)


def some_sessions(word: str = "Word") -> tuple[RecordedSession, ...]:
    return a_session(label=word, category=word), a_session(label="PPO", method="ppo"), a_session(9)


def a_page(word: str = "Word", n_sections: int = 4) -> Page:
    figure = lay_out(go.Figure(go.Scatter(x=[1, 2], y=[3, 4])), "figure", 200)
    blocks: tuple[Block, ...] = (
        word,
        a_table(word),
        Table(((word, word),), ((word,),), word),
        Figure(lambda: figure, word),
        session_viewer(some_sessions(word)),
    )
    first = Section(word, blocks, word if word == EVIL else "first")
    others = tuple(Section(f"{word} {place}") for place in range(1, n_sections))
    return Page(f"title {word}", f"finding {word}", (word,), word, (first, *others), {word: word}, word)


class Parsed(HTMLParser):
    """Start tags, and the text of each script; fails where tags are not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            attrs, text = self.scripts[-1]
            self.scripts[-1] = attrs, text + data
        elif data.strip():
            self.texts.append(data.strip())

    def data(self) -> list[dict[str, object]]:
        (text,) = [text for attrs, text in self.scripts if attrs.get("type") == "application/json"]
        return list(json.loads(text))


def a_console(width: int = 200) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width), out


def test_both_files_are_written_whole(tmp_path: Path) -> None:
    page, (console, out) = a_page(), a_console()
    markdown, html = publish(page, tmp_path / "new", console)
    assert [markdown.name, html.name] == ["report.md", "report.html"]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["report.html", "report.md"]
    assert markdown.read_text("utf-8") == to_markdown(page)
    parsed = Parsed(html.read_text("utf-8"))
    shown = parsed.texts[parsed.texts.index("finding Word") :]
    assert shown[:3] == ["finding Word", "title Word", "· Word"]
    assert next(tag for tag, _ in parsed.tags if tag in {"h1", "h2", "p"}) == "h1"
    (packed,) = [text for attrs, text in parsed.scripts if attrs.get("id") == "plotly-js"]
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()
    assert html.stat().st_size < 2.5e6
    assert out.getvalue().splitlines()[-2:] == [f"Wrote {markdown}", f"Wrote {html}"]


def test_without_the_extra_the_markdown_is_written_and_the_page_is_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    console, out = a_console()
    assert publish(a_page(), tmp_path, console, name="card") == (tmp_path / "card.md",)
    assert [path.name for path in tmp_path.iterdir()] == ["card.md"]
    last = out.getvalue().splitlines()[-1]
    assert last.startswith("No page: ") and last.endswith('pip install "rapport-gym[report]"')
    with pytest.raises(ModuleNotFoundError, match=r'pip install "rapport-gym\[report\]"'):
        write_page(a_page(), tmp_path / "page.html", console)


def test_one_file_is_written_by_its_ending(tmp_path: Path) -> None:
    page, (console, _) = a_page(), a_console()
    for name in ("page.html", "page.md"):
        write_page(page, tmp_path / "new" / name, console)
    assert (tmp_path / "new" / "page.html").read_text("utf-8") == to_html(page)
    alone = (tmp_path / "new" / "page.md").read_text("utf-8")
    assert "report.html" not in alone and "| **Word** | 5.20 [5.01, 5.44] |" in alone


def test_the_terminal_shows_finding_and_tables(tmp_path: Path) -> None:
    console, out = a_console(60)
    print_page(a_page("[bold]"), console)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines.index("finding [bold]") < lines.index("- [bold]")
    assert "[bold]: [bold]" in lines and "5.20 [5.01, 5.44]" in out.getvalue()
    few, shown = a_console()
    print_page(a_page(), few, [Table((("a", "unit"),), (("cell",),))])
    assert shown.getvalue().split() == ["a", "unit", "─" * 4, "cell", "finding", "Word", "-", "Word", "Word:", "Word"]


def test_nothing_is_loaded_from_outside() -> None:
    text = to_html(a_page())
    parsed = Parsed(text)
    links = [a.get("href") or a.get("src") for _, a in parsed.tags if "href" in a or "src" in a]
    assert links == ["#first", "#section-2", "#section-3", "#section-4"]
    anchors = {a.get("id") for _, a in parsed.tags}
    assert {link[1:] for link in links if link} <= anchors
    policy = next(a["content"] for _, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'") and "http" not in policy
    own = text.replace(next(t for a, t in parsed.scripts if a.get("id") == "plotly-js"), "")
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest|innerHTML", own)


def test_what_comes_from_outside_is_escaped() -> None:
    text = to_html(a_page(EVIL))
    plain, evil = Parsed(to_html(a_page())), Parsed(text)
    assert [tag for tag, _ in evil.tags] == [tag for tag, _ in plain.tags]
    assert "</script><b>" not in text
    (embedded,) = [t for a, t in evil.scripts if a.get("type") == "application/json"]
    assert not re.search("[<>&\u2028\u2029]", embedded)
    for kept in (t for a, t in evil.scripts if a.get("type") == FIGURE_TYPE):
        assert not re.search("[<>&]", kept) and json.loads(kept)["data"]
    session = RecordedSession.from_dict(evil.data()[0])
    assert session == a_session(label=EVIL, category=EVIL)


def test_the_viewer_has_every_session() -> None:
    sessions = [RecordedSession.from_dict(plain) for plain in Parsed(to_html(a_page())).data()]
    assert tuple(sessions) == some_sessions()


def test_contents_are_listed_from_four_sections_on() -> None:
    assert not any(tag == "nav" for tag, _ in Parsed(to_html(a_page(n_sections=3))).tags)
    assert any(tag == "nav" for tag, _ in Parsed(to_html(a_page(n_sections=4))).tags)


def test_a_page_of_words_needs_no_plotly() -> None:
    page = Page("t", "h", sections=(Section("one", ("words",)),))
    parsed = Parsed(to_html(page))
    assert not parsed.scripts
    assert not any(tag in {"nav", "table"} for tag, _ in parsed.tags)


def test_cells_are_set_by_what_they_hold() -> None:
    page = Page("t", "h", sections=(Section("one", (a_table(),)),))
    text = to_html(page)
    (heading, bold, absent) = re.findall("<tr.*?</tr>", text.split("<tbody>")[1].split("</tbody>")[0], re.DOTALL)
    assert '<tr class="group"><th scope="rowgroup" colspan="4"><span>Learned</span>' in heading
    assert bold == (
        '<tr class="main"><td class="text">LERL</td>'
        '<td>5.20 <span class="interval">[5.01, 5.44]</span></td><td class="text">its plans</td><td>200,000</td></tr>'
    )
    assert '<td class="none">not run</td><td class="text none">not run</td><td>none</td>' in absent


def cells_of(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line)[1:-1]


@pytest.mark.parametrize("word", ["Word", EVIL, "two\nlines"])
def test_markdown_tables_have_as_many_cells_in_each_line(word: str) -> None:
    text = to_markdown(a_page(word))
    assert not re.search(r"(?<!\\)<", text)
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(lines) - 2 for lines in tables] == [3, 1, 3]
    for lines in tables:
        assert len({len(cells_of(line)) for line in lines}) == 1
        assert all(re.fullmatch(" :?--:? ", cell) for cell in cells_of(lines[1]))


def test_markdown_begins_with_the_finding_and_names_what_it_leaves_out() -> None:
    lines = to_markdown(a_page()).splitlines()
    assert lines[0] == "# finding Word"
    assert lines.index("- Word") < lines.index("## Word")
    assert "*Figure, to be seen in report.html:* Word" in lines
    assert "| **Word** | 5.20 [5.01, 5.44] | its plans | 200,000 |" in lines
    assert lines[-3:] == ["- Word: Word", "", "Word"]


def test_blocks_keep_their_order() -> None:
    figure = Figure(lambda: lay_out(go.Figure(), "title", 100), "drawn", small=True)
    viewer = Viewer("<i>seen</i>", {"a": 1}, Table((("t", ""),), (("in figures",),)), "one by one")
    blocks = ("first", figure, figure, a_table(), viewer, "last")
    page = Page("t", "h", sections=(Section("one", blocks),))
    marks = ("first", "drawn", "5.20", "<i>seen", "in figures", "last")
    for text in (to_html(page).split("<h2>one")[1], to_markdown(page)):
        there = [text.index(mark) for mark in marks if mark in text]
        assert there == sorted(there) and len(there) >= 5
    assert to_html(page).count('class="figures small"') == 1
    assert "*To be seen one by one in report.html.*" in to_markdown(page)
    assert [table.caption for table in page.tables()] == ["All."]


def test_cases_are_counted_by_hand() -> None:
    sessions = [a_session(7), a_session(9), a_session(7, "PPO")]
    table = session_table(sessions)
    assert [row[:2] for row in table.rows] == [("7", "LERL"), ("7", "PPO"), ("9", "LERL")]
    assert table.rows[0][2:] == ("3", "1.50", "3 of 6", "0.50", "the budget was used up")


def test_an_anchor_is_a_section_s_own() -> None:
    with pytest.raises(ValueError, match="more than one has the anchor 'x'"):
        Page("t", "h", sections=(Section("one", anchor="x"), Section("two", anchor="x")))
