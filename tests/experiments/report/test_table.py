"""Tables: whole on the terminal, with as many cells in Markdown as there are."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rapport.experiments.report.table import Table

COLUMNS = (("method", ""), ("summed return", "clicks"), ("may know", ""))
ROWS = (
    ("Learned", "", ""),
    ("LERL", "5.20 [5.01, 5.44]", "its plans"),
    ("Bounds", "", ""),
    ("oracle [reads it]", "not run", "everything"),
)


def printed(table: Table, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(table, crop=False)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_table_needs_a_cell_for_each_column() -> None:
    with pytest.raises(ValueError, match="row 1 has 1 cells for 2 columns"):
        Table((("a", ""), ("b", "")), (("1", "2"), ("3",)))


def test_the_terminal_sets_words_left_and_numbers_right() -> None:
    lines = printed(Table(COLUMNS, ROWS, "Two methods", 1), 80)
    assert lines[0] == "Two methods"
    header, unit, *body = lines[1:]
    assert header.split() == ["summed", "return"] and unit.split() == ["method", "clicks", "may", "know"]
    row = next(line for line in body if line.startswith("LERL"))
    last = next(line for line in body if line.startswith("oracle [reads it]"))
    assert row.index("5.44]") + 5 == last.index("not run") + 7 == unit.index("clicks") + 6
    assert row.index("its plans") == last.index("everything") == unit.index("may know")
    assert body[body.index("Bounds") - 1] == ""  # room above a heading


@given(st.integers(10, 130), st.text("ab [|<]", min_size=1, max_size=60))
def test_numbers_stay_whole_however_narrow_it_is(width: int, label: str) -> None:
    lines = printed(Table(COLUMNS, (*ROWS, (label, "1.00 [0.50, 1.50]", label))), width)
    text = "\n".join(lines)
    if width >= 58:  # two columns of words of 20 letters, the numbers and two gaps
        assert "5.20 [5.01, 5.44]" in text and "1.00 [0.50, 1.50]" in text
    if width >= 60 + 12:
        assert max(map(len, lines)) <= width
    assert "[5.01, 5.44]" in text and "[0.50, 1.50]" in text and "…" not in text


def test_rows_of_one_first_cell_stand_together() -> None:
    rows = (("click", "1"), ("click", "2"), ("like", "3"))
    lines = printed(Table((("behaviour", ""), ("n", "")), rows), 80)
    assert [line.split() for line in lines[2:]] == [["click", "1"], ["click", "2"], [], ["like", "3"]]


def test_markdown_by_hand() -> None:
    assert Table(COLUMNS, ROWS, "a\n<b>", 1).to_markdown().splitlines() == [
        "a \\<b>",
        "",
        "| method | summed return [clicks] | may know |",
        "| :-- | --: | :-- |",
        "| **Learned** |  |  |",
        "| **LERL** | 5.20 [5.01, 5.44] | its plans |",
        "| **Bounds** |  |  |",
        "| oracle [reads it] | not run | everything |",
    ]


def test_a_table_without_rows_is_a_header() -> None:
    assert "clicks" in printed(Table(COLUMNS, ()), 80)[2]
    assert len(Table(COLUMNS, ()).to_markdown().splitlines()) == 2
