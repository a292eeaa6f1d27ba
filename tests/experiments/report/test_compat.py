"""The page of a run, as long as it is made by its former calls: whole, self-contained, escaped."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from rapport.experiments.report.compat import Card, Curve, RunReport, render, write_report
from rapport.experiments.results.store import MethodResult
from rapport.experiments.results.summary import RunFacts, summarise

pytest.importorskip("jinja2")
pytest.importorskip("plotly")
EVIL = "</script><script>alert(1)</script><b>"


def a_report(label: str = "LERL", **changes: object) -> RunReport:
    rng = np.random.default_rng(0)
    results = [
        MethodResult(name, shown, seed, rng.integers(11, 20, 60), rng.uniform(2, 9, 60), meter=meter)
        for name, shown, meter in (("lerl", label, {"calls": 7, "seconds": 1.0}), ("ppo", "PPO", {}))
        for seed in range(2)
    ]
    table = summarise(results, RunFacts("twin", 50, "corrected", "heuristic"), (("lerl", label), ("none", "absent")))
    steps = np.arange(0, 2_000, 100)
    curves = [Curve("lerl", s, np.stack([steps, 11 + steps / 500 + s, 5 + steps / 900 - s], axis=1)) for s in range(2)]
    columns = (("behaviour", ""), ("predictor", ""), ("AUC", ""))
    card = Card(columns, (("click", "model", "0.731"), ("click", "item rate", "not run")), "later days")
    values: dict[str, object] = {
        "title": "A run",
        "table": table,
        "settings": {"seeds": "2"},
        "curves": curves,
        "card": card,
    }
    return RunReport(**{**values, **changes})  # type: ignore[arg-type]


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert not page.open
    return page


def test_the_page_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    text = write_report(a_report(), tmp_path / "new" / "report.html").read_text("utf-8")
    page = parsed(text)
    links = [a.get("src") or a.get("href") for _, a in page.tags if "src" in a or "href" in a]
    assert links == [f"#section-{place}" for place in range(1, 6)]
    assert text.count("plotly.js v") == 1
    for part in (
        "A run",
        "T_int",
        "R_cum",
        "R_sin",
        "0.731",
        "later days",
        "CC BY-SA 4.0",
        "not run",
        "training transitions",
    ):
        assert part in text
    assert sum(a.get("class") == "plotly-graph-div" for _, a in page.tags) == 5


def test_what_comes_from_outside_is_escaped() -> None:
    report = a_report(
        EVIL,
        title=EVIL,
        settings={EVIL: EVIL},
        card=Card(((EVIL, EVIL),) * 3, ((EVIL, "0.7", "0.7"), (EVIL, EVIL, EVIL)), EVIL),
        notes=[EVIL],
        licence=EVIL,
    )
    text = render(report)
    plain, evil = parsed(render(a_report(notes=["x"]))), parsed(text)
    assert "<script>alert" not in text
    assert sum(tag == "script" for tag, _ in evil.tags) == sum(tag == "script" for tag, _ in plain.tags)
    assert [tag for tag, _ in evil.tags].count("b") == 1  # the page's own


def test_a_run_with_nothing_measured_says_so() -> None:
    table = summarise([], RunFacts("twin", 50, "corrected", "heuristic"), (("lerl", "LERL"),))
    text = render(a_report(table=table, curves=(), card=None))
    assert len(re.findall("not run", text)) >= 7


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "rapport-gym\[report\]"'):
        render(a_report())
