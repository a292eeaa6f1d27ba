"""``rapport lm``: from lessons to a file that llama.cpp runs, its card, and a planner that learns; each goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gguf")
pytest.importorskip("sentencepiece")
pytest.importorskip("llama_cpp")

from rapport.agents.lerl import PPOConfig
from rapport.agents.llm import Sampling, open_llm
from rapport.agents.lm.gguf import read_gguf
from rapport.agents.lm.sft import Teacher, Teaching
from rapport.agents.planning.build import category_click_rates
from rapport.agents.planning.controls import NoPlanner
from rapport.agents.planning.llm_planner import LLMPlanner
from rapport.agents.planning.lm import examples as lessons
from rapport.agents.planning.lm import simulated_examples as lived
from rapport.agents.planning.lm.policy_gradient import Improving
from rapport.agents.planning.planner import session_views
from rapport.experiments.commands import lm as lm_commands
from rapport.experiments.commands.lm import LmCard, LmImprove, LmTrain
from rapport.experiments.lerl.config import Setup
from rapport.experiments.lerl.training import Training
from rapport.experiments.planner_lm import build as lm_school
from rapport.experiments.planner_lm import card as lm_card
from rapport.experiments.planner_lm import improve as lm_improving
from rapport.experiments.planner_lm.build import School, Shape
from rapport.experiments.planner_lm.card import CardStudy, services
from rapport.experiments.planner_lm.improve import ImprovingStudy
from rapport.experiments.results.store import ResultStore

TINY = Shape(vocabulary=620, d_model=32, n_layers=2, n_heads=1, d_ff=64)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, small: PPOConfig) -> None:
    """Everything in sizes of seconds."""
    monkeypatch.setattr(lessons, "SPELLING", 2)
    monkeypatch.setattr(lived, "CANDIDATES", 2)
    monkeypatch.setattr(lived, "HORIZON", 2)
    monkeypatch.setattr(lm_school, "Training", partial(Training, low_level=small))
    monkeypatch.setattr(lm_improving, "Training", partial(Training, low_level=small))
    monkeypatch.setattr(lm_commands, "School", partial(School, batch=12, shape=TINY))
    monkeypatch.setattr(lm_commands, "CardStudy", partial(CardStudy, low_level=small))


@pytest.fixture
def trained(quick: None, twin_setup: Setup, tmp_path: Path) -> Path:
    """A model that has hardly been taught."""
    school = School(twin_setup, tmp_path / "lm", 1, 12, shape=TINY, teaching=Teaching(steps=4, warm_up=1))
    return school.graduate(lambda what, share: None)


def test_training_ends_in_a_file_that_plans(trained: Path, twin_setup: Setup) -> None:
    llm = open_llm(trained, sampling=Sampling(0.0))
    data, env = twin_setup.session_data(), twin_setup.sessions(5, "held_out")
    observations, info = env.reset(seed=0)
    planner = LLMPlanner(
        llm, data.catalog.category_names, category_click_rates(data), NoPlanner(data.catalog.category_sizes)
    )
    plans = planner.plan(session_views(observations, info["user"], data, 6))
    assert (plans.sum(axis=1) >= 2).all()
    assert llm.meter.failures == 0
    assert trained.stat().st_size < 8e6


def test_training_goes_on_where_it_was_and_ends_the_same(
    quick: None, twin_setup: Setup, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    monkeypatch.setattr(lm_school, "_KEEP_EVERY", 2)
    other = School(twin_setup, tmp_path / "other", 1, 12, shape=TINY, teaching=Teaching(steps=4, warm_up=1))

    def stop(what: str, share: float) -> None:
        if what.startswith("teaching") and share > 0.7:
            raise Stop

    with pytest.raises(Stop):
        other.graduate(stop)
    monkeypatch.setattr(lm_school, "LivedLessons", lambda *_: pytest.fail("lived again"))
    steps: list[int] = []
    teach = Teacher.teach

    def watched(self: Teacher, report: Callable[[int, float], None]) -> None:
        steps.append(self.step)
        teach(self, report)

    monkeypatch.setattr(Teacher, "teach", watched)
    again = other.graduate(lambda what, share: None)
    assert steps == [2]
    for one, two in zip(read_gguf(trained)[0].parameters(), read_gguf(again)[0].parameters(), strict=True):
        np.testing.assert_array_equal(one.detach().numpy(), two.detach().numpy())


def test_the_train_command_says_what_it_wrote(quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert LmTrain(out=tmp_path, data="twin", steps=3, rounds=1).run() == 0
    assert f"Wrote {tmp_path / 'planner.gguf'}" in capsys.readouterr().out.replace("\n", "")
    with pytest.raises(ValueError, match="--steps 0: it must be at least 1"):
        LmTrain(out=tmp_path, data="twin", steps=0).run()


def test_the_card_has_every_planner_at_every_service(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm_card, "_kuairec_stand_in", lambda: Setup("twin").session_data())
    monkeypatch.setattr(lm_commands, "heeded", partial(lm_card.heeded, n_services=3, people=2))
    how: dict[str, Any] = {"llm": trained, "data": "twin", "seeds": 2, "sessions": 8, "workers": 1}
    assert LmCard(out=tmp_path / "card", **how).run() == 0
    printed = capsys.readouterr().out
    assert printed.count("lasting preference") == 3 and "invented names" in printed
    card = (tmp_path / "card" / "card.md").read_text("utf-8")
    assert (
        "with three reflections" in card
        and card.count("| reference |") == 3
        and "without a grammar, answers that are plans: twin 0.0%" in card
    )
    monkeypatch.setattr(lm_card, "play", lambda *_: pytest.fail("played again"))
    assert LmCard(out=tmp_path / "card", **how).run() == 0


def test_renaming_changes_names_and_nothing_else(twin_setup: Setup) -> None:
    taught, renamed, kuairec = services(twin_setup)
    assert not set(taught.names()) & set(renamed.names())
    assert len(taught.names()) == len(set(renamed.names()))
    assert renamed.setup is taught.setup
    assert kuairec.setup.session_data().name != twin_setup.session_data().name


def test_learning_is_measured_and_goes_on_seed_by_seed(
    trained: Path,
    twin_setup: Setup,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lm_commands, "Improving", partial(Improving, users=4, plans=2, horizon=2))
    how: dict[str, Any] = {"llm": trained, "data": "twin", "seeds": 2, "rounds": 2, "every": 1, "sessions": 6}
    out = tmp_path / "improve"
    assert LmImprove(**how, out=out, workers=1).run() == 0
    printed = capsys.readouterr().out
    assert "reference" in printed and "held-out users" in printed
    assert (out / "improved-seed1.gguf").exists() and "<html" in (out / "report.html").read_text("utf-8")
    results = ResultStore(out / "results", None).load_all()
    assert {(r.method, r.seed) for r in results} == {(f"rounds-000{n}", s) for n in range(3) for s in range(2)}
    (out / "results" / "rounds-0002-seed1.json").unlink()
    ran: list[int] = []
    learn = lm_improving.ImproveSeed.__call__

    def watched(self: lm_improving.ImproveSeed, progress: Any) -> None:
        ran.append(self.seed)
        learn(self, progress)

    monkeypatch.setattr(lm_improving.ImproveSeed, "__call__", watched)
    assert LmImprove(**how, out=out, workers=1).run() == 0
    assert ran == [1]


def test_points_begin_at_the_frozen_planner_and_end_at_the_last_round(twin_setup: Setup) -> None:
    study = ImprovingStudy(twin_setup, "m.gguf", 1, 1, 10, "x", Improving(rounds=25))
    assert study.points() == [0, 10, 20, 25]
    assert replace(study, settings=Improving(rounds=20)).points() == [0, 10, 20]
