"""Every row of LERL's tables, defined once: who plans, how it learns, and with whose trained policy it is played."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from rapport.agents.baselines import bandits, linear_bandits, reinforcement, reranking
from rapport.agents.baselines.hac import hac
from rapport.agents.baselines.online_ctr import online_ctr_model
from rapport.agents.baselines.plackett_luce_ppo import plackett_luce_ppo
from rapport.agents.baselines.task import Baseline
from rapport.agents.lerl import PPOConfig
from rapport.agents.planning.build import CONSTANT, RANDOM_HELD, TOP_K_PREFERENCE
from rapport.experiments.core import EnvConfig, Learner, Row
from rapport.experiments.lerl.config import LLM, LLM_ONLY, SIMILAR, PlannerConfig, planner_by_name
from rapport.experiments.lerl.learners import BaselineLearner, Control, PPOLearner, PretrainedLearner

Family = Literal["control", "log", "bandit", "learned", "plan", "bound"]
FAMILIES: dict[Family, str] = {
    "plan": "Under a plan: a category mask above; below it PPO, where nothing else is said",
    "learned": "Without a planner: learned from sessions",
    "bandit": "Without a planner: bandits",
    "log": "Without a planner: learned from the log alone",
    "control": "Controls",
    "bound": "Bounds, which read the simulator",
}
FALLBACK = f"{TOP_K_PREFERENCE} planner"
"""Who plans where a language model gives no plan, and where none is given."""
NO_LLM = f"{FALLBACK} (no LLM given)"
"""How a planner without a language model is named wherever LERL's figures stand."""


@dataclass(frozen=True)
class Definition:
    """What a row is, whatever the environment and the sizes.

    Attributes:
        label: shown name.
        family: a key of :data:`FAMILIES`.
        planner: who is above: ``"llm"`` or another planner with a language model, or a control's name.
        cooldown: whether categories just shown are left out of the mask; None as the planner has it.
        period: slates that a language model's plan holds; None as the settings have it.
        baseline: how it learns, where it is not PPO with LERL's policy.
        pretrained: whether its policy is the pretrained one, without reinforcement learning.
        explores_as: whose PPO settings its policy has: ``"lerl"``, of planned agents, or ``"ppo"``.
        trained_as: the row whose trained policy it is played with, where it trains none of its own.
        tuned_as: the row whose settings were searched for it, where not for itself.
        best: whether the policy serves its best slate in place of a draw.
        quick: whether a quick look has it, and environments other than the main one.
    """

    label: str
    family: Family
    planner: str = "none"
    cooldown: bool | None = None
    period: int | None = None
    baseline: Baseline | None = None
    pretrained: bool = False
    explores_as: Literal["lerl", "ppo"] = "lerl"
    trained_as: str | None = None
    tuned_as: str | None = None
    best: bool = False
    quick: bool = False

    @property
    def has_model(self) -> bool:
        """Whether a language model plans, where one is given."""
        return self.planner.startswith(LLM)


DEFINITIONS: dict[str, Definition] = {
    "lerl": Definition("LERL", "plan", LLM, quick=True),
    "lerl-published": Definition(
        "LERL as published: a plan every slate, no cooldown", "plan", LLM, cooldown=False, period=1
    ),
    "lerl-pl": Definition("LERL, Plackett-Luce slates", "plan", LLM, baseline=plackett_luce_ppo, quick=True),
    "lerl-click": Definition("LERL, online CTR model", "plan", LLM, baseline=online_ctr_model, quick=True),
    "lerl-best": Definition("LERL, serving its best slates", "plan", LLM, trained_as="lerl", best=True, quick=True),
    "no-reflection": Definition("LERL, no reflection", "plan", LLM_ONLY, quick=True),
    "billp": Definition("LERL, BiLLP-style memory", "plan", SIMILAR),
    "top-k": Definition("top-k preference planner, PPO trained under it", "plan", TOP_K_PREFERENCE, quick=True),
    "rotation": Definition("rotation planner, PPO trained under it", "plan", "rotation", quick=True),
    "lerl-top-k": Definition(
        "top-k preference planner over LERL's policy", "plan", TOP_K_PREFERENCE, trained_as="lerl"
    ),
    "lerl-rotation": Definition("rotation planner over LERL's policy", "plan", "rotation", trained_as="lerl"),
    "random-plan": Definition("random planner over LERL's policy", "plan", "random", trained_as="lerl", quick=True),
    "greedy-plan": Definition("greedy planner over LERL's policy", "plan", "greedy preference", trained_as="lerl"),
    "random-held": Definition(
        "random plan of eight categories, held, over LERL's policy", "plan", RANDOM_HELD, trained_as="lerl", quick=True
    ),
    "constant": Definition(
        "the eight most-clicked categories for everybody, over LERL's policy",
        "plan",
        CONSTANT,
        trained_as="lerl",
        quick=True,
    ),
    "mask": Definition("no-repeat mask (no planner), PPO", "plan", cooldown=True, quick=True),
    "lerl-no-rl": Definition("LERL, no RL", "plan", LLM_ONLY, pretrained=True, quick=True),
    "top-k-greedy": Definition(
        "top-k preference planner, greedy, no RL", "plan", TOP_K_PREFERENCE, baseline=reranking.greedy, quick=True
    ),
    "mask-greedy": Definition(
        "no-repeat mask, greedy, no RL", "plan", cooldown=True, baseline=reranking.greedy, quick=True
    ),
    "mask-linucb": Definition(
        "no-repeat mask, LinUCB", "plan", cooldown=True, baseline=linear_bandits.lin_ucb, quick=True
    ),
    "top-k-click": Definition(
        "top-k preference planner, online CTR model",
        "plan",
        TOP_K_PREFERENCE,
        baseline=online_ctr_model,
        tuned_as="lerl-click",
        quick=True,
    ),
    "mask-click": Definition(
        "no-repeat mask, online CTR model",
        "plan",
        cooldown=True,
        baseline=online_ctr_model,
        tuned_as="lerl-click",
        quick=True,
    ),
    "mask-no-rl": Definition("no-repeat mask, no RL", "plan", cooldown=True, pretrained=True, quick=True),
    "ppo": Definition("PPO, no planner", "learned", explores_as="ppo", quick=True),
    "ppo-pl": Definition("PPO, Plackett-Luce slates", "learned", baseline=plackett_luce_ppo, explores_as="ppo"),
    "reinforce": Definition("PG (REINFORCE)", "learned", baseline=reinforcement.reinforce, explores_as="ppo"),
    "a2c": Definition("A2C", "learned", baseline=reinforcement.a2c, explores_as="ppo"),
    "ddpg": Definition("DDPG", "learned", baseline=reinforcement.ddpg, explores_as="ppo"),
    "td3": Definition("TD3", "learned", baseline=reinforcement.td3, explores_as="ppo"),
    "sac": Definition("SAC", "learned", baseline=reinforcement.sac, explores_as="ppo"),
    "dqn": Definition("DQN over categories", "learned", baseline=reinforcement.dqn, explores_as="ppo", quick=True),
    "masked-ppo": Definition(
        "masked PPO over categories", "learned", baseline=reinforcement.masked_ppo, explores_as="ppo", quick=True
    ),
    "hac": Definition("HAC", "learned", baseline=hac, explores_as="ppo"),
    "sac4ir": Definition("SAC4IR", "learned", baseline=reinforcement.sac4ir, explores_as="ppo"),
    "dnair": Definition("DNaIR", "learned", baseline=reinforcement.dnair, explores_as="ppo"),
    "click": Definition("online CTR model", "bandit", baseline=online_ctr_model, quick=True),
    "linucb": Definition("LinUCB", "bandit", baseline=linear_bandits.lin_ucb),
    "thompson": Definition("Thompson sampling", "bandit", baseline=linear_bandits.thompson),
    "ucb-items": Definition("UCB over items", "bandit", baseline=bandits.ucb_items, quick=True),
    "ucb-categories": Definition("UCB over categories", "bandit", baseline=bandits.ucb_categories),
    "epsilon-greedy-items": Definition("epsilon-greedy over items", "bandit", baseline=bandits.epsilon_greedy_items),
    "epsilon-greedy-categories": Definition(
        "epsilon-greedy over categories", "bandit", baseline=bandits.epsilon_greedy_categories
    ),
    "greedy": Definition("greedy", "log", baseline=reranking.greedy, quick=True),
    "mmr": Definition("greedy, re-ranked by MMR", "log", baseline=reranking.mmr, quick=True),
    "dpp": Definition("greedy, re-ranked by a DPP", "log", baseline=reranking.dpp),
    "random-category": Definition(
        "random category, not the last", "log", baseline=reinforcement.random_category, quick=True
    ),
    "no-rl": Definition("no planner, no RL", "log", pretrained=True, explores_as="ppo", quick=True),
    "popularity": Definition("popularity", "control", quick=True),
    "random": Definition("random", "control", quick=True),
    "look-ahead": Definition("oracle, look-ahead", "bound", quick=True),
    "oracle": Definition("oracle, greedy", "bound", quick=True),
}
"""Short name -> row, in the order shown. A row without RL explores as widely as the row it is compared with."""
OLD_NAMES = {"heuristic": "top-k", "heuristic-greedy": "top-k-greedy", "heuristic-click": "top-k-click"}
"""What rows were called before, for command lines that name them."""
NEED_A_MODEL = ("lerl-published", "no-reflection", "billp", "lerl-top-k")
"""Rows that are LERL's own, or no row at all, where no language model is given."""
RUN_ROWS = (
    "lerl",
    "lerl-click",
    "mask-click",
    "ppo",
    "no-reflection",
    "lerl-top-k",
    "lerl-rotation",
    "random-plan",
    "greedy-plan",
    "random-held",
    "constant",
    "lerl-no-rl",
    "no-rl",
    "popularity",
    "random",
    "oracle",
)
"""Those of ``rapport run``."""
RECORDED = ("lerl", "lerl-click", "top-k", "ppo", "ppo-pl", "dqn", "rotation", "popularity", "look-ahead")
"""Rows whose sessions can be looked at."""


@dataclass(frozen=True)
class RowSettings:
    """What all rows of an experiment share.

    Attributes:
        planner: who plans LERL's rows: a language model, or the top-k preference planner where none is given.
        transitions: that each learning row learns from.
        base: sizes of the policy, and PPO's settings where none were found.
        tuned: hyper-parameters found by the search, by row.
        pretrained_folder: keeps the pretrained policies; by default each experiment's folder.
    """

    planner: PlannerConfig = field(default_factory=PlannerConfig)
    transitions: int = 51_200
    base: PPOConfig = field(default_factory=PPOConfig)
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pretrained_folder: Path | None = None

    def low_level(self, name: Literal["lerl", "ppo"]) -> PPOConfig:
        """PPO's settings for planned or for planner-less agents."""
        return replace(self.base, **self.tuned.get(name, {}))


def lerl_rows(names: Iterable[str], env: EnvConfig, settings: RowSettings) -> tuple[Row, ...]:
    """Rows of LERL's tables in an environment.

    Raises:
        ValueError: there is no row of a name.
    """
    wanted = [OLD_NAMES.get(name, name) for name in names]
    if unknown := [name for name in wanted if name not in DEFINITIONS]:
        raise ValueError(f"row {unknown[0]!r}: unknown; choose of {', '.join(DEFINITIONS)}")
    no_model = settings.planner.llm is None
    return tuple(lerl_row(name, env, settings) for name in wanted if not (no_model and name in NEED_A_MODEL))


def lerl_row(name: str, env: EnvConfig, settings: RowSettings) -> Row:
    """One of them."""
    definition = DEFINITIONS[name]
    given = settings.planner.llm is not None or not definition.has_model
    return Row(
        name,
        definition.label if given else f"{definition.label} (no LLM given)",
        env,
        _learner(name, definition, settings),
        definition.family,
        _planner(definition, settings.planner),
        definition.trained_as,
    )


def _planner(definition: Definition, given: PlannerConfig) -> PlannerConfig | None:
    if definition.family in ("control", "bound"):
        return None
    if not definition.has_model:
        planner = planner_by_name(definition.planner, given.period)
        masked = definition.cooldown is True
        return replace(planner, period=given.period, cooldown=True) if masked else planner
    planner = given
    if definition.period is not None:
        planner = replace(given, period=definition.period, cooldown=definition.cooldown)
    return planner if given.llm is None else replace(planner, name=definition.planner)


def _learner(name: str, definition: Definition, settings: RowSettings) -> Learner:
    if definition.family in ("control", "bound"):
        return Control(name)
    low_level, folder = settings.low_level(definition.explores_as), settings.pretrained_folder
    if definition.pretrained:
        return PretrainedLearner(low_level, folder)
    if definition.baseline is not None:
        found = settings.tuned.get(definition.tuned_as or name, {})
        return BaselineLearner(definition.baseline, found, low_level, settings.transitions, folder)
    return PPOLearner(low_level, settings.transitions, definition.best, folder)


def tuned_settings() -> dict[str, dict[str, Any]]:
    """Hyper-parameters that the search found, by row; those of no row where there is no search's file."""
    file = files("rapport.experiments.lerl").joinpath("tuned.json")
    return dict(json.loads(file.read_text("utf-8"))["settings"]) if file.is_file() else {}


def in_words(settings: Mapping[str, Any]) -> str:
    """Hyper-parameters for a reader, e.g. ``"learning rate 0.000169, gamma 0.441"``."""
    return ", ".join(
        f"{name.replace('_', ' ')} {f'{value:.4g}' if isinstance(value, float) else value}"
        for name, value in settings.items()
    )
