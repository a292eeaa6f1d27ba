"""``rapport planner cost | reflections`` and ``rapport reflections show``: what is played, counted, kept and said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rapport.agents.checkpoint import CheckpointError
from rapport.agents.lerl import PPOConfig
from rapport.agents.llm import ScriptedLLM
from rapport.agents.llm.base.interface import LLM as LanguageModel
from rapport.agents.planning.reflection import Reflection, ReflectionPool
from rapport.experiments.cli import main, parse
from rapport.experiments.commands import planner as planner_commands
from rapport.experiments.commands.planner import PlannerCost, PlannerReflections
from rapport.experiments.core import EnvConfig, Task
from rapport.experiments.lerl import config, planner_study
from rapport.experiments.lerl.config import LLM, LLM_ONLY, SHUFFLED, WORST, PlannerConfig, planned
from rapport.experiments.lerl.environments import data_of, session_env, sessions_of
from rapport.experiments.lerl.metrics import METRICS, R_CUM
from rapport.experiments.lerl.planner_study import (
    StudyLearner,
    cost_finding,
    cost_rows,
    fill_pool,
    pool_of,
    reflection_rows,
    study_learner,
)
from rapport.experiments.lerl.training import Training, train
from rapport.experiments.results.store import Result
from rapport.experiments.results.summary import Found, Summary, summarise

pytest.importorskip("plotly")


class Script:
    """Opens scripted models and keeps them: plans of eight categories, reflections that are all different."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.opened, self.written = names, [], 0

    def __call__(self, source: str, **settings: Any) -> LanguageModel:
        self.opened.append(ScriptedLLM(self.answer, sampling=settings["sampling"], budget=settings["budget"]))
        return self.opened[-1]

    def answer(self, prompt: str) -> str:
        if '{"reflection"' in prompt:
            self.written += 1
            return json.dumps({"reflection": f"lesson number {self.written} of {'abc'[self.written % 3]}"})
        return json.dumps({"categories": list(self.names[:8])})


@pytest.fixture
def script(twin_env: EnvConfig, monkeypatch: pytest.MonkeyPatch) -> Script:
    made = Script(data_of(twin_env).catalog.category_names)
    monkeypatch.setattr(config, "open_llm", made)
    return made


@pytest.fixture
def quick(script: Script, small: PPOConfig, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A study of seconds; its simulator is fitted beforehand, on one thread."""
    sessions_of(session_env("kuairand", "twin"), 1, "train")
    monkeypatch.setattr(
        planner_commands, "study_learner", lambda *arguments: replace(study_learner(*arguments), low_level=small)
    )
    return {"llm": "script", "data": "twin", "seeds": 2, "sessions": 12, "pool_sessions": 3, "workers": 1}


# --- costs ------------------------------------------------------------------------------------------------------------


def test_cost_counts_every_plan_once_and_goes_on_where_it_was(
    quick: dict[str, Any], script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = PlannerCost(**quick, out=tmp_path)
    assert command.run() == 0
    printed = capsys.readouterr().out
    for note in ("low level: the pretrained policy of each seed, without RL", "reflections: per seed a pool filled"):
        assert note in printed
    store = list((tmp_path / "results").glob("*.json"))
    assert len(store) == 2 * (7 + len(planner_study.CONTROLS))
    for path in store:
        result = json.loads(path.read_text("utf-8"))["result"]
        meter, lengths = result["meter"], np.array(result["arrays"]["length"])
        held = re.fullmatch(r"(?:llm|top-k)-(\d+)", result["row"])
        if held:
            assert meter["plans"] == np.ceil(lengths / int(held[1])).sum()
            assert meter["replans_triggered"] == 0
        else:
            assert meter["plans"] == len(lengths) + meter["replans_triggered"]
        assert (meter["calls"] == 0) == (not result["row"].startswith("llm"))
    assert printed.count("LLM, every 20 slates") >= 2 and "calls" in printed
    assert re.search(r"A tenth of the calls (gives|does not)|No planner was asked as rarely", printed)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<script src" not in page and "R_cum [summed click rate]" in page
    assert "| LLM, every 10 slates |" in (tmp_path / "report.md").read_text("utf-8")

    (lost,) = (tmp_path / "results").glob("llm-5-seed1-*.json")
    lost.unlink()
    script.opened.clear()
    assert PlannerCost(**quick, out=tmp_path).run() == 0
    again = capsys.readouterr().out
    assert len([llm for llm in script.opened if llm.prompts]) == 1  # only what is missing; the pool is still there
    assert again[again.index("planner") :].split("waited")[0] == printed[printed.index("planner") :].split("waited")[0]


def test_trained_agents_can_play(
    quick: dict[str, Any], small: PPOConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a run leaves them: one checkpoint per seed."""
    run = tmp_path / "run"
    env = session_env("kuairand", "twin", quit_rule="set_overlap")
    train(Training(env, "lerl", 0, 40, run, PlannerConfig(), small))
    command = PlannerCost(**{**quick, "seeds": 1, "sessions": 4}, checkpoint=run, out=tmp_path / "study")
    assert command.run() == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"LERL as trained in {run}" in printed and "quit rule set_overlap" in printed
    assert not (tmp_path / "study" / "checkpoints").exists()


def study_of(**rows: tuple[int, float, float]) -> tuple[Summary, Found]:
    """Rows called LLM with so many calls on 1,000 slates, and a return so far above the first one's, give or take."""
    spread = np.tile([1.0, -1.0], 50)
    base = np.random.default_rng(0).normal(10.0, 1.0, 100)
    found = {
        f"llm-{name}": [
            Result(
                f"llm-{name}",
                f"LLM, {name}",
                seed,
                {"length": np.full(100, 10), "return": base + above + give_or_take * spread},
                ids=np.arange(100),
                meter={"calls": calls, "plans": calls},
            )
            for seed in range(5)
        ]
        for name, (calls, above, give_or_take) in rows.items()
    }
    labels = {name: group[0].label for name, group in found.items()}
    return summarise(found, labels, METRICS, next(iter(found)), main=R_CUM), found


@pytest.mark.parametrize(
    ("above", "give_or_take", "words"),
    [
        (0.0, 0.5, "A tenth of the calls gives the same return within the interval: LLM, b, makes 10 % of"),
        (-0.3, 0.0, r"does not give the same return: LLM, b, makes 10 % .* loses -0.30 \[-0.30, -0.30\]"),
        (0.3, 0.0, r"A tenth of the calls gives more: LLM, b, makes 10 % of LERL's calls and gains \+0.30"),
    ],
)
def test_the_finding_is_about_the_planner_that_is_asked_a_tenth_as_often(
    above: float, give_or_take: float, words: str
) -> None:
    rows = {"one": (1_000, 0.0, 0.0), "a": (400, -9.0, 0.0), "b": (100, above, give_or_take), "c": (50, -9.0, 0.0)}
    assert re.search(words, cost_finding(*study_of(**rows)))
    del rows["b"], rows["c"]
    assert cost_finding(*study_of(**rows)) == "No planner was asked as rarely as once in ten slates."


# --- reflections ------------------------------------------------------------------------------------------------------


def test_reflections_are_compared_with_none(
    quick: dict[str, Any], script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert PlannerReflections(**{**quick, "seeds": 1}, out=tmp_path).run() == 0
    printed = capsys.readouterr().out
    assert "LLM, shuffled reflections" in printed and "in R_cum" in printed
    env = session_env("kuairand", "twin")
    rows = [row.name for row in reflection_rows(env, PlannerConfig(LLM), StudyLearner(PlannerConfig(LLM), 3))]
    assert rows[4:] == list(planner_study.CONTROLS) and "for everybody, every 5 slates" in printed
    rows = rows[:4]
    asked = ([p for p in llm.prompts if '{"categories"' in p] for llm in script.opened[-4:])
    taught = {name: "lesson number" in "".join(prompts) for name, prompts in zip(rows, asked, strict=True)}
    assert taught == {
        "llm": True,
        "llm-without-reflection": False,
        "llm-shuffled-reflections": True,
        "llm-worst-reflections": True,
    }
    # They all teach the same, so the same categories are planned whatever is drawn.
    assert "+0.00 [+0.00, +0.00]" in printed


def drawn(planner: PlannerConfig, env: EnvConfig, pool: Path, script: Script, seed: int) -> list[str]:
    """Which of the pool's texts stand in a prompt."""
    llm, rng = planner.open(seed), np.random.default_rng(seed)
    planned(sessions_of(env, 1, "train"), data_of(env), planner, llm, rng, pool).reset(seed=seed)
    return re.findall(r"text number (\d+)", script.opened[-1].prompts[-1])


def test_variants_draw_by_outcome_against_it_and_regardless_of_it(
    twin_env: EnvConfig, script: Script, tmp_path: Path
) -> None:
    """Twenty texts with scores far apart: Eq. 4 takes the last ones, its mirror image the first, shuffled any."""
    path = tmp_path / "pool.sqlite"
    pool = ReflectionPool(path)
    for number in range(20):
        pool.add(f"text number {number}", 500.0 * number)
    planner = PlannerConfig(LLM, "script")
    assert drawn(planner, twin_env, path, script, 0) == ["19", "18", "17"]
    assert drawn(replace(planner, name=WORST), twin_env, path, script, 0) == ["0", "1", "2"]
    shuffled = [drawn(replace(planner, name=SHUFFLED), twin_env, path, script, seed) for seed in range(4)]
    assert len({number for three in shuffled for number in three}) > 6
    assert shuffled[0] == drawn(replace(planner, name=SHUFFLED), twin_env, path, script, 0)
    assert drawn(replace(planner, name=LLM_ONLY), twin_env, path, script, 0) == []
    assert len(ReflectionPool(path)) == 20


def test_shuffling_deals_the_scores_anew_and_keeps_the_texts() -> None:
    pool = ReflectionPool()
    for number in range(30):
        pool.add(f"text number {number}", number, user=number)
    copy = pool.shuffled(np.random.default_rng(0)).entries()
    assert [entry.text for entry in copy] == [entry.text for entry in pool.entries()]
    assert sorted(entry.score for entry in copy) == sorted(range(30)) != [entry.score for entry in copy]
    assert len(pool.entries()) == 30 and pool.entries()[7] == Reflection("text number 7", 7, 7)


# --- filling a pool ---------------------------------------------------------------------------------------------------


def test_a_pool_is_filled_by_training_users_and_filled_again_only_when_it_has_to_be(
    twin_env: EnvConfig, small: PPOConfig, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner_study, "WAVE", 2)
    learner = StudyLearner(PlannerConfig(LLM, "script", period=5), 5, small)
    row = cost_rows(twin_env, PlannerConfig(LLM, "script"), learner, 2.0)[0]
    task = Task(row, row, 0, tmp_path)
    agent, pool = learner.agent(task), pool_of(task)
    shares: list[float] = []
    fill_pool(task, learner, agent, shares.append)
    assert shares == [0.4, 0.8, 1.0]
    entries = ReflectionPool(pool).entries()
    held_out = data_of(twin_env).held_out
    assert len(entries) == 5 and not any(held_out[entry.user] for entry in entries)
    assert json.loads(pool.with_suffix(".json").read_text("utf-8"))["sessions"] == 5
    # Sessions after the first wave have something to draw from.
    assert any("lesson number" in prompt for prompt in script.opened[-1].prompts if '{"categories"' in prompt)

    opened = len(script.opened)
    fill_pool(task, learner, agent)
    fill_pool(task, replace(learner, agents=tmp_path), agent)  # a folder's name changes nothing
    assert len(script.opened) == opened
    pool.with_suffix(".json").unlink()  # as after a filling that was stopped
    fill_pool(task, learner, agent)
    assert len(script.opened) == opened + 1 and len(ReflectionPool(pool).entries()) == 5
    for other in (replace(learner, digests=("x",)), replace(learner, filler=replace(learner.filler, period=4))):
        fill_pool(task, other, agent)
    assert len(script.opened) == opened + 3 and len(ReflectionPool(pool).entries()) == 5


def test_agents_are_known_by_their_files_however_many_of_them_play(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    for seed in range(3):
        (folder / f"lerl-seed{seed}.safetensors").write_text(f"agent {seed}")
    llm = PlannerConfig(LLM, "script")
    one, three = (study_learner(llm, 3, tmp_path / "run", seeds).digests for seeds in (1, 3))
    assert one == three and len(set(one)) == 3
    (folder / "lerl-seed2.safetensors").write_text("another agent")
    assert study_learner(llm, 3, tmp_path / "run", 1).digests != one
    with pytest.raises(CheckpointError, match=r"lerl-seed3\.safetensors: .* train it with `rapport run`"):
        study_learner(llm, 3, tmp_path / "run", 4)
    assert study_learner(llm, 3, None, 4).digests == ()


# --- the list of reflections ------------------------------------------------------------------------------------------


@pytest.fixture
def pool_file(tmp_path: Path) -> Path:
    pool = ReflectionPool(tmp_path / "pool.sqlite")
    for user, (score, text) in enumerate(
        [(40, "rest [Comedy]"), (7, "avoid " + "very " * 30 + "long News"), (61, "Sport")]
    ):
        pool.add(text, score, user)
    pool.close()
    return tmp_path / "pool.sqlite"


def show(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["reflections", "show", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_reflections_are_listed_within_80_columns(pool_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = pool_file.read_bytes()
    lines = show(capsys, str(pool_file))
    assert max(map(len, lines)) <= 80
    assert re.search(r"^ *40 +0 +rest \[Comedy\]", "\n".join(lines), re.MULTILINE)
    assert lines[-1] == "3 reflections on sessions of 3 users; scores 7 to 61, mean 36.0"
    assert pool_file.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "scores"),
    [
        (("--last", "2"), [7, 61]),
        (("--best", "2"), [61, 40]),
        (("--last", "2", "--best", "1"), [61]),
        (("--best", "9"), [61, 40, 7]),
    ],
)
def test_the_newest_and_the_best(
    pool_file: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], scores: list[int]
) -> None:
    lines = show(capsys, str(pool_file), *arguments)
    assert [int(found[1]) for line in lines if (found := re.match(r" *(\d+) +\d ", line))] == scores
    if len(scores) < 3:
        assert lines[-1].startswith(f"{len(scores)} of 3 reflections on sessions of {len(scores)} user")


def test_a_file_without_reflections_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ReflectionPool(tmp_path / "empty.sqlite").close()
    assert show(capsys, str(tmp_path / "empty.sqlite")) == ["No reflections: no session has been looked back on yet."]
    (tmp_path / "other.txt").write_text("no database" * 50)
    for name, message in (("none.sqlite", "there is no such file"), ("other.txt", "is no pool of reflections")):
        assert main(["reflections", "show", str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "other.txt").read_text() == "no database" * 50


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PlannerCost(llm="script", data="twin", sessions=0), "^--sessions 0: it must be at least 1$"),
        (lambda: PlannerCost(llm="script", data="twin", pool_sessions=0), "^--pool-sessions 0: it must be"),
        (lambda: PlannerReflections(llm="script", data="twin", period=0), "^--period 0: it must be at least 1$"),
    ],
)
def test_what_cannot_be_studied_is_refused(script: Script, make: Callable[[], PlannerCost], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().run()


def test_the_commands_are_on_the_command_line() -> None:
    cost = parse(["planner", "cost", "--llm", "x.gguf", "--quick"])
    assert isinstance(cost, PlannerCost) and cost.quick and cost.llm_seconds is None
    assert isinstance(parse(["planner", "reflections", "--llm", "x.gguf", "--period", "4"]), PlannerReflections)
