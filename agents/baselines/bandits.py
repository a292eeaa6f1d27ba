"""Bandits without context over sessions: arms are items or categories, and their counts begin with the log's.

All users share the arms. A slate plays K of them, and the clicks of B users on their slates are counted at once, after
the step. No item is shown twice in a session. The algorithms are those of :mod:`rapport.agents.bandits`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from rapport.agents.bandits import ArmCounts, epsilon_greedy, ucb1
from rapport.agents.baselines.click_prior import top_items
from rapport.agents.baselines.controls import PRIOR, exposures
from rapport.agents.baselines.task import Act, Baseline, TrainingTask, settings_of
from rapport.datasets.schema import SessionData

if TYPE_CHECKING:
    import optuna

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Values = Callable[[ArmCounts], Floats]
"""Values of arms, shape (A,)."""
Slates = Callable[[Floats, dict[str, Any], float, np.random.Generator], NDArray[np.int64]]
"""From values of arms (A,), observations of B sessions, the share of places to explore and a generator to slates."""
Update = Callable[[dict[str, Any], NDArray[np.int64], NDArray[np.integer]], None]
"""Learns from observations of B sessions, the slates (B, K) they were shown and the clicks (B, K) on them."""


def learn_online(task: TrainingTask, choose: Act, update: Update, rng: np.random.Generator) -> None:
    """Step a task's sessions until its transitions are reached, learning after each step.

    Args:
        task: its sessions must observe copies, as is their default: an update reads what the slate was chosen on.
        choose: from observations to slates.
        update: learns from the clicks on them.
        rng: seeds the sessions.
    """
    sessions = task.sessions
    observations, _ = sessions.reset(seed=int(rng.integers(2**31)))
    for _ in range(-(-task.transitions // sessions.num_envs)):
        slates = choose(observations)
        following, _, _, _, info = sessions.step(slates)
        update(observations, slates, info["feedback"][:, :, 0])
        observations = following


# --- arms -------------------------------------------------------------------------------------------------------------


def log_arms(data: SessionData, arm_of_item: NDArray[np.integer], log_weight: float = 1.0) -> ArmCounts:
    """Arms as the log counts them: exposures are pulls, clicks are rewards.

    Counted are training users' training days, and :data:`PRIOR` exposures at their overall rate for every arm.

    Args:
        data: its log is counted.
        arm_of_item: shape (N,), the arm that each item belongs to.
        log_weight: exposures that one of the log's is worth.
    """
    shown, clicked = exposures(data)
    overall = clicked.sum() / max(shown.sum(), 1)
    return ArmCounts(
        log_weight * np.bincount(arm_of_item, shown) + PRIOR,
        log_weight * np.bincount(arm_of_item, clicked) + PRIOR * overall,
    )


# --- from arms to slates ----------------------------------------------------------------------------------------------


def unshown(observations: dict[str, Any], n_items: int, slate_size: int) -> Bools:
    """Items that B sessions have not shown yet, as far as their histories reach back, shape (B, N)."""
    items = observations["history_items"]
    ago = np.arange(items.shape[1], 0, -1)
    free = np.ones((len(items), n_items + 1), bool)
    rows, places = np.nonzero(ago <= observations["step"].astype(np.int64) * slate_size)
    free[rows, items[rows, places]] = False
    return free[:, 1:]


def available_items(observations: dict[str, Any], category: NDArray[np.integer], slate_size: int) -> Bools:
    """Items that plans allow and sessions have not shown, shape (B, N); all allowed ones where those fill no slate."""
    allowed: Bools = observations["plan"].astype(bool)[:, category]
    fresh = allowed & unshown(observations, len(category), slate_size)
    return np.where(fresh.sum(axis=1, keepdims=True) < slate_size, allowed, fresh)


def leading_items(available: Bools, category: NDArray[np.integer], order: NDArray[np.int64]) -> Bools:
    """The first available item of each category in an order, shape (B, N), bool.

    Args:
        available: shape (B, N).
        category: shape (N,).
        order: shape (N,), a permutation of the items.
    """
    grouped = order[np.argsort(category[order], kind="stable")]
    starts = np.flatnonzero(np.diff(category[grouped], prepend=-1))
    places = np.where(available[:, grouped], np.arange(len(order)), len(order))
    rows, groups = np.nonzero((first := np.minimum.reduceat(places, starts, axis=1)) < len(order))
    leading = np.zeros_like(available)
    leading[rows, grouped[first[rows, groups]]] = True
    return leading


def _explored(values: Floats, available: Bools, k: int, epsilon: float, rng: np.random.Generator) -> Floats:
    """As :func:`~rapport.agents.bandits.epsilon_greedy`; of equal arms those come first that PyTorch puts first."""

    def top(values: Floats, available: Bools, k: int) -> NDArray[np.int64]:
        return top_items(torch.from_numpy(values.copy()), torch.from_numpy(available), k)

    return epsilon_greedy(values, available, k, epsilon, rng, top)


def item_slates(data: SessionData, slate_size: int) -> Slates:
    """Slates of the best items that the session has not shown."""
    category = data.catalog.category

    def slates(
        values: Floats, observations: dict[str, Any], epsilon: float, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        available = available_items(observations, category, slate_size)
        scores = _explored(values, available, slate_size, epsilon, rng)
        return top_items(torch.from_numpy(scores.copy()), torch.from_numpy(available), slate_size)

    return slates


def category_slates(data: SessionData, slate_size: int) -> Slates:
    """Slates of the best categories, each with its item of highest click rate that the session has not shown.

    Where there are fewer categories than places, the other items of highest click rate follow.
    """
    category, n_categories = data.catalog.category, data.catalog.n_categories
    rates = log_arms(data, np.arange(data.catalog.n_items)).means
    order = np.argsort(-rates, kind="stable")
    belongs = np.zeros((len(category), n_categories), np.float32)
    belongs[np.arange(len(category)), category] = 1.0

    def slates(
        values: Floats, observations: dict[str, Any], epsilon: float, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        available = available_items(observations, category, slate_size)
        leading = leading_items(available, category, order)
        open_categories = leading.astype(np.float32) @ belongs > 0.0
        k = min(slate_size, n_categories)
        scores = _explored(values, open_categories, k, epsilon, rng)
        above = scores - scores.min() + 2.0  # no rate is above 1
        chosen = np.where(leading, above[:, category], rates)
        return top_items(torch.from_numpy(chosen), torch.from_numpy(available), slate_size)

    return slates


# --- baselines --------------------------------------------------------------------------------------------------------


def epsilon_greedy_items(task: TrainingTask) -> Act:
    """Epsilon-greedy over items while it learns, then the items of highest click rate.

    Settings: ``epsilon`` (0.1), share of places to explore; ``log_weight`` (1.0), exposures that one of the log's is
    worth.
    """
    return _epsilon_greedy(task, np.arange(task.data.catalog.n_items), item_slates)


def epsilon_greedy_categories(task: TrainingTask) -> Act:
    """As :func:`epsilon_greedy_items`, over categories; the settings are the same."""
    return _epsilon_greedy(task, task.data.catalog.category, category_slates)


def ucb_items(task: TrainingTask) -> Act:
    """UCB1 (:func:`~rapport.agents.bandits.ucb1`) over items while it learns, then the items of highest click rate.

    Settings: ``width`` (0.1), of the bounds, UCB1's is 1; ``log_weight`` (1.0), exposures that one of the log's is
    worth.
    """
    return _ucb(task, np.arange(task.data.catalog.n_items), item_slates)


def ucb_categories(task: TrainingTask) -> Act:
    """As :func:`ucb_items`, over categories; the settings are the same."""
    return _ucb(task, task.data.catalog.category, category_slates)


def _epsilon_greedy(
    task: TrainingTask, arm_of_item: NDArray[np.integer], slates: Callable[[SessionData, int], Slates]
) -> Act:
    settings = settings_of("epsilon-greedy", {"epsilon": 0.1, "log_weight": 1.0}, task.settings)
    arms = log_arms(task.data, arm_of_item, settings["log_weight"])
    of = slates(task.data, task.ctr_model.slate_size)
    return _learned(task, arms, arm_of_item, of, lambda counted: counted.means, settings["epsilon"])


def _ucb(task: TrainingTask, arm_of_item: NDArray[np.integer], slates: Callable[[SessionData, int], Slates]) -> Act:
    settings = settings_of("UCB", {"width": 0.1, "log_weight": 1.0}, task.settings)
    arms = log_arms(task.data, arm_of_item, settings["log_weight"])
    of = slates(task.data, task.ctr_model.slate_size)
    return _learned(task, arms, arm_of_item, of, lambda counted: ucb1(counted, settings["width"]))


def _learned(
    task: TrainingTask,
    arms: ArmCounts,
    arm_of_item: NDArray[np.integer],
    slates: Slates,
    values: Values,
    epsilon: float = 0.0,
) -> Act:
    """Learn by values and exploration; then serve by click rates alone, without learning."""
    rng = np.random.default_rng(task.seed)
    learn_online(
        task,
        lambda observations: slates(values(arms), observations, epsilon, rng),
        lambda _, shown, clicks: arms.update(arm_of_item[shown], clicks),
        rng,
    )
    rates = arms.means
    return lambda observations: slates(rates, observations, 0.0, rng)


def space_epsilon_greedy(trial: optuna.Trial) -> dict[str, Any]:
    """The search space of epsilon-greedy bandits."""
    return {
        "epsilon": trial.suggest_float("epsilon", 0.01, 0.5, log=True),
        "log_weight": trial.suggest_float("log_weight", 0.01, 1.0, log=True),
    }


def space_ucb(trial: optuna.Trial) -> dict[str, Any]:
    """The search space of UCB1 bandits."""
    return {
        "width": trial.suggest_float("width", 0.01, 1.0, log=True),
        "log_weight": trial.suggest_float("log_weight", 0.01, 1.0, log=True),
    }


BASELINES: dict[str, Baseline] = {
    "epsilon-greedy-items": epsilon_greedy_items,
    "epsilon-greedy-categories": epsilon_greedy_categories,
    "ucb-items": ucb_items,
    "ucb-categories": ucb_categories,
}
"""Bandits by name."""
SPACES: dict[str, Callable[[optuna.Trial], dict[str, Any]]] = {
    "epsilon-greedy-items": space_epsilon_greedy,
    "epsilon-greedy-categories": space_epsilon_greedy,
    "ucb-items": space_ucb,
    "ucb-categories": space_ucb,
}
"""The search space of each."""
