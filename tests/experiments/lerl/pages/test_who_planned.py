"""No figure under a false name: a row whose model did not plan is called after who did, in every line of a page."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from rapport.experiments.core import Experiment
from rapport.experiments.lerl.config import LLM, PlannerConfig
from rapport.experiments.lerl.pages.controls import control_lines
from rapport.experiments.lerl.pages.reproduction import EnvironmentResults, reproduction_page
from rapport.experiments.lerl.pages.run import run_page
from rapport.experiments.lerl.pages.who_planned import named_rightly, true_labels
from rapport.experiments.lerl.protocol import HeldOutSessions
from rapport.experiments.lerl.rows import DEFINITIONS, RowSettings, lerl_rows
from rapport.experiments.report.page import to_markdown
from rapport.experiments.results.store import Result

ROWS = ("lerl", "lerl-click", "no-reflection", "lerl-top-k", "random-held", "constant", "mask", "ppo", "popularity")
MODEL = PlannerConfig(LLM, "models/smollm2.gguf", period=20)
WHY = "in evaluation the language model gave no plan: Error 400: use max_completion_tokens"
RETURNS = {"lerl": 14.9, "lerl-top-k": 15.0, "constant": 15.0, "random-held": 13.6, "mask": 13.0, "ppo": 9.0}


def made(folder, twin_env, fallbacks, planner=MODEL, returns=RETURNS):
    """Results in which the fallback made so many of LERL's 79 plans, seed by seed."""
    experiment = Experiment(lerl_rows(ROWS, twin_env, RowSettings(planner)), 2, HeldOutSessions(100), folder)
    for row in experiment.rows:
        for seed in range(2):
            noise = np.random.default_rng(seed).normal(0, 0.1, 100)
            arrays = {"length": np.full(100, 20), "return": returns.get(row.name, 11.0) + noise}
            arrays |= {name: np.full(100, 0.5) for name in ("coverage", "intra", "between")}
            meter, notes = {}, ()
            if DEFINITIONS[row.name].has_model:
                short = fallbacks[seed] if row.name != "no-reflection" else 0
                meter = {"decisions": 79.0, "fallbacks": float(short), "calls": 79.0}
                meter |= {"evaluation_decisions": 20.0, "evaluation_fallbacks": round(20 * short / 79)}
                notes = (WHY,) if short else ()
            result = Result(row.name, row.label, seed, arrays, {}, np.arange(100), meter, 800, notes=notes)
            experiment.store.save(result, experiment.key(row))
    return experiment


def test_below_nine_tenths_every_line_names_the_fallback(tmp_path, twin_env):
    experiment = made(tmp_path, twin_env, (79, 79))
    page = run_page(experiment, MODEL, {"planner": "LLM smollm2.gguf"})
    name = "top-k preference planner in place of LLM smollm2.gguf (answered 0 % of 158)"
    assert page.title == f"{name} on simulated sessions"
    assert page.finding.startswith(
        "Not measured: LERL; LERL, online CTR model. LLM smollm2.gguf answered 0 % of 316 plans"
    )
    assert page.findings[0] == f"Why: {WHY}."
    assert page.findings[1].startswith("What to change: correct what the model or the server says, or name another")
    assert page.findings[2].startswith(f"{name}: in R_cum above") and page.settings["planner"] == name
    text = to_markdown(page)
    assert f"| **{name}** |" in text and f"| {name}, online CTR model |" in text
    assert f"planner: {name}" in text and "LERL, no reflection" in text
    taught = "the policy trained under the top-k preference planner"
    assert f"| random plan of eight categories, held, over {taught} |" in text
    # LERL is named where it is said not to be measured, by its variant that was, and nowhere else.
    rest = text.replace(page.finding, "").replace("LERL, no reflection", "")
    assert not re.search(r"\bLERL\b", rest.replace("rapport simulator compare --lerl", "")), rest


def test_a_share_that_is_noticed_stands_in_the_label_and_the_range_where_seeds_differ(tmp_path, twin_env):
    few = made(tmp_path / "few", twin_env, (4, 4))
    labels = true_labels(few.rows, few.results())
    assert labels["lerl"] == "LERL (the fallback planned 5 to 6 %)"
    assert labels["random-held"] == DEFINITIONS["random-held"].label
    mixed = made(tmp_path / "mixed", twin_env, (0, 40))
    labels = true_labels(mixed.rows, mixed.results())
    assert labels["lerl"] == "top-k preference planner in place of LLM smollm2.gguf (answered 49 to 100 % of 158)"
    assert labels["constant"].endswith("over the policy trained in part under the top-k preference planner")
    assert set(mixed.results()) - set(named_rightly(mixed.rows, mixed.results())) == {
        "lerl",
        "lerl-click",
        "lerl-top-k",
        "random-held",
        "constant",
    }
    full = made(tmp_path / "full", twin_env, (0, 0))
    assert true_labels(full.rows, full.results()) == {row.name: row.label for row in full.rows}


def test_rows_that_were_not_run_keep_their_labels(tmp_path, twin_env):
    rows = lerl_rows(ROWS, twin_env, RowSettings(MODEL))
    assert true_labels(rows, {}) == {row.name: row.label for row in rows}


@pytest.mark.parametrize("fallbacks", [0, 79])
def test_a_reproduction_says_nothing_of_a_model_that_did_not_plan(tmp_path, twin_env, fallbacks):
    experiment = made(tmp_path, twin_env, (fallbacks, fallbacks))
    results = [EnvironmentResults("kuairand", experiment, MODEL)]
    page = reproduction_page(results, {}, {})
    said = " ".join([page.title, page.finding, *page.findings])
    if not fallbacks:
        assert page.title == "LERL, reproduced" and page.finding.startswith("A control beats LERL: the eight")
        return
    assert page.finding.startswith("Not measured: LERL; LERL, online CTR model.") and WHY in page.findings[0]
    for claim in ("beats LERL", "LERL beats", "as well as LERL", "LERL's gain", "LERL is", "Aim,"):
        assert claim not in said
    gained = to_markdown(page).partition("## Whose gain is it?")[2].partition("## Ablations")[0]
    assert "| all of it together | not run | not run |" in gained


def test_a_spent_budget_is_answered_by_another_budget(tmp_path, twin_env):
    experiment = made(tmp_path, twin_env, (79, 79))
    path = experiment.store
    for name in ("lerl", "lerl-click"):
        for result in experiment.results()[name]:
            spent = replace(result, notes=("in training the budget of 120 seconds is spent, then top-k planned",))
            path.save(spent, experiment.key(experiment.by_name[name]))
    page = run_page(experiment, MODEL, {})
    assert page.findings[0] == "Why: in training the budget of 120 seconds is spent, then top-k planned."
    assert page.findings[1].startswith("What to change: give a higher limit of calls, tokens or seconds, or none.")


def test_the_controls_say_whether_a_plan_has_anything_personal_to_win(tmp_path, twin_env):
    level = made(tmp_path / "level", twin_env, (0, 0)).results()
    constant, random = control_lines(level, ("lerl", "lerl-top-k", "not-run"))
    assert constant == (
        "A plan of the same eight most-clicked categories for everybody does as well as LERL (+0.10 [+0.10, +0.10] in "
        "R_cum) and top-k preference planner over LERL's policy (+0.00 [+0.00, +0.00] in R_cum): in this environment a "
        "plan has nothing personal to win, and the table cannot tell a good planner from a constant."
    )
    assert random == (
        "LERL against eight random categories, held: +1.30 [+1.30, +1.30] in R_cum; which categories are planned "
        "matters."
    )
    apart = made(tmp_path / "apart", twin_env, (0, 0), returns={**RETURNS, "constant": 14.0, "random-held": 15.0})
    constant, random = control_lines(apart.results(), ("lerl",))
    assert constant.endswith(
        "is below LERL (-0.90 [-0.90, -0.90] in R_cum): plans have something personal to win here."
    )
    assert random.endswith("-0.10 [-0.10, -0.10] in R_cum; which are planned is not seen to matter.")
    assert control_lines({}, ("lerl",)) == [] == control_lines({"constant": level["constant"]}, ("lerl",))
