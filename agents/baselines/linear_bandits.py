"""Linear bandits over sessions and items: a ridge regression of clicks that begins as the CTR model's ranking.

One weight vector is shared by all items and users. It has d = E + C + 3 features of a session and an item:

- E products of the CTR model's hyper-action with the item's encoding, over sqrt(E), and the hyper-action's bias: they
  add up to the CTR model's click log-odds;
- the item's category, one of C;
- whether the slate just shown had that category;
- 1.

The prior mean is the tangent of the logistic function at log-odds 0, 1/2 + log-odds / 4: it ranks items as the CTR
model does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rapport.agents.bandits import RidgeRegression
from rapport.agents.baselines.bandits import learn_online
from rapport.agents.baselines.click_prior import CTRModel, top_items
from rapport.agents.baselines.task import Act, Baseline, TrainingTask, settings_of

if TYPE_CHECKING:
    import optuna

Floats = NDArray[np.float64]
Rule = Callable[[Tensor], Tensor]
"""From features of B sessions and M items, shape (B, M, d), to the items' values, (B, M)."""


def features(ctr_model: CTRModel, weights: Tensor, observations: dict[str, Any], items: Tensor) -> Tensor:
    """Features of B sessions and M items each, shape (B, M, d).

    Args:
        ctr_model: has the items' encodings and categories.
        weights: shape (B, E + 1), its hyper-actions.
        observations: of the sessions.
        items: shape (B, M), int64.
    """
    category = ctr_model.category[items]
    shown = torch.from_numpy(ctr_model.last_categories(observations)).float()
    products = weights[:, None, :-1] * ctr_model.items[items] / math.sqrt(ctr_model.items.shape[1])
    bias = weights[:, None, -1:].expand(*items.shape, 1)
    one_hot = F.one_hot(category, shown.shape[1]).float()
    again = shown.gather(1, category)[:, :, None]
    return torch.cat([products, bias, one_hot, again, torch.ones_like(again)], dim=2)


def prior_mean(ctr_model: CTRModel) -> Floats:
    """Weights that rank items as the CTR model's click log-odds do, shape (d,)."""
    width, n_categories = ctr_model.items.shape[1], ctr_model.data.catalog.n_categories
    return np.concatenate([np.full(width + 1, 0.25), np.zeros(n_categories + 1), [0.5]])


def upper_bounds(ridge: RidgeRegression, width: float) -> Rule:
    """LinUCB's bounds (:func:`~rapport.agents.bandits.linucb`) of tensors, in single precision."""
    mean, root = torch.from_numpy(ridge.mean).float(), torch.from_numpy(ridge.root).float()
    return lambda x: x @ mean + width * (x @ root).norm(dim=2)


def posterior_draws(ridge: RidgeRegression, scale: float, rng: np.random.Generator) -> Rule:
    """Values under weights drawn for each session (:meth:`~rapport.agents.bandits.RidgeRegression.sample`)."""

    def rule(x: Tensor) -> Tensor:
        drawn = torch.from_numpy(ridge.sample(len(x), scale, rng)).float()
        return (x @ drawn[:, :, None])[:, :, 0]

    return rule


def best_slates(ctr_model: CTRModel, rule: Rule, candidates: int, observations: dict[str, Any]) -> NDArray[np.int64]:
    """Slates of the items worth most by a rule, of those that the log has as most likely clicked, shape (B, K)."""
    weights = ctr_model.weights(ctr_model.states(observations))
    scores, allowed = ctr_model.scores(weights), ctr_model.allowed(observations)
    items = torch.from_numpy(top_items(scores, allowed, min(candidates, scores.shape[1])))
    values = rule(features(ctr_model, weights, observations, items))
    best = torch.from_numpy(top_items(values, allowed.gather(1, items), ctr_model.slate_size))
    slates: NDArray[np.int64] = items.gather(1, best).numpy()
    return slates


def lin_ucb(task: TrainingTask) -> Act:
    """LinUCB with shared weights (Li, Chu, Langford & Schapire, WWW 2010); after learning it serves by the mean.

    Settings: ``width`` (0.1) of the bounds, alpha in the paper; ``strength`` (100.0) of the prior, 1 in the paper;
    ``candidates`` (200), items of the highest click log-odds that are considered.
    """
    settings = settings_of("LinUCB", {"width": 0.1, "strength": 100.0, "candidates": 200}, task.settings)
    return _learned(
        task, settings, lambda ridge, _: upper_bounds(ridge, settings["width"]), lambda r, _: upper_bounds(r, 0.0)
    )


def thompson(task: TrainingTask) -> Act:
    """Thompson sampling with linear payoffs (Agrawal & Goyal, ICML 2013): one draw a slate, after learning too.

    Settings: ``scale`` (0.1) of the posterior's standard deviations, v in the paper; ``strength`` (100.0) of the prior,
    1 in the paper; ``candidates`` (200), items of the highest click log-odds that are considered.
    """
    settings = settings_of("Thompson sampling", {"scale": 0.1, "strength": 100.0, "candidates": 200}, task.settings)

    def draws(ridge: RidgeRegression, rng: np.random.Generator) -> Rule:
        return posterior_draws(ridge, settings["scale"], rng)

    return _learned(task, settings, draws, draws)


def _learned(
    task: TrainingTask,
    settings: dict[str, Any],
    learning: Callable[[RidgeRegression, np.random.Generator], Rule],
    serving: Callable[[RidgeRegression, np.random.Generator], Rule],
) -> Act:
    """Learn by one rule, updated after every step, then serve by another."""
    ctr_model, candidates = task.ctr_model, int(settings["candidates"])
    rng = np.random.default_rng(task.seed)
    ridge = RidgeRegression(prior_mean(ctr_model), float(settings["strength"]))

    def update(observations: dict[str, Any], slates: NDArray[np.int64], clicks: NDArray[np.integer]) -> None:
        weights = ctr_model.weights(ctr_model.states(observations))
        x = features(ctr_model, weights, observations, torch.from_numpy(slates)).flatten(0, 1)
        ridge.update(x.double().numpy(), clicks.ravel())

    learn_online(task, lambda seen: best_slates(ctr_model, learning(ridge, rng), candidates, seen), update, rng)
    rule = serving(ridge, rng)
    return lambda observations: best_slates(ctr_model, rule, candidates, observations)


def space_lin_ucb(trial: optuna.Trial) -> dict[str, Any]:
    """The search space of :func:`lin_ucb`."""
    return {
        "width": trial.suggest_float("width", 0.01, 3.0, log=True),
        "strength": trial.suggest_float("strength", 1.0, 10_000.0, log=True),
    }


def space_thompson(trial: optuna.Trial) -> dict[str, Any]:
    """The search space of :func:`thompson`."""
    return {
        "scale": trial.suggest_float("scale", 0.01, 3.0, log=True),
        "strength": trial.suggest_float("strength", 1.0, 10_000.0, log=True),
    }


BASELINES: dict[str, Baseline] = {"linucb": lin_ucb, "thompson": thompson}
"""Linear bandits by name."""
SPACES: dict[str, Callable[[optuna.Trial], dict[str, Any]]] = {"linucb": space_lin_ucb, "thompson": space_thompson}
"""The search space of each."""
