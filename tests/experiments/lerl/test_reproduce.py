"""A reproduction: its grid goes on where it was, its answers follow from its results, its pages hide nothing."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from rapport.experiments.cli import main
from rapport.experiments.commands import reproduce as reproduce_commands
from rapport.experiments.jobs.local import run_jobs
from rapport.experiments.lerl import findings as answers
from rapport.experiments.lerl.cells import Cell, kept_sessions
from rapport.experiments.lerl.config import PlannerChoice, Setup
from rapport.experiments.lerl.grid import Grid, World
from rapport.experiments.lerl.grid_jobs import grid_jobs
from rapport.experiments.lerl.paper import PAPER
from rapport.experiments.lerl.report import write_document
from rapport.experiments.lerl.rows import FAMILIES, METHODS, NO_RL
from rapport.experiments.lerl.search import SPACES, Search
from rapport.experiments.lerl.sensitivity import STUDIES, found, variations
from rapport.experiments.results.store import MethodResult

ROWS = (
    "lerl",
    "rotation",
    "random-plan",
    "mask",
    "mask-no-rl",
    "ppo",
    "ucb-items",
    "mmr",
    "no-rl",
    "popularity",
    "random",
)


@pytest.fixture
def grid(twin_setup, small, tmp_path):
    worlds = (
        World("kuairand", "People", twin_setup, ROWS, main=True),
        World(
            "satiation",
            "People who tire",
            Setup("twin", quit_rule="satiation", environment="satiation"),
            ("mask", "oracle"),
        ),
    )
    return Grid(worlds, PlannerChoice(period=5), 2, 160, 12, str(tmp_path), base=small)


def result(method: str, seed: int, r_cum: float, spread: float = 0.1) -> MethodResult:
    rng = np.random.default_rng(seed)
    return MethodResult(
        method, METHODS[method].label, seed, np.full(200, 20), r_cum + spread * rng.normal(size=200), np.arange(200)
    )


def results(**r_cum: float) -> dict[str, list[MethodResult]]:
    return {m.replace("_", "-"): [result(m.replace("_", "-"), s, v) for s in range(5)] for m, v in r_cum.items()}


def test_every_row_can_be_trained_tuned_and_placed():
    for name, row in METHODS.items():
        assert row.family in FAMILIES
        assert row.trained_as is None or row.trained_as == NO_RL or row.trained_as in METHODS
        if row.baseline is not None and row.family != "log" and "greedy" not in name:
            assert (row.tuned_as or name) in SPACES
    assert set(SPACES) <= set(METHODS)
    assert {m for rows in PAPER.values() for m in rows} <= set(METHODS)
    assert {m for study in STUDIES.values() for m in study.methods} <= set(METHODS)


@pytest.mark.slow
def test_a_grid_is_made_once_and_ends_in_its_pages(grid, capsys, monkeypatch):
    console = Console(file=io.StringIO(), width=200)
    jobs = grid_jobs(grid, [grid.worlds[0]])
    run_jobs(jobs, 1, console)
    world = grid.worlds[0]
    for method in ROWS:
        for seed in range(2):
            done = grid.store(world, method).load(method, seed)
            assert done is not None and done.label == METHODS[method].label
            assert set(done.variety) == {"coverage", "intra", "between"} and done.sessions == 12
            learns = METHODS[method].trained_as is None and METHODS[method].family in ("plan", "learned", "bandit")
            assert (done.train_transitions >= 160) == learns
            assert bool(done.curve) == (learns and METHODS[method].baseline is None)  # too few for a point there
    budgets = [found(Cell(grid, world, "ppo", 0), "budget", b) for b in STUDIES["budget"].values]
    assert [r is not None and r.lengths.max() <= b for r, b in zip(budgets, (10, 20, 40), strict=True)] == [True] * 3
    assert {s.method for s in kept_sessions(grid, world)} == {"lerl", "rotation", "ppo", "popularity"}

    def never(*_: object) -> None:
        raise AssertionError("a cell that was done is done again")

    monkeypatch.setattr("rapport.experiments.lerl.cells.play_planned", never)
    monkeypatch.setattr("rapport.experiments.lerl.cells.play_direct", never)
    monkeypatch.setattr("rapport.experiments.lerl.sensitivity.play_planned", never)
    run_jobs(grid_jobs(grid, [world]), 1, console)

    markdown, page = write_document(grid, {"KuaiRec": "there is none here"}, console)
    text, html = markdown.read_text("utf-8"), page.read_text("utf-8")
    assert text.splitlines()[0].removeprefix("# ") == answers.headline(
        {m: [r for r in grid.results(world) if r.method == m] for m in ROWS}
    )
    for row in ("LERL", "mask alone, no RL", "UCB over items", "oracle, greedy and never bored"):
        assert row in text and row in html
    assert "| TD3 | not quoted | not run |" in text and "there is none here" in text
    assert text.count("not run") > 10
    for part, with_it, without in answers.LADDER:
        assert part in text, (with_it, without)


@pytest.mark.slow
def test_another_setting_or_more_transitions_are_run_again(grid):
    world = grid.worlds[0]
    run_jobs(
        grid_jobs(dataclasses.replace(grid, worlds=(dataclasses.replace(world, methods=("mmr",)),), seeds=1)),
        1,
        Console(file=io.StringIO()),
    )
    assert grid.store(world, "mmr").load("mmr", 0) is not None
    tuned = dataclasses.replace(grid, tuned={"mmr": {"past": 0.0}})
    assert tuned.store(world, "mmr").load("mmr", 0) is None
    assert dataclasses.replace(grid, transitions=320).store(world, "mmr").load("mmr", 0) is None
    assert dataclasses.replace(grid, folder=grid.folder, seeds=9).store(world, "mmr").load("mmr", 0) is not None


def test_language_model_studies_need_one(grid):
    cell = Cell(grid, grid.worlds[0], "lerl", 0)
    assert {v.study for v in variations(cell)} == {"budget"}
    planner = PlannerChoice("llm", llm="embedded")
    with_model = Cell(dataclasses.replace(grid, planner=planner), grid.worlds[0], "lerl", 0)
    assert {v.study for v in variations(with_model)} == set(STUDIES)


def test_each_row_has_its_planner(grid):
    planner = PlannerChoice("llm", llm="embedded", period=20)
    grid = dataclasses.replace(grid, planner=planner)
    world = grid.worlds[0]
    lerl = grid.choice(world, "lerl", 3)
    assert lerl.name == "llm" and lerl.rests and lerl.pool is not None and lerl.pool.endswith("lerl-seed3.sqlite")
    assert grid.choice(world, "no-reflection", 3).pool is None
    published = grid.choice(world, "lerl-published", 3)
    assert (published.name, published.period, published.rests) == ("llm", 1, False) and published.pool != lerl.pool
    assert grid.choice(world, "billp", 3).pool != lerl.pool
    mask, rotation, ppo = (grid.choice(world, m, 0) for m in ("mask", "rotation", "ppo"))
    assert (mask.name, mask.rests, rotation.name, rotation.rests, ppo.name, ppo.rests) == (
        "none",
        True,
        "rotation",
        False,
        "none",
        False,
    )


# --- answers ----------------------------------------------------------------------------------------------------------


def test_a_control_that_wins_is_the_headline():
    assert answers.headline(results(lerl=14.0, mask=13.0, mmr=14.5)).startswith(
        "A control beats LERL: greedy, re-ranked by MMR, by +0.50"
    )
    assert answers.headline(results(lerl=14.0, mask=14.2, mask_click=15.0, mmr=14.5)) == (
        "A control beats LERL: mask alone: what was just shown rests, by +0.20 [+0.20, +0.20] in R_cum; most of all "
        "mask alone, click model learned online, by +1.00 [+1.00, +1.00]."
    )
    assert answers.headline(results(lerl=14.0, mask=13.0, rotation=14.0)).startswith(
        "A control does as well as LERL: rotation planner cannot be told apart"
    )
    assert answers.headline(results(lerl=14.0, mask=13.0, rotation=12.0)).startswith(
        "LERL beats every control; the nearest is mask alone: what was just shown rests, 1.00"
    )
    assert answers.headline(results(ppo=3.0)) == "LERL was not run."


def test_the_ladders_parts_add_up():
    found_ = results(ppo=9.0, mask=13.0, heuristic=14.0, no_reflection=14.5, lerl=14.4, rotation=12.0)
    ladder = answers.parts(found_, answers.LADDER)
    assert [round(part.added.point, 2) for part in ladder if part.added] == [4.0, 1.0, 0.5, -0.1]
    assert sum(part.share for part in ladder if part.share) == pytest.approx(1.0)
    beside = {part.what: part for part in answers.parts(found_, answers.BESIDE)}
    assert beside["merely rotating categories"].share == pytest.approx(3.0 / 5.4)
    assert beside["what LERL has beyond random plans"].added is None
    assert "gives 56% of LERL's gain" in answers.rotation_line(found_)
    line = answers.ladder_line(found_)
    assert (
        "the mask (what was just shown rests) +4.00 (74%), the hierarchy" in line and "reflections -0.10 (-2%)" in line
    )
    worse = answers.ladder_line(results(ppo=9.0, mask=9.5, heuristic=9.0, no_reflection=8.5, lerl=8.5))
    assert "the mask (what was just shown rests) +0.50, the hierarchy" in worse and "%" not in worse


def test_aims_say_what_is_reached():
    lines = answers.aims(results(lerl=12.0, ppo=10.0, a2c=7.0, popularity=8.0, look_ahead=12.5))
    assert "reached; LERL is +20.0% above PPO (12.00 against 10.00)" in lines[0]
    assert "reached; LERL has 96.0% of 12.50" in lines[1]
    assert "not reached; below are A2C" in lines[2]
    lines = answers.aims(results(lerl=12.0, masked_ppo=11.5, ppo=10.0))
    assert "not reached; LERL is +4.3% above masked PPO" in lines[0]
    assert "above PPO, the best of those that may show the last category again (10.00), LERL is +20.0%." in lines[0]
    lines = answers.aims(results(lerl=12.0, masked_ppo=11.5, look_ahead=13.0))
    assert "(12.00 against 11.50), a look-ahead that reads the simulator +13.0%." in lines[0]
    lines = answers.aims(results(lerl=11.0, ppo=10.0, mask_click=11.8, mask=10.5, look_ahead=12.0))
    assert "10.00), without a language model mask alone, click model learned online +18.0%" in lines[0]
    assert lines[1].endswith("; without a language model mask alone, click model learned online has 98.3%.")
    lines = answers.aims(results(lerl=11.0, ppo=10.0, popularity=8.0, look_ahead=12.5))
    assert "not reached; LERL is +10.0%" in lines[0] and "not reached; LERL has 88.0%" in lines[1]
    assert "reached; all of them are" in lines[2]


# --- commands ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_run_is_refused_by_name(capsys, tmp_path):
    where = ["--data", "twin", "--out", str(tmp_path)]
    assert main(["reproduce", "lerl", *where, "--methods", "lerl", "magic"]) == 2
    assert "--methods magic: unknown" in capsys.readouterr().err
    assert main(["reproduce", "lerl", *where, "--seeds", "0"]) == 2
    assert "--seeds 0: it must be at least 1" in capsys.readouterr().err
    assert main(["reproduce", "search", *where, "--methods", "popularity"]) == 2
    assert "popularity: it has no settings to search" in capsys.readouterr().err


@pytest.mark.slow
def test_a_quick_reproduction_of_some_rows(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("RAPPORT_DATA_DIR", str(tmp_path / "none"))
    size = ["--seeds", "1", "--transitions", "64", "--sessions", "20", "--workers", "1"]
    command = ["reproduce", "lerl", "--quick", "--data", "twin", "--llm", "none", "--out", str(tmp_path / "run"), *size]
    assert main([*command, "--methods", "lerl", "mask-no-rl", "popularity"]) == 0
    out = capsys.readouterr().out
    assert "mask alone, no RL" in out and "Done in" in out
    text = (tmp_path / "run" / "report.md").read_text("utf-8")
    assert "heuristic (no LLM given)" in text and "KuaiRec is not in the data directory" in text


@pytest.mark.slow
def test_a_search_goes_on_and_keeps_defaults_that_are_best(capsys, tmp_path, twin_setup):
    command = [
        "reproduce",
        "search",
        "--data",
        "twin",
        "--out",
        str(tmp_path),
        "--transitions",
        "128",
        "--workers",
        "1",
    ]
    command += ["--sessions", "20", "--methods", "mmr", "ucb-items"]
    assert main([*command, "--trials", "2", "--write", str(tmp_path / "tuned.json")]) == 0
    written = json.loads((tmp_path / "tuned.json").read_text("utf-8"))
    assert written["trials"] == 2 and set(written["R_cum"]) == {"mmr", "ucb-items"}
    for method, values in written["R_cum"].items():
        assert values["value"] >= values["defaults"]
        assert (method in written["settings"]) == (values["value"] > values["defaults"])
    again = ["--trials", "2", "--write", str(tmp_path / "tuned.json")]
    assert main([*command[:-2], "mmr", *again]) == 0  # what is not searched again stays
    assert json.loads((tmp_path / "tuned.json").read_text("utf-8")) == written
    assert main([*command, "--trials", "3", *again[2:]]) == 2
    assert "its search had trials 2, this one 3" in capsys.readouterr().err
    for text in ("no JSON", '{"settings": {}}', "[]"):
        (tmp_path / "other.json").write_text(text, "utf-8")
        assert main([*command, "--trials", "2", "--write", str(tmp_path / "other.json")]) == 2
        assert "other.json: it is there and no search's file" in capsys.readouterr().err
        assert (tmp_path / "other.json").read_text("utf-8") == text
    search = Search(twin_setup, 2, 128, 20, str(tmp_path))
    before = {method: search.result(method) for method in ("mmr", "ucb-items")}
    assert main([*command, "--trials", "2"]) == 0
    assert {method: search.result(method) for method in ("mmr", "ucb-items")} == before


def test_a_world_has_the_papers_rows_where_the_paper_ran():
    whole, quick = reproduce_commands.ReproduceLerl(), reproduce_commands.ReproduceLerl(quick=True)
    some = quick._methods("kuairand")
    published = "lerl-published"
    assert whole._methods("kuairand") == tuple(name for name in METHODS if name != published)
    assert whole._methods("satiation") == quick._methods("kuairec") == some
    assert set(whole._methods("kuairand-official")) == {*some, *PAPER["kuairand"], published}
    assert set(whole._methods("kuairec")) == {*some, *PAPER["kuairec"], published}


def test_worlds_are_the_environments_they_name():
    official = reproduce_commands.setup_of("kuairand-official", "twin", None)
    assert official.profile == "official" and official.environment == "kuairand"
    assert reproduce_commands.setup_of("satiation", "twin", None).quit_rule == "satiation"
    assert reproduce_commands.setup_of("kuairec", "twin", None).data == "kuairec"


@pytest.mark.slow
@pytest.mark.parametrize(
    "setup",
    [
        Setup("synthetic", environment="kuairec"),
        Setup("twin", quit_rule="satiation", environment="satiation", slate_size=1),
    ],
    ids=["kuairec", "single items"],
)
def test_rows_of_every_kind_play_in_every_world(setup, small, tmp_path):
    rows = (
        "mask",
        "ppo",
        "ppo-pl",
        "td3",
        "masked-ppo",
        "hac",
        "thompson",
        "mask-click",
        "ucb-categories",
        "mmr",
        "dpp",
        "popularity",
    )
    world = World("world", "A world", setup, (*rows, "oracle", "look-ahead"))
    grid = Grid((world,), PlannerChoice(period=5), 1, 64, 8, str(tmp_path), base=small)
    run_jobs(grid_jobs(grid), 1, Console(file=io.StringIO()))
    assert [r.method for r in grid.results(world)] == list(world.methods)
    served = {r.method: r.r_sin for r in grid.results(world)}
    assert max(served["oracle"], served["look-ahead"]) == max(served.values())
