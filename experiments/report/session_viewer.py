"""Recorded sessions as a viewer of a page: two of the same user side by side, slate by slate."""

from __future__ import annotations

from collections.abc import Sequence

from rapport.experiments.report.blocks import Viewer
from rapport.experiments.report.html import template_text
from rapport.experiments.report.session_record import RecordedSession
from rapport.experiments.report.table import Table

_COLUMNS = (
    ("user", ""),
    ("served by", ""),
    ("slates", ""),
    ("return", "summed click rate"),
    ("clicked", "items"),
    ("shown again", "categories per slate"),
    ("ended", ""),
)


def session_viewer(sessions: Sequence[RecordedSession]) -> Viewer:
    """A viewer of sessions, with their figures as its table."""
    data = [session.to_dict() for session in sessions]
    return Viewer(template_text("session_viewer.html.j2"), data, session_table(sessions), "slate by slate")


def session_table(sessions: Sequence[RecordedSession]) -> Table:
    """One line per session, users together in the order of their first session."""
    users = list(dict.fromkeys(session.user for session in sessions))
    ordered = sorted(sessions, key=lambda session: users.index(session.user))
    return Table(_COLUMNS, tuple(_cells(session) for session in ordered), "The sessions, in figures.")


def _cells(session: RecordedSession) -> tuple[str, ...]:
    slates, again = session.slates, session.overlaps()
    clicks, items = sum(sum(slate.clicks) for slate in slates), sum(len(slate.items) for slate in slates)
    overlap = f"{sum(again) / len(again):.2f}" if again else "none"
    total = f"{sum(slate.reward for slate in slates):.2f}"
    return (str(session.user), session.label, str(len(slates)), total, f"{clicks} of {items}", overlap, session.ended)
