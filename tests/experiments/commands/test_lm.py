"""``rapport lm``: training to a file that llama.cpp runs, the card, and fine-tuning; each resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
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
from rapport.agents.lm.sft import SFTConfig, SFTTrainer
from rapport.agents.planning.build import TOP_K_PREFERENCE, category_click_rates
from rapport.agents.planning.controls import NoPlanner
from rapport.agents.planning.llm_planner import LLMPlanner
from rapport.agents.planning.lm import curriculum, simulated_examples
from rapport.agents.planning.lm.embedded import embedded_model
from rapport.agents.planning.lm.policy_gradient import PolicyGradientConfig
from rapport.agents.planning.planner import session_views
from rapport.experiments.commands import lm as lm_commands
from rapport.experiments.commands.lm import LmCard, LmImprove, LmTrain
from rapport.experiments.core import EnvConfig
from rapport.experiments.lerl.environments import data_of, sessions_of
from rapport.experiments.lerl.training import Training
from rapport.experiments.planner_lm import build
from rapport.experiments.planner_lm import card as planner_card
from rapport.experiments.planner_lm.build import ModelConfig, PlannerBuild
from rapport.experiments.planner_lm.card import card_experiment, services
from rapport.experiments.planner_lm.improve import FineTuned, fine_tuning
from rapport.experiments.results.store import ResultStore

TINY = ModelConfig(vocabulary=620, d_model=32, n_layers=2, n_heads=1, d_ff=64)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, small: PPOConfig) -> None:
    """Everything in sizes of seconds."""
    monkeypatch.setattr(curriculum, "COPYING_STEPS", 2)
    monkeypatch.setattr(simulated_examples, "CANDIDATES", 2)
    monkeypatch.setattr(simulated_examples, "HORIZON", 2)
    monkeypatch.setattr(build, "Training", partial(Training, low_level=small))
    monkeypatch.setattr(lm_commands, "PlannerBuild", partial(PlannerBuild, batch=12, model=TINY))
    monkeypatch.setattr(lm_commands, "card_experiment", partial(card_experiment, low_level=small))
    monkeypatch.setattr(lm_commands, "fine_tuning", partial(fine_tuning, low_level=small))


@pytest.fixture
def trained(quick: None, twin_env: EnvConfig, tmp_path: Path) -> Path:
    """A model that is hardly trained."""
    training = SFTConfig(steps=4, warm_up=1)
    return PlannerBuild(twin_env, tmp_path / "lm", 1, 12, model=TINY, training=training).run(lambda what, share: None)


def test_training_ends_in_a_file_that_plans(trained: Path, twin_env: EnvConfig) -> None:
    llm = open_llm(trained, sampling=Sampling(0.0))
    data, env = data_of(twin_env), sessions_of(twin_env, 5, "held_out")
    observations, info = env.reset(seed=0)
    planner = LLMPlanner(
        llm, data.catalog.category_names, category_click_rates(data), NoPlanner(data.catalog.category_sizes)
    )
    plans = planner.plan(session_views(observations, info["user"], data, 6))
    assert (plans.sum(axis=1) >= 2).all()
    assert llm.meter.failures == 0
    assert trained.stat().st_size < 8e6


def test_training_goes_on_where_it_was_and_ends_the_same(
    quick: None, twin_env: EnvConfig, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    monkeypatch.setattr(build, "_KEEP_EVERY", 2)
    other = PlannerBuild(twin_env, tmp_path / "other", 1, 12, model=TINY, training=SFTConfig(steps=4, warm_up=1))

    def stop(what: str, share: float) -> None:
        if what.startswith("training") and share > 0.7:
            raise Stop

    with pytest.raises(Stop):
        other.run(stop)
    monkeypatch.setattr(build, "SimulatedExamples", lambda *_: pytest.fail("simulated again"))
    steps: list[int] = []
    train = SFTTrainer.train

    def watched(self: SFTTrainer, report: Callable[[int, float], None]) -> None:
        steps.append(self.step)
        train(self, report)

    monkeypatch.setattr(SFTTrainer, "train", watched)
    again = other.run(lambda what, share: None)
    assert steps == [2]
    for one, two in zip(read_gguf(trained)[0].parameters(), read_gguf(again)[0].parameters(), strict=True):
        np.testing.assert_array_equal(one.detach().numpy(), two.detach().numpy())


def test_the_train_command_says_what_it_wrote(quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert LmTrain(out=tmp_path, data="twin", steps=3, rounds=1).run() == 0
    assert f"Wrote {tmp_path / 'planner.gguf'}" in capsys.readouterr().out.replace("\n", "")
    with pytest.raises(ValueError, match="--steps 0: it must be at least 1"):
        LmTrain(out=tmp_path, data="twin", steps=0).run()


def test_the_card_has_every_planner_at_every_service(
    trained: Path,
    twin_env: EnvConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planner_card, "_kuairec_stand_in", lambda: data_of(twin_env))
    monkeypatch.setattr(
        lm_commands, "reflection_effect", partial(planner_card.reflection_effect, n_services=3, n_users=2)
    )
    how: dict[str, Any] = {"llm": trained, "data": "twin", "seeds": 2, "sessions": 8, "workers": 1}
    assert LmCard(out=tmp_path / "card", **how).run() == 0
    printed = capsys.readouterr().out
    assert "synthetic names" in printed
    card = (tmp_path / "card" / "card.md").read_text("utf-8")
    assert (
        "with three reflections" in card
        and card.count("| reference |") == card.count(f"| {TOP_K_PREFERENCE} |") == 3
        and "Completions without a grammar that are plans: twin 0.0%" in card
    )
    monkeypatch.setattr(planner_card, "play", lambda *_: pytest.fail("played again"))
    assert LmCard(out=tmp_path / "card", **how).run() == 0


def test_renaming_changes_names_and_nothing_else(twin_env: EnvConfig) -> None:
    taught, renamed, kuairec = services(twin_env)
    assert not set(taught.names()) & set(renamed.names())
    assert len(taught.names()) == len(set(renamed.names()))
    assert renamed.env is taught.env
    assert data_of(kuairec.env).name != data_of(twin_env).name


def test_learning_is_measured_and_goes_on_seed_by_seed(
    trained: Path,
    twin_env: EnvConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lm_commands, "PolicyGradientConfig", partial(PolicyGradientConfig, users=4, plans=2, horizon=2))
    how: dict[str, Any] = {"llm": trained, "data": "twin", "seeds": 2, "rounds": 2, "every": 1, "sessions": 6}
    out = tmp_path / "improve"
    assert LmImprove(**how, out=out, workers=1).run() == 0
    printed = capsys.readouterr().out
    assert "reference" in printed and "held-out users" in printed
    assert (out / "improved-seed1.gguf").exists() and "<html" in (out / "report.html").read_text("utf-8")
    results = ResultStore(out / "results").load_all()
    assert {(r.row, r.seed) for r in results} == {(f"rounds-000{n}", s) for n in range(3) for s in range(2)}
    (last,) = (out / "results").glob("rounds-0002-seed1-*.json")
    kept = last.read_text()
    last.unlink()
    (out / "models" / "rounds-0002-seed1.json").unlink()  # as after a fine-tuning that was stopped
    ran: list[int] = []
    learn = FineTuned._train

    def watched(self: FineTuned, task: Any, *more: Any) -> None:
        ran.append(task.seed)
        learn(self, task, *more)

    monkeypatch.setattr(FineTuned, "_train", watched)
    assert LmImprove(**how, out=out, workers=1).run() == 0
    assert ran == [1]
    first, again = (json.loads(text)["result"]["arrays"] for text in (kept, last.read_text()))
    assert first == again


def test_points_begin_at_the_frozen_planner_and_end_at_the_last_round(twin_env: EnvConfig) -> None:
    def points(rounds: int) -> list[int]:
        config = PolicyGradientConfig(rounds=rounds)
        rows = fine_tuning(twin_env, embedded_model(), 1, 1, 10, Path("x"), config).rows
        assert [row.trained_as for row in rows] == [rows[-1].name] * (len(rows) - 1) + [None]
        return [row.learner.rounds for row in rows if isinstance(row.learner, FineTuned)]

    assert points(25) == [0, 10, 20, 25]
    assert points(20) == [0, 10, 20]
