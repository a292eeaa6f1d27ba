"""A row's figures are the same from whichever command they come, and the second of two computes nothing again."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from rapport.agents.llm import ScriptedLLM
from rapport.experiments.commands.reproduce import ReproduceLerl
from rapport.experiments.commands.run import Run
from rapport.experiments.core import Experiment
from rapport.experiments.core.experiment import RunRow
from rapport.experiments.jobs.local import Job, run_jobs
from rapport.experiments.lerl import config
from rapport.experiments.lerl.environments import data_of
from rapport.experiments.lerl.rows import NEED_A_MODEL, RUN_ROWS
from rapport.experiments.results.store import Result

SIZES: dict[str, Any] = {"data": "twin", "seeds": 2, "transitions": 80, "sessions": 6, "workers": 1}
SCRIPTED = "scripted.gguf"
QUIET = Console(file=io.StringIO())


@pytest.fixture
def scripted(monkeypatch, twin_env):
    """A model whose answers depend on nothing but the prompt; every prompt that it was sent."""
    names, asked, really = list(data_of(twin_env).catalog.category_names), [], config.open_llm

    def answer(prompt: str) -> str:
        asked.append(prompt)
        chosen = np.random.default_rng(zlib.crc32(prompt.encode())).permutation(len(names))[:8]
        if "has ended" in prompt:
            return json.dumps({"reflection": f"users like {names[chosen[0]]} after {names[chosen[1]]}"})
        return json.dumps({"categories": [names[place] for place in chosen]})

    def opened(source, *, sampling, budget, cache=None, **more):
        if source != SCRIPTED:
            return really(source, sampling=sampling, budget=budget, cache=cache, **more)
        return ScriptedLLM(answer, sampling=sampling, budget=budget)

    monkeypatch.setattr(config, "open_llm", opened)
    return asked


def run_of(folder, small, llm, **more: Any) -> Experiment:
    """What ``rapport run`` would do."""
    return Run(out=folder, llm=llm, **{**SIZES, **more}).planned("twin", small).experiment


def grid_of(folder, small, llm, env="kuairand", **more: Any) -> Experiment:
    """What ``rapport reproduce lerl`` would do in one environment."""
    command = ReproduceLerl(out=folder, llm=llm, worlds=(env,), **{**SIZES, **more})
    return command.reproduction(QUIET, small).experiments[env]


@pytest.mark.parametrize("llm", ["none", SCRIPTED, "embedded"])
@pytest.mark.parametrize("profile", ["corrected", "official"])
def test_every_row_of_a_run_is_a_row_of_the_grid(tmp_path, small, scripted, profile, llm):
    run = run_of(tmp_path / "run", small, llm, profile=profile)
    grid = grid_of(tmp_path / "grid", small, llm, "kuairand" if profile == "corrected" else "kuairand-official")
    expected = [name for name in RUN_ROWS if llm != "none" or name not in NEED_A_MODEL]
    assert [row.name for row in run.rows] == expected
    # A grid has them all where it is asked for them; those of the paper's rule has them by itself.
    named = grid_of(tmp_path / "grid", small, llm, grid.name, methods=RUN_ROWS)
    for one in (named,) if profile == "official" else (grid, named):
        assert {row.name: run.key(row) for row in run.rows} == {name: one.key(one.by_name[name]) for name in expected}
        assert [one.by_name[row.name].label for row in run.rows] == [row.label for row in run.rows]
    for experiment in (run, named):
        assert experiment.by_name["lerl"].planner.cools_down
        assert experiment.by_name["lerl"].env.kwargs["profile"] == profile


def test_a_settings_change_reaches_both(tmp_path, small, scripted):
    """Equal keys are no accident: what one command is told, the other has to be told as well."""
    changes: tuple[dict[str, Any], ...] = ({"plan_period": 5}, {"llm_calls": 100}, {"llm_seconds": 9.0})
    plain = run_of(tmp_path, small, SCRIPTED)
    for change in changes:
        run, grid = run_of(tmp_path, small, SCRIPTED, **change), grid_of(tmp_path, small, SCRIPTED, **change)
        for name in ("lerl", "lerl-no-rl"):
            assert run.key(run.by_name[name]) == grid.key(grid.by_name[name]) != plain.key(plain.by_name[name])
        assert run.key(run.by_name["ppo"]) == plain.key(plain.by_name["ppo"])


def same(first: Result, second: Result) -> None:
    assert (first.row, first.label, first.seed, first.steps) == (second.row, second.label, second.seed, second.steps)
    assert (first.notes, first.curve, first.units) == (second.notes, second.curve, second.units)
    clock = {"seconds"}
    assert {k: v for k, v in first.meter.items() if k not in clock} == {
        k: v for k, v in second.meter.items() if k not in clock
    }
    np.testing.assert_array_equal(first.ids, second.ids)
    assert first.arrays.keys() == second.arrays.keys()
    for name, values in first.arrays.items():
        np.testing.assert_array_equal(values, second.arrays[name], err_msg=f"{first.row}, {name}")


def run_rows(jobs: Iterable[Job]) -> int:
    """Run rows alone, without what they begin with; how many they were."""
    n = 0
    for job in jobs:
        if isinstance(job.task, RunRow):
            job.task(lambda _: None)
            n += 1
        n += run_rows(job.dependents)
    return n


@pytest.mark.slow
def test_a_rows_figures_are_equal_to_the_last_digit(tmp_path, small, scripted, monkeypatch):
    sizes = {"seeds": 1, "transitions": 320}  # enough for sessions to be looked back on
    run = run_of(tmp_path / "run", small, SCRIPTED, **sizes)
    grid = grid_of(tmp_path / "grid", small, SCRIPTED, quick=True, methods=RUN_ROWS, **sizes)
    run_jobs(run.jobs(), 1, QUIET)
    run_jobs(grid.jobs(), 1, QUIET)
    found, again = run.results(), grid.results()
    assert set(found) == set(again) == set(RUN_ROWS)
    for name in RUN_ROWS:
        assert len(found[name]) == len(again[name]) == 1
        for first, second in zip(found[name], again[name], strict=True):
            same(first, second)
    assert any("users like" in prompt for prompt in scripted)  # reflections were drawn from
    returns = {name: found[name][0].arrays["return"].tolist() for name in RUN_ROWS}
    assert len({str(values) for values in returns.values()}) == len(RUN_ROWS)  # rows are no copies of each other

    # In one folder the second command computes nothing again.
    before = {p: p.read_bytes() for p in (tmp_path / "run" / "results").iterdir()}
    asked = len(scripted)
    for what in ("train", "pretrained_agent", "sessions_of", "control"):
        monkeypatch.setattr(f"rapport.experiments.lerl.learners.{what}", lambda *_, **__: pytest.fail("done again"))
    monkeypatch.setattr("rapport.experiments.lerl.protocol.play", lambda *_, **__: pytest.fail("played again"))
    second = grid_of(tmp_path / "run", small, SCRIPTED, quick=True, methods=RUN_ROWS, **sizes)
    assert run_rows(second.jobs()) == len(RUN_ROWS)
    assert {p: p.read_bytes() for p in (tmp_path / "run" / "results").iterdir()} == before
    assert len(scripted) == asked
    for name in RUN_ROWS:
        for first, other in zip(found[name], second.results()[name], strict=True):
            same(first, other)
