"""Renders a session as text for a terminal."""

from __future__ import annotations

import io

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rapport.envs.session.render.view import (
    OTHER_PLACE,
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

LEAST_WIDTH = 60
_SIDES = 5 + 5 + 6
"""Columns of a slate's number, cost and remaining budget."""
_LEAST_PLACE, _MOST_PLACE, _MOST_LINES = 11, 30, 3
"""Columns and lines of a place; if places would get fewer columns, the last ones are only counted."""
_REPEATED = {SAME_PLACE: "=", OTHER_PLACE: "~", 0: " "}


def ansi(frame: SessionFrame, *, width: int = 100, slates: int = 12, colour: bool = True) -> str:
    """Draw a session: the user, the budget, the last slates with the newest at the bottom, and why the user left.

    Colours repeat what symbols and words say.

    Args:
        frame: the session so far.
        width: columns, at least 60.
        slates: maximum number to show, at least 1; earlier ones are counted.
        colour: write colour codes; without them the text is plain.

    Raises:
        ValueError: the width or the number of slates is too small.
    """
    for name, value, least in (("width", width, LEAST_WIDTH), ("slates", slates, 1)):
        if value < least:
            raise ValueError(f"{name}={value}; it must be at least {least}")
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
        emoji=False,
        highlight=False,
        _environ={},
    )
    marks = behaviour_marks(frame.behaviours)
    console.print(
        Text.assemble((plain(frame.user), "bold"), ("  " + traits(frame), "dim")), no_wrap=True, overflow="ellipsis"
    )
    console.print(Text(f"{figures(frame)}; quit rule {rule_name(frame)}"))
    console.print(_budget(frame, width))
    if len(frame.slates):
        console.print()
        console.print(_table(frame, marks, width, slates))
        console.print(_legend(frame, marks, slates))
    if frame.ended:
        style = "bold red" if frame.ended == "left" else "bold yellow"
        console.print()
        console.print(Text(f"■ {plain(frame.user)}: {ending(frame)}", style=style))
    return out.getvalue()


def _budget(frame: SessionFrame, width: int) -> Text:
    """A bar of three segments (left, extra, slates) and the same in words."""
    spent = spending(frame)
    said = Text.assemble(
        (f"  {number(spent.left)} left", "green"),
        (f", {number(spent.extra)} on {extra_name(frame)}", "red") if spent.extra > 0 else "",
        (f", {number(spent.slates)} on slates", "dim"),
        f" (of {number(frame.start_budget)})",
    )
    columns = max(10, min(40, width - cell_len(said.plain) - len("budget ")))
    total = max(spent.left + spent.extra + spent.slates, 1e-9)
    left, both = (round(columns * part / total) for part in (spent.left, spent.left + spent.extra))
    bar = Text.assemble(("█" * left, "green"), ("▓" * (both - left), "red"), ("░" * (columns - both), "dim"))
    return Text.assemble("budget ", bar, said)


def _table(frame: SessionFrame, marks: dict[str, str], width: int, slates: int) -> Table:
    places = frame.slates.shape[1]
    kept = min(places, max(1, (width - _SIDES) // _LEAST_PLACE))
    kept -= kept > 1 and kept < places
    columns = kept + (kept < places)
    cell = min(_MOST_PLACE, (width - _SIDES) // columns)
    table = Table(box=None, padding=0, header_style="dim")
    table.add_column("slate", width=5)
    for place in range(kept):
        table.add_column(f"   place {place + 1}" if places > 1 else "   item", width=cell, no_wrap=True)
    if kept < places:
        table.add_column("   others", width=cell, no_wrap=True)
    table.add_column("cost", justify="right", width=5)
    table.add_column("left", justify="right", width=6)
    repeated, left = repeats(frame.slates), frame.start_budget - frame.costs.cumsum()
    least = spending(frame).least
    for step in range(max(0, len(frame.slates) - slates), len(frame.slates)):
        cells = [_place(frame, marks, (step, place), int(repeated[step, place]), cell) for place in range(kept)]
        if kept < places:
            hits = int((frame.feedback[step, kept:, 0] > 0).sum())
            cells.append(Text(f"   +{places - kept}: {hits} {marks[frame.behaviours[0]]}", style="dim"))
        cost = Text(cost_text(frame.costs[step]), style="bold red" if frame.costs[step] > least else "dim")
        table.add_row(f"{step + 1:>4}", *cells, cost, number(max(left[step], 0.0)))
    return table


def _place(frame: SessionFrame, marks: dict[str, str], where: tuple[int, int], repeated: int, width: int) -> Text:
    """One item: how it repeats, whether it was clicked, its category, and what else the user did."""
    category, first = int(frame.slates[where]), frame.behaviours[0]
    if category < 0:
        return Text(" - empty", style="dim")
    did = [name for name, done in zip(frame.behaviours, frame.feedback[where], strict=True) if done > 0]
    clicked = first in did
    lines = _wrapped(category_name(frame, category), width - 3)
    others = "".join(marks[name] for name in did if name != first)
    fits = cell_len(lines[-1]) + 1 + len(others) <= width - 3
    return Text.assemble(
        (_REPEATED[repeated], "bold red" if repeated == SAME_PLACE else "yellow"),
        (marks[first] if clicked else "·", "bold green" if clicked else "dim"),
        " ",
        ("\n   ".join(lines), "bold" if clicked else ""),
        ((" " if fits else "\n   ") + others if others else "", "cyan"),
    )


def _wrapped(name: str, width: int) -> list[str]:
    """A name in at most three lines; what is too long ends in an ellipsis."""
    lines: list[str] = []
    for word in name.split() or [""]:
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and (cell_len(joined) <= width or len(lines) == _MOST_LINES):
            lines[-1] = joined
        else:
            lines.append(word)
    return [line if cell_len(line) <= width else set_cell_size(line, width - 1).rstrip() + "…" for line in lines]


def _legend(frame: SessionFrame, marks: dict[str, str], slates: int) -> Text:
    """Legend of the marks shown: a line for behaviours and one for repeats."""
    first = max(0, len(frame.slates) - slates)
    feedback, repeated = frame.feedback[first:], repeats(frame.slates)[first:]
    did = [f"· no {words(frame.behaviours[0])}"]
    did += [
        f"{marks[name]} {words(name)}"
        for column, name in enumerate(frame.behaviours)
        if column == 0 or (feedback[..., column] > 0).any()
    ]
    lines = ["   ".join(did)]
    if repeated.any():
        lines.append("= category of the slate before, at the same place   ~ at another place")
    if first:
        lines.append(f"{counted(first, 'earlier slate')} not shown")
    return Text("\n".join(lines), style="dim")
