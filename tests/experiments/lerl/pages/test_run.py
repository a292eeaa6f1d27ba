"""The page of a run: whole, escaped, and honest about what was not measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rapport.experiments.core import Experiment
from rapport.experiments.lerl.config import LLM, PlannerConfig
from rapport.experiments.lerl.environments import session_env
from rapport.experiments.lerl.pages.run import TITLE, lerl_summary, planner_label, run_page
from rapport.experiments.lerl.protocol import HeldOutSessions
from rapport.experiments.lerl.rows import NO_LLM, RUN_ROWS, RowSettings, lerl_rows
from rapport.experiments.report.page import to_html, to_markdown
from rapport.experiments.results.store import Result
from rapport.experiments.results.summary import verdict

EVIL = "</script><script>alert(1)</script><b>"
METER = {"calls": 7.0, "decisions": 8.0, "seconds": 1.0}


def made(folder, label=None, note="", planner=None, rows=("lerl", "ppo"), profile="official"):
    """An experiment whose results are drawn at random."""
    env = session_env("kuairand", "twin", profile=profile)
    planner = PlannerConfig(LLM, "m.gguf", period=20) if planner is None else planner
    table = lerl_rows(RUN_ROWS, env, RowSettings(planner))
    table = tuple(replace(row, label=label) if label and row.name == "lerl" else row for row in table)
    experiment = Experiment(table, 2, HeldOutSessions(60), folder)
    rng = np.random.default_rng(0)
    for name in rows:
        row = experiment.by_name[name]
        for seed in range(2):
            arrays = {"length": rng.integers(11, 20, 60), "return": rng.uniform(2, 9, 60)}
            curve = tuple((at, 11 + at / 500, 5 + at / 900) for at in range(0, 2_000, 100))
            meter = METER if name == "lerl" else {}
            notes = (note,) if note else ()
            result = Result(name, row.label, seed, arrays, meter=meter, notes=notes, curve=curve, steps=2_000)
            experiment.store.save(result, experiment.key(row))
    return experiment, planner


def test_the_page_has_every_part_of_it(tmp_path):
    experiment, planner = made(tmp_path)
    page = run_page(experiment, planner, {"seeds": "2"})
    summary = lerl_summary(experiment, experiment.results(), planner)
    assert [page.finding, *page.findings] == verdict(summary)
    text = to_markdown(page)
    for part in (
        TITLE,
        "## Results on held-out users",
        "## Learning curves",
        "## What the language model cost",
        "## How far to trust the simulator",
        "## How to read it",
        "T_int",
        "R_cum",
        "R_sin",
        "not run",
        "profile official",
        "planner: LLM m.gguf",
        "per 1 k slates",
        "LERL: per seed the language model made 8 plans (100 %)",
        "No simulator card: the official profile's response model has learned from every day.",
        "seeds: 2",
    ):
        assert part in text, part
    assert text.count(" not run |") == (len(RUN_ROWS) - 2) * 5
    pytest.importorskip("plotly")
    html = to_html(page)
    assert html.count('class="plotly-graph-div"') == 3 + 2  # a figure per metric, and two learning curves
    for part in ("T_int", "R_cum", "R_sin", "not run", "training transitions", TITLE):
        assert part in html


def test_what_comes_from_outside_is_escaped(tmp_path):
    pytest.importorskip("plotly")
    plain = to_html(run_page(*made(tmp_path / "plain", note="x"), {"a": "b"}))
    planner = PlannerConfig(LLM, f"http://localhost/v1#{EVIL}", period=20)
    evil = to_html(run_page(*made(tmp_path / "evil", EVIL, EVIL, planner), {EVIL: EVIL}))
    assert "<script>alert" not in evil and "alert(1)" in evil
    assert evil.count("<script") == plain.count("<script")
    assert evil.count("<b>") == plain.count("<b>")


def test_a_run_with_nothing_measured_says_so(tmp_path):
    experiment, planner = made(tmp_path, rows=())
    page = run_page(experiment, planner, {})
    text = to_markdown(page)
    assert page.finding == "lerl: not run, so nothing is compared with it."
    assert text.count(" not run |") == len(RUN_ROWS) * 5
    assert "No language model planned." in text
    pytest.importorskip("plotly")
    assert "not run" in to_html(page)


def test_without_a_model_every_line_says_who_planned(tmp_path):
    planner = PlannerConfig(period=20)
    experiment, _ = made(tmp_path, planner=planner)
    assert planner_label(planner) == NO_LLM
    text = to_markdown(run_page(experiment, planner, {}))
    assert f"planner: {NO_LLM}" in text and "LERL (no LLM given)" in text
