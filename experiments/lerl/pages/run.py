"""The page of ``rapport run``: the table, how the agents learned, what the model cost, and how far to trust it all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rapport.datasets.registry.licence import licence_note
from rapport.envs.session.response.fit import FitSettings
from rapport.envs.session.simulator_cache import load_simulator
from rapport.experiments.core import EnvConfig, Experiment
from rapport.experiments.lerl.config import PlannerConfig, model_label
from rapport.experiments.lerl.environments import data_of
from rapport.experiments.lerl.metrics import METRICS, R_CUM, T_INT
from rapport.experiments.lerl.pages.controls import control_lines
from rapport.experiments.lerl.pages.who_planned import (
    in_place_of,
    relabelled,
    share_of,
    shortfall_lines,
    true_labels,
)
from rapport.experiments.lerl.protocol import recorded_sessions
from rapport.experiments.lerl.rows import NO_LLM, RECORDED
from rapport.experiments.report.blocks import Block
from rapport.experiments.report.page import Page, Section
from rapport.experiments.report.results_table import cost_table, curves_of, forest_of, results_table
from rapport.experiments.report.session_viewer import session_viewer
from rapport.experiments.results.metrics import NOT_RUN
from rapport.experiments.results.summary import Found, Summary, footer, summarise, verdict
from rapport.experiments.simulator.card import simulator_card
from rapport.experiments.simulator.card_tables import card_notes, card_tables

TITLE = "on simulated sessions"
"""What follows the name of the first row in the title."""
PERSONAL = ("lerl", "lerl-top-k")
"""Rows whose planner looks at the user, over the policy that the controls of plans play, too."""
TOO_SHORT = "No learning curve is drawn: with so few transitions each has one point. The table above has the results."
SHOWN_BEHAVIOURS = ("click", "long_view", "like")
"""Behaviours with enough positives to judge; the page leaves the others to the whole card."""
TERMS = (
    "T_int: mean number of slates a user stays for, from the first to the one after which the user leaves.",
    "R_cum: mean over sessions of the summed reward; the reward of a slate is the share of its items that were "
    "clicked. What a service gains from a visit: long and good.",
    "R_sin: total reward divided by total slates: how good a single slate is, whatever the length of the session. "
    "Always serving the favourite category can win here and lose the user.",
    "Intervals: interquartile mean over seeds, with a 95 % percentile interval from a bootstrap that resamples seeds, "
    "and sessions within each seed. Differences between methods are paired by seed and count as found only if their "
    "interval leaves out zero.",
)


def planner_label(planner: PlannerConfig) -> str:
    """How every line names the planner."""
    return NO_LLM if planner.llm is None else model_label(planner.llm)


def who_planned(experiment: Experiment, found: Found, planner: PlannerConfig) -> str:
    """How the planner is named once rows were run: after the fallback where the model planned too little."""
    row = experiment.by_name.get("lerl")
    share = None if row is None else share_of(row, found)
    label = planner_label(planner)
    return label if share is None or share.by_model else in_place_of(label, share)


def lerl_summary(experiment: Experiment, found: Found, planner: PlannerConfig) -> Summary:
    """The table of an experiment's rows, LERL the reference; each under the name that is true of it."""
    rows = [row for row in experiment.rows if "." not in row.name]
    env = rows[0].env
    data = data_of(env)
    facts = [
        f"data: {data.name}, {int(data.held_out.sum()):,} held-out users; "
        f"profile: {env.kwargs.get('profile', 'corrected')}; quit rule {env.kwargs['quit_rule']}",
        f"planner: {who_planned(experiment, found, planner)}",
    ]
    return summarise(found, true_labels(rows, found), METRICS, "lerl", main=R_CUM, facts=facts)


def run_page(experiment: Experiment, planner: PlannerConfig, settings: Mapping[str, str]) -> Page:
    """The whole page."""
    found = relabelled(experiment.rows, experiment.results())
    summary, env = lerl_summary(experiment, found, planner), experiment.rows[0].env
    headline, *further = verdict(summary)
    said = [*shortfall_lines(experiment.rows, found), headline, *control_lines(found, PERSONAL), *further]
    data, who = data_of(env).name, who_planned(experiment, found, planner)
    labels = {name: group[0].label for name, group in found.items()}
    lerl = summary.row("lerl")
    return Page(
        f"{'LERL' if lerl is None else lerl.label} {TITLE}",
        said[0],
        said[1:],
        f"{data} · profile {env.kwargs.get('profile', 'corrected')} · planner: {who}",
        (
            Section("Results on held-out users", _results(summary), "results"),
            Section("Learning curves", _curves(found), "curves"),
            Section("What the language model cost", [cost_table(summary) or "No language model planned."], "cost"),
            *_viewer(experiment, labels),
            Section("How far to trust the simulator", _trust(env), "trust"),
            Section("How to read it", TERMS, "terms"),
        ),
        {**settings, "planner": who} if "planner" in settings else settings,
        licence_note(data),
    )


def _results(summary: Summary) -> list[Block]:
    blocks: list[Block] = [results_table(summary), *footer(summary)]
    if any(row.seeds for row in summary.rows):
        blocks += [forest_of(summary, metric) for metric in METRICS]
    return blocks


def _curves(found: Found) -> list[Block]:
    caption = (
        "Sessions of training users that ended lately, while exploring: not comparable with the table. Thick line: "
        "mean over seeds; band: one standard error; thin lines: single seeds."
    )
    results = [result for group in found.values() for result in group]
    figures = [curves_of(results, metric, caption) for metric in (R_CUM, T_INT)]
    drawn: list[Block] = [figure for figure in figures if figure is not None]
    return drawn or [TOO_SHORT if any(result.curve for result in results) else NOT_RUN]


def _viewer(experiment: Experiment, labels: Mapping[str, str]) -> list[Section]:
    """Sessions to look at; nothing where none was recorded."""
    sessions = recorded_sessions(experiment.folder, RECORDED, labels)
    return [Section("Sessions to look at", [session_viewer(sessions)], "sessions")] if sessions else []


def _trust(env: EnvConfig) -> list[Block]:
    """How far the simulator can be trusted on later days; why it is not said, where it is not."""
    if env.kwargs.get("profile") == "official":
        return [
            "No simulator card: the official profile's response model has learned from every day. "
            "How one does that has not: rapport simulator compare --lerl."
        ]
    data, settings = data_of(env), FitSettings()
    response, fitted = load_simulator(data, settings)
    try:
        card = simulator_card(data, fitted, response, np.random.default_rng(0), settings=settings)
    except ModuleNotFoundError as error:
        return [f"No simulator card: {error}"]
    table = card_tables(card)[0]
    rows = tuple(row for row in table.rows if row[0] in SHOWN_BEHAVIOURS)
    shown = type(table)(table.columns, rows, table.caption)
    return [shown, *card_notes(card), "The whole card, with all behaviours: rapport simulator card."]
