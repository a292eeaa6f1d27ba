"""Every row of the tables: who it is, what it may know, and how it learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rapport.agents.baselines import bandits, linear_bandits, reinforcement, reranking
from rapport.agents.baselines.hac import hac
from rapport.agents.baselines.online_ctr import online_ctr_model
from rapport.agents.baselines.plackett_luce_ppo import plackett_luce_ppo
from rapport.agents.baselines.task import Baseline
from rapport.experiments.lerl.config import LEARNING_PLANNERS, SIMILAR

Family = Literal["control", "log", "bandit", "learned", "plan", "bound"]
FAMILIES: dict[Family, str] = {
    "plan": "Under a plan: a category mask above; below it PPO, where nothing else is said",
    "learned": "Without a planner: learned from sessions",
    "bandit": "Without a planner: bandits",
    "log": "Without a planner: learned from the log alone",
    "control": "Controls",
    "bound": "Bounds, which read the simulator",
}


@dataclass(frozen=True)
class Method:
    """One row.

    Attributes:
        label: shown name.
        family: a key of :data:`FAMILIES`.
        planner: for those of the family "plan" who is above: ``"llm"``, or a control's name.
        rest: whether categories just shown are left out of the mask; None as the planner has it.
        period: slates that a language model's plan holds; None as the grid has it.
        baseline: how it learns, where it is not LERL's PPO; None for that, for controls and for bounds.
        trained_as: the method whose trained low level it is played with, where it has none of its own.
        tuned_as: the method whose settings were searched for it, where not for itself.
        best: whether LERL's low level serves its best slate in place of a draw.
        quick: whether a quick look has it, and worlds other than the main one.
    """

    label: str
    family: Family
    planner: str | None = None
    rest: bool | None = None
    period: int | None = None
    baseline: Baseline | None = None
    trained_as: str | None = None
    tuned_as: str | None = None
    best: bool = False
    quick: bool = False

    @property
    def has_pool(self) -> bool:
        """Whether its planner learns from reflections."""
        return self.planner in LEARNING_PLANNERS

    @property
    def rests_by_default(self) -> bool:
        """Whether its plans are meant to hold for several slates, what was just shown resting."""
        return self.planner == HEURISTIC or self.rest is True


NO_RL = "first"
"""``trained_as`` of rows whose low level is the first policy, learned from the log alone."""
LLM, LLM_ONLY = "llm", "llm without reflection"
HEURISTIC = "lasting preference"

METHODS: dict[str, Method] = {
    "lerl": Method("LERL", "plan", LLM, quick=True),
    "lerl-published": Method("LERL as published: a plan every slate, no rest", "plan", LLM, rest=False, period=1),
    "lerl-pl": Method("LERL, Plackett-Luce slates", "plan", LLM, baseline=plackett_luce_ppo, quick=True),
    "lerl-click": Method("LERL, click model learned online", "plan", LLM, baseline=online_ctr_model, quick=True),
    "lerl-best": Method("LERL, serving its best slates", "plan", LLM, trained_as="lerl", best=True, quick=True),
    "no-reflection": Method("LERL, no reflection", "plan", LLM_ONLY, quick=True),
    "billp": Method("LERL, BiLLP-style memory", "plan", SIMILAR),
    "heuristic": Method("heuristic planner", "plan", HEURISTIC, quick=True),
    "rotation": Method("rotation planner", "plan", "rotation", quick=True),
    "random-plan": Method("random planner", "plan", "random", trained_as="lerl", quick=True),
    "greedy-plan": Method("greedy planner", "plan", "greedy preference", trained_as="lerl"),
    "mask": Method("mask alone: what was just shown rests", "plan", "none", rest=True, quick=True),
    "lerl-no-rl": Method("LERL, no RL", "plan", LLM_ONLY, trained_as=NO_RL, quick=True),
    "heuristic-greedy": Method(
        "heuristic planner, greedy, no RL", "plan", HEURISTIC, baseline=reranking.greedy, quick=True
    ),
    "mask-greedy": Method(
        "mask alone, greedy, no RL", "plan", "none", rest=True, baseline=reranking.greedy, quick=True
    ),
    "mask-linucb": Method("mask alone, LinUCB", "plan", "none", rest=True, baseline=linear_bandits.lin_ucb, quick=True),
    "heuristic-click": Method(
        "heuristic planner, click model learned online",
        "plan",
        HEURISTIC,
        baseline=online_ctr_model,
        tuned_as="lerl-click",
        quick=True,
    ),
    "mask-click": Method(
        "mask alone, click model learned online",
        "plan",
        "none",
        rest=True,
        baseline=online_ctr_model,
        tuned_as="lerl-click",
        quick=True,
    ),
    "mask-no-rl": Method("mask alone, no RL", "plan", "none", rest=True, trained_as=NO_RL, quick=True),
    "ppo": Method("PPO", "learned", "none", quick=True),
    "ppo-pl": Method("PPO, Plackett-Luce slates", "learned", baseline=plackett_luce_ppo),
    "reinforce": Method("PG (REINFORCE)", "learned", baseline=reinforcement.reinforce),
    "a2c": Method("A2C", "learned", baseline=reinforcement.a2c),
    "ddpg": Method("DDPG", "learned", baseline=reinforcement.ddpg),
    "td3": Method("TD3", "learned", baseline=reinforcement.td3),
    "sac": Method("SAC", "learned", baseline=reinforcement.sac),
    "dqn": Method("DQN over categories", "learned", baseline=reinforcement.dqn, quick=True),
    "masked-ppo": Method("masked PPO over categories", "learned", baseline=reinforcement.masked_ppo, quick=True),
    "hac": Method("HAC", "learned", baseline=hac),
    "sac4ir": Method("SAC4IR", "learned", baseline=reinforcement.sac4ir),
    "dnair": Method("DNaIR", "learned", baseline=reinforcement.dnair),
    "click": Method("click model learned online", "bandit", baseline=online_ctr_model, quick=True),
    "linucb": Method("LinUCB", "bandit", baseline=linear_bandits.lin_ucb),
    "thompson": Method("Thompson sampling", "bandit", baseline=linear_bandits.thompson),
    "ucb-items": Method("UCB over items", "bandit", baseline=bandits.ucb_items, quick=True),
    "ucb-categories": Method("UCB over categories", "bandit", baseline=bandits.ucb_categories),
    "epsilon-greedy-items": Method("epsilon-greedy over items", "bandit", baseline=bandits.epsilon_greedy_items),
    "epsilon-greedy-categories": Method(
        "epsilon-greedy over categories", "bandit", baseline=bandits.epsilon_greedy_categories
    ),
    "greedy": Method("greedy", "log", baseline=reranking.greedy, quick=True),
    "mmr": Method("greedy, re-ranked by MMR", "log", baseline=reranking.mmr, quick=True),
    "dpp": Method("greedy, re-ranked by a DPP", "log", baseline=reranking.dpp),
    "random-category": Method(
        "random category, not the last", "log", baseline=reinforcement.random_category, quick=True
    ),
    "no-rl": Method("first policy, no RL", "log", "none", trained_as=NO_RL, quick=True),
    "popularity": Method("popularity", "control", quick=True),
    "random": Method("random", "control", quick=True),
    "look-ahead": Method("oracle with look-ahead", "bound", quick=True),
    "oracle": Method("oracle, greedy and never bored", "bound", quick=True),
}
"""Short name -> row, in the order shown."""
