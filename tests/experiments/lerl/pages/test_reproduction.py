"""A reproduction: its grid is made once, its page hides nothing, and the command refuses what cannot be run."""

from __future__ import annotations

import io
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from rich.console import Console

from rapport.agents.planning.build import TOP_K_PREFERENCE
from rapport.experiments.cli import main
from rapport.experiments.commands import reproduce as command
from rapport.experiments.commands.reproduce import ReproduceLerl, Reproduction, env_of
from rapport.experiments.core import Experiment, jobs_of
from rapport.experiments.jobs.local import run_jobs
from rapport.experiments.lerl.config import PlannerConfig
from rapport.experiments.lerl.environments import session_env, trust
from rapport.experiments.lerl.pages import findings
from rapport.experiments.lerl.pages.paper import PAPER
from rapport.experiments.lerl.pages.reproduction import EnvironmentResults, reproduction_page
from rapport.experiments.lerl.protocol import HeldOutSessions, recorded_sessions
from rapport.experiments.lerl.rows import DEFINITIONS, NEED_A_MODEL, RECORDED, RowSettings, lerl_rows
from rapport.experiments.lerl.sensitivity import STUDIES, row_name, sensitivity_rows
from rapport.experiments.report.page import BEWARE, publish, to_html, to_markdown

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
QUIET = Console(file=io.StringIO())
MISSING = {"KuaiRec": "there is none here"}


@pytest.fixture
def settings(small, tmp_path):
    return RowSettings(PlannerConfig(period=5), 160, small, pretrained_folder=tmp_path)


@pytest.fixture
def experiments(twin_env, settings, tmp_path):
    rows = lerl_rows(ROWS, twin_env, settings)
    main = Experiment(
        rows + sensitivity_rows(rows, False), 2, HeldOutSessions(12, recorded=RECORDED), tmp_path, "kuairand"
    )
    tired = session_env("satiation", "twin")
    others = lerl_rows(("mask", "oracle"), tired, settings)
    return {
        "kuairand": main,
        "satiation": Experiment(others, 2, HeldOutSessions(12), tmp_path / "satiation", "satiation"),
    }


def page_of(experiments, settings, told=None):
    results = [EnvironmentResults(name, one, settings.planner) for name, one in experiments.items()]
    return reproduction_page(results, {"seeds": "2"} if told is None else told, MISSING)


@pytest.mark.slow
def test_a_grid_is_made_once_and_ends_in_its_page(experiments, settings, tmp_path, monkeypatch):
    grid = experiments["kuairand"]
    run_jobs(grid.jobs(), 1, QUIET)
    found = grid.results()
    assert set(found) == {row.name for row in grid.rows}
    for name in ROWS:
        definition = DEFINITIONS[name]
        assert len(found[name]) == 2
        for done in found[name]:
            assert done.label == grid.by_name[name].label
            assert set(done.arrays) == {"length", "return", "coverage", "intra", "between"} and done.episodes == 12
            learns = definition.trained_as is None and not definition.pretrained
            learns &= definition.family in ("plan", "learned", "bandit")
            assert (done.steps >= 160) == learns
            assert bool(done.curve) == (learns and definition.baseline is None)  # too few for a point there
    for budget in STUDIES["budget"].values:
        for row in ("lerl", "rotation", "mask", "ppo"):
            studied = found[row_name("budget", budget, row)]
            assert [r.arrays["length"].max() <= budget for r in studied] == [True, True]
            if budget == STUDIES["budget"].usual:  # nothing is changed, so neither is what is found
                for one, other in zip(studied, found[row], strict=True):
                    np.testing.assert_array_equal(one.arrays["return"], other.arrays["return"])
                    assert one.steps == 0 and one.train_seconds == 0
    assert {s.method for s in recorded_sessions(grid.folder, ROWS)} == {"lerl", "rotation", "ppo", "popularity"}

    before = {p: p.read_bytes() for p in (tmp_path / "results").iterdir()}

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a row that was done is done again")

    monkeypatch.setattr("rapport.experiments.lerl.protocol.play", never)
    monkeypatch.setattr("rapport.experiments.lerl.training.learn", never)
    run_jobs(grid.jobs(), 1, QUIET)
    assert {p: p.read_bytes() for p in (tmp_path / "results").iterdir()} == before

    pytest.importorskip("plotly")
    told = Reproduction(experiments, settings, MISSING)
    results = EnvironmentResults("kuairand", grid, settings.planner)
    page = page_of(experiments, settings, told.told(results))
    markdown, html_file = publish(page, tmp_path, QUIET, name="reproduction")
    text, html = markdown.read_text("utf-8"), html_file.read_text("utf-8")
    first, heading = [line for line in text.splitlines() if line][:2]
    assert first == f"> **{BEWARE}** {trust(grid.rows[0].env).banner()}" and "AUC is 0.759" in page.banner in unescape(
        html
    )  # the twin's simulator
    assert heading.removeprefix("# ") == findings.headline({name: found[name] for name in ROWS})
    for row in ("LERL (no LLM given)", "no-repeat mask, no RL", "UCB over items", "oracle, greedy"):
        assert row in text and row in html
    assert "| TD3 | not quoted | not run |" in text and "there is none here" in text
    assert text.count("not run") > 10
    for part, with_it, without in findings.LADDER:
        assert part in text, (with_it, without)
    assert "| LERL (no LLM given), 10 |" in text and "| LERL (no LLM given), 20 (as trained) |" in text
    for section in ("Whose gain is it?", "Ablations", "Sensitivity", "Who is served how well", "Case study", "Not run"):
        assert f"## {section}" in text and section in html
    assert "What the language model cost" not in text  # none was asked
    table = next(line for line in text.splitlines() if line.startswith("| UCB over items |"))
    value = results.summary.row("ucb-items").estimates["R_cum"]
    assert f"| {value.point:.2f} [{value.low:.2f}, {value.high:.2f}] |" in table and "| 160 |" in table


def test_a_page_of_nothing_says_what_was_not_run(experiments, settings):
    text = to_markdown(page_of(experiments, settings))
    assert "\n# LERL was not run.\n" in text
    for name in ROWS:
        row = experiments["kuairand"].by_name[name]
        label = f"**{row.label}**" if name == "lerl" else row.label
        assert f"| {label} |{' not run |' * 9}" in text
    for title in ("Number of categories", "Reflections sampled", "Plan period", "Quit budget"):
        assert title in text[text.index("## Sensitivity") :]
    assert "## Case study" not in text
    assert "| KuaiRec | not run | there is none here |" in text
    pytest.importorskip("plotly")
    assert "LERL was not run." in to_html(page_of(experiments, settings))


def test_what_the_paper_says_stands_beside_ours(experiments, settings):
    text = to_markdown(page_of(experiments, settings))
    paper = text[text.index("## The paper beside ours") :]
    for cells in (f"{value:.2f}" for value in PAPER["kuairand"]["lerl"][:2]):
        assert cells in paper
    assert "| LERL | 17.24 | not run | 12.28 | not run | 0.719 | not run |" in paper
    assert "| LERL | 16.40 | not run | 10.51 | not run | 0.637 | not run |" in paper
    assert "KuaiRec: there is none here." in paper


@pytest.mark.slow
def test_another_setting_or_more_transitions_are_run_again(twin_env, settings, tmp_path):
    def grid(seeds=1, **changes):
        rows = lerl_rows(["mmr"], twin_env, replace(settings, **changes))
        return Experiment(rows, seeds, HeldOutSessions(12), tmp_path)

    run_jobs(grid().jobs(), 1, QUIET)
    assert len(grid().results()["mmr"]) == 1
    assert grid(tuned={"mmr": {"past": 0.0}}).results() == {}
    assert grid(transitions=320).results() == {}
    assert len(grid(seeds=9).results()["mmr"]) == 1


# --- the command ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_run_is_refused_by_name(capsys, tmp_path):
    where = ["--data", "twin", "--out", str(tmp_path)]
    for argv, message in (
        (["lerl", *where, "--methods", "lerl", "magic"], "--methods magic: unknown"),
        (["lerl", *where, "--seeds", "0"], "--seeds 0: it must be at least 1"),
        (["lerl", *where, "--plan-period", "0"], "--plan-period 0: it must be at least 1"),
        (["search", *where, "--methods", "popularity"], "popularity: it has no settings to search"),
        (["lerl", *where, "--llm", "none", "--methods", "billp"], "--methods billp: a language model plans there"),
        (["lerl", *where, "--llm", "none", "--methods", "random-plan"], "trained_as='lerl' is no row here; add it"),
        (["lerl", *where, "--quick", "--worlds", "kuairand-official"], "none of them can be run here; not in a quick"),
    ):
        assert main(["reproduce", *argv]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_quick_reproduction_of_some_rows(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("RAPPORT_DATA_DIR", str(tmp_path / "none"))
    size = ["--seeds", "1", "--transitions", "64", "--sessions", "20", "--workers", "1"]
    argv = ["reproduce", "lerl", "--quick", "--data", "twin", "--llm", "none", "--out", str(tmp_path / "run"), *size]
    assert main([*argv, "--methods", "lerl", "mask-no-rl", "popularity"]) == 0
    out = capsys.readouterr().out
    assert "no-repeat mask, no RL" in out and "Done in" in out
    text = (tmp_path / "run" / "reproduction.md").read_text("utf-8")
    assert "top-k preference planner (no LLM given)" in text and "KuaiRec is not in the data directory" in text
    assert "not in a quick look: its simulator takes a quarter of an hour to fit" in text


def test_an_environment_has_the_papers_rows_where_the_paper_ran():
    whole, quick = ReproduceLerl(), ReproduceLerl(quick=True)
    some = quick._rows("kuairand")
    published = "lerl-published"
    assert whole._rows("kuairand") == tuple(name for name in DEFINITIONS if name != published)
    assert whole._rows("satiation") == quick._rows("kuairec") == some
    assert set(some) == {name for name, definition in DEFINITIONS.items() if definition.quick}
    assert set(whole._rows("kuairand-official")) == {*some, *PAPER["kuairand"], published}
    assert set(whole._rows("kuairec")) == {*some, *PAPER["kuairec"], published}


def test_names_are_of_the_environments_they_name():
    official = env_of("kuairand-official", "twin", None)
    assert official.kwargs["profile"] == "official" and official.id == "rapport/KuaiRand-v0"
    tired = env_of("satiation", "twin", None)
    assert tired.kwargs["quit_rule"] == "satiation" and tired.id == "rapport/KuaiRandSatiation-v0"
    plain = env_of("kuairand", "twin", None)
    assert (plain.kwargs["profile"], plain.kwargs["quit_rule"]) == ("corrected", "positional")
    assert len({one.title for one in (official, tired, plain)}) == 3


def test_kuairec_stands_on_its_own_data(monkeypatch):
    made = []
    monkeypatch.setattr(command, "session_env", lambda *arguments, **more: made.append((arguments, more)))
    env_of("kuairec", "twin", None)
    assert made == [(("kuairec", "kuairec", None), {})]


def test_only_the_main_environment_is_studied_and_recorded_and_all_share_their_pretrained_policies(tmp_path, small):
    size = {"data": "twin", "seeds": 1, "transitions": 64, "sessions": 8, "llm": "none"}
    made = ReproduceLerl(out=tmp_path, worlds=("satiation", "kuairand", "satiation"), **size).reproduction(QUIET, small)
    assert list(made.experiments) == ["satiation", "kuairand"]
    main_one, other = made.experiments["kuairand"], made.experiments["satiation"]
    assert (main_one.folder, other.folder) == (tmp_path, tmp_path / "satiation")
    assert {row.name.partition(".")[2].partition("-")[0] for row in main_one.rows} == {"", "budget"}
    assert not any("." in row.name for row in other.rows)
    assert (main_one.protocol.recorded, other.protocol.recorded) == (RECORDED, ())
    named = {row.name for row in main_one.rows if "." not in row.name}
    assert named == {name for name in DEFINITIONS if name not in ("lerl-published", *NEED_A_MODEL)}
    firsts = [job for job in jobs_of(made.experiments.values()) if job.dependents and job.name.startswith("pretrained")]
    assert [job.name for job in firsts] == ["pretrained policy, seed 0"]
    assert {follower.name.partition(":")[0] for follower in firsts[0].dependents} == {"kuairand", "satiation"}
    assert main_one.by_name["lerl"].planner == PlannerConfig(TOP_K_PREFERENCE, period=20)


@pytest.mark.slow
@pytest.mark.parametrize(
    "env",
    [("kuairec", "synthetic", {}), ("satiation", "twin", {"quit_rule": "satiation", "slate_size": 1})],
    ids=["kuairec", "single items"],
)
def test_rows_of_every_kind_play_in_every_environment(env, small, tmp_path):
    name, data, more = env
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
        "oracle",
        "look-ahead",
    )
    settings = RowSettings(PlannerConfig(period=5), 64, small)
    grid = Experiment(lerl_rows(rows, session_env(name, data, **more), settings), 1, HeldOutSessions(8), tmp_path)
    run_jobs(grid.jobs(), 1, QUIET)
    assert list(grid.results()) == list(rows)
    served = {n: r.arrays["return"].sum() / r.arrays["length"].sum() for n, (r,) in grid.results().items()}
    assert max(served["oracle"], served["look-ahead"]) == max(served.values())
