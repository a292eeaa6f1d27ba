"""Slates from the CTR model's click scores alone: the best items, or re-ranked for variety. Sessions teach nothing.

The likeness of two items, in [0, 1], is a mixture of whether they are of one category and of (1 + cosine) / 2 of
their encodings. It is a positive semidefinite kernel with a unit diagonal, as a determinantal point process needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rapport.agents.baselines.click_prior import CTRModel, top_items
from rapport.agents.baselines.task import Act, Baseline, TrainingTask, settings_of
from rapport.agents.planning.planner import last_slate

if TYPE_CHECKING:
    import optuna

SMALLEST = 1e-6
"""Least squared volume that an item adds, above rounding errors of 0: among items that add it, quality decides."""
JITTER = 1e-4
"""Added to the diagonal of a kernel that is inverted: a slate may have shown an item twice."""


def last_items(observations: dict[str, Any], slate_size: int) -> tuple[Tensor, Tensor]:
    """Items of the slates just shown, shape (B, K), int64, and which of them exist, (B, K): none at the start."""
    items = torch.from_numpy(last_slate(observations, slate_size))
    return items.clamp(min=0), items >= 0


def likeness(ctr_model: CTRModel, one: Tensor, other: Tensor, category_share: float) -> Tensor:
    """How alike items (B, P) and items (B, Q) are, shape (B, P, Q), in [0, 1].

    Args:
        ctr_model: has their encodings and categories.
        one: shape (B, P), int64.
        other: shape (B, Q), int64.
        category_share: weight of being of one category; the rest is the encodings'.
    """
    unit = F.normalize(ctr_model.items, dim=1)
    cosine = unit[one] @ unit[other].transpose(1, 2)
    same = ctr_model.category[one][:, :, None] == ctr_model.category[other][:, None, :]
    return category_share * same.float() + (1.0 - category_share) * (1.0 + cosine) / 2.0


def greedy(task: TrainingTask) -> Act:
    """The allowed items most likely to be clicked, by the CTR model. No settings."""
    settings_of("greedy", {}, task.settings)
    ctr_model = task.ctr_model

    def act(observations: dict[str, Any]) -> NDArray[np.int64]:
        return top_items(ctr_model.click_scores(observations), ctr_model.allowed(observations), ctr_model.slate_size)

    return act


# --- maximal marginal relevance ---------------------------------------------------------------------------------------


def mmr(task: TrainingTask) -> Act:
    """Maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998): items likely clicked and unlike each other.

    The next item has the highest ``relevance`` * click probability - (1 - ``relevance``) * its greatest likeness to an
    item chosen before; items of the slate just shown count as chosen, with their likeness times ``memory``.

    Settings: ``relevance`` (0.7), ``category_share`` (0.5) of :func:`likeness`, ``memory`` (1.0).
    """
    settings = settings_of("MMR", {"relevance": 0.7, "category_share": 0.5, "memory": 1.0}, task.settings)
    ctr_model = task.ctr_model
    size, share = ctr_model.slate_size, float(settings["category_share"])

    def act(observations: dict[str, Any]) -> NDArray[np.int64]:
        gains = torch.sigmoid(ctr_model.click_scores(observations))
        gains = gains.masked_fill(~ctr_model.allowed(observations), float("-inf"))
        shown, there = last_items(observations, size)
        redundancy = torch.zeros_like(gains)
        for place in range(size):
            alike = _likeness_to_all(ctr_model, shown[:, place], share) * there[:, place, None]
            redundancy = torch.maximum(redundancy, settings["memory"] * alike)
        return marginal_slates(
            gains, redundancy, lambda item: _likeness_to_all(ctr_model, item, share), size, settings["relevance"]
        )

    return act


def _likeness_to_all(ctr_model: CTRModel, item: Tensor, category_share: float) -> Tensor:
    """How alike all items are to one of each session, shape (B,): (B, N)."""
    everything = torch.arange(len(ctr_model.items))[None]
    return likeness(ctr_model, item[None], everything, category_share)[0]


def marginal_slates(
    gains: Tensor, redundancy: Tensor, likeness_to: Callable[[Tensor], Tensor], k: int, relevance: float
) -> NDArray[np.int64]:
    """Items of greatest marginal relevance one after the other, shape (B, k), none twice.

    Args:
        gains: shape (B, N), relevance of items, -inf for those not to be chosen.
        redundancy: shape (B, N), greatest likeness to items that count as chosen from the start.
        likeness_to: from items, shape (B,), to how alike all items are to them, (B, N).
        k: items to choose.
        relevance: weight of relevance, in [0, 1].
    """
    taken, chosen = gains.isinf(), []
    gains = relevance * gains.masked_fill(taken, 0.0)  # 0 times infinity is not a number
    for _ in range(k):
        item = (gains - (1.0 - relevance) * redundancy).masked_fill(taken, float("-inf")).argmax(dim=1)
        chosen.append(item)
        taken.scatter_(1, item[:, None], True)
        redundancy = torch.maximum(redundancy, likeness_to(item))
    slates: NDArray[np.int64] = torch.stack(chosen, dim=1).numpy()
    return slates


# --- determinantal point process --------------------------------------------------------------------------------------


def dpp(task: TrainingTask) -> Act:
    """Greedy most probable slates of a determinantal point process (Chen, Zhang & Zhou, NeurIPS 2018).

    Its kernel is q_i S_ij q_j: quality q = exp(``quality`` * click log-odds), S as :func:`likeness`, less ``memory``
    times what the slate just shown explains of it (at 1: the process given that slate).

    Settings: ``quality`` (1.0), ``category_share`` (0.5) of :func:`likeness`, ``memory`` (1.0), ``candidates`` (200),
    the most likely clicked items from which slates are chosen.
    """
    defaults = {"quality": 1.0, "category_share": 0.5, "memory": 1.0, "candidates": 200}
    settings = settings_of("DPP", defaults, task.settings)
    ctr_model = task.ctr_model
    size, share = ctr_model.slate_size, float(settings["category_share"])

    def act(observations: dict[str, Any]) -> NDArray[np.int64]:
        scores, allowed = ctr_model.click_scores(observations), ctr_model.allowed(observations)
        n = min(int(settings["candidates"]), scores.shape[1])
        items = torch.from_numpy(top_items(scores, allowed, n))
        log_quality = settings["quality"] * scores.gather(1, items)
        log_quality = log_quality.masked_fill(~allowed.gather(1, items), float("-inf"))
        shown, there = last_items(observations, size)
        similarity = unexplained(
            likeness(ctr_model, items, items, share),
            likeness(ctr_model, items, shown, share),
            likeness(ctr_model, shown, shown, share),
            there,
            settings["memory"],
        )
        best: NDArray[np.int64] = items.gather(1, greedy_map(log_quality, similarity, size)).numpy()
        return best

    return act


def unexplained(among: Tensor, to_given: Tensor, given: Tensor, there: Tensor, weight: float) -> Tensor:
    """A kernel minus ``weight`` times what given items explain of it, shape (B, M, M).

    Args:
        among: shape (B, M, M), the kernel.
        to_given: shape (B, M, G), between its items and those given.
        given: shape (B, G, G), between those given.
        there: shape (B, G), bool, which of the given items exist.
        weight: in [0, 1]; at 1 the result is the Schur complement, the kernel of the process given those items.
    """
    to_given = to_given * there[:, None, :]
    identity = torch.eye(given.shape[1], dtype=given.dtype)
    known = torch.where(there[:, :, None] & there[:, None, :], given, identity) + JITTER * identity
    rest: Tensor = among - weight * to_given @ torch.linalg.solve(known, to_given.transpose(1, 2))
    return rest


def greedy_map(log_quality: Tensor, similarity: Tensor, k: int) -> Tensor:
    """Indices of items that, one after the other, raise the kernel's determinant most, shape (B, k), none twice.

    Algorithm 1 of Chen et al., with a Cholesky factor of the similarity that grows by a column for each item. As
    det(diag(q) S diag(q)) = prod(q^2) det(S), the factor needs no qualities, and these may be of any size.

    Args:
        log_quality: shape (B, M), ln q; -inf for items not to be chosen.
        similarity: shape (B, M, M), positive semidefinite.
        k: items to choose.
    """
    rows = torch.arange(len(log_quality))
    free = 2.0 * log_quality
    volume = similarity.diagonal(dim1=1, dim2=2).clamp(min=SMALLEST)
    columns = similarity.new_zeros(k, *volume.shape)
    chosen = []
    for step in range(k):
        item = (free + volume.log()).argmax(dim=1)
        chosen.append(item)
        free = free.scatter(1, item[:, None], float("-inf"))
        before = columns[:step]
        explained = (before[:, rows, item][:, :, None] * before).sum(dim=0)
        columns[step] = (similarity[rows, item] - explained) / volume[rows, item].sqrt()[:, None]
        volume = (volume - columns[step] ** 2).clamp(min=SMALLEST)
    return torch.stack(chosen, dim=1)


def space_mmr(trial: optuna.Trial) -> dict[str, Any]:
    """The search space of :func:`mmr`."""
    return {
        "relevance": trial.suggest_float("relevance", 0.2, 1.0),
        "category_share": trial.suggest_float("category_share", 0.0, 1.0),
        "memory": trial.suggest_float("memory", 0.0, 1.0),
    }


def space_dpp(trial: optuna.Trial) -> dict[str, Any]:
    """The search space of :func:`dpp`."""
    return {
        "quality": trial.suggest_float("quality", 0.1, 10.0, log=True),
        "category_share": trial.suggest_float("category_share", 0.0, 1.0),
        "memory": trial.suggest_float("memory", 0.0, 1.0),
    }


BASELINES: dict[str, Baseline] = {"greedy": greedy, "mmr": mmr, "dpp": dpp}
"""Rerankers by name."""
SPACES: dict[str, Callable[[optuna.Trial], dict[str, Any]]] = {"mmr": space_mmr, "dpp": space_dpp}
"""The search space of each."""
