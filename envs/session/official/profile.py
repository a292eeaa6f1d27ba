"""LERL's released environment (arXiv 2601.19585) rule for rule, its faults each behind a switch.

The profile ``official`` of ``rapport/KuaiRand-v0``: a transformer answers, resemblance within a slate costs 0.2 of its
correlation, the history is of 100 items, the quit rule is ``positional`` with a budget of 20 and slates of 6, and who
leaves is replaced within the step. :data:`FAULTS` is what the released code gets wrong about it; without them it is the
environment that its authors describe.

Not switched here, as they are no faults of the environment:

- the agent's: excluded items that outrank allowed ones, the critic given the next user's log, scores shared by three
  users, prompts that count the steps of the user before, category 0 out of reach, retries without end, dropout in the
  policy, a frozen encoder;
- the evaluation's: training rollouts of one seed, no users of their own. Whose sessions are lived is the argument
  ``users``; LERL's are everybody's (``"all"``);
- the rule's own looseness: reordering a slate escapes ``positional``, which has a name of its own (``set_overlap`` is
  the stricter one); ``window_size``, ``temper_discount`` and ``empty_history`` are read and never used;
- what cannot be seen: the limit of 20 slates is never enforced, but a budget of 20 lasts no longer; there is no limit
  to report as a truncation; new users come from batches fetched in advance; the padding of short histories is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, TypedDict, get_args

import numpy as np

from rapport.datasets.schema import FloatArray, Int8Array, Int32Array, IntArray, SessionData
from rapport.envs.session.official.fit import OfficialSettings, predicted_rows
from rapport.envs.session.official.response import HistoryResponse
from rapport.envs.session.official.similarity import SimilarityPenalty
from rapport.envs.session.response.base import ReadsHistories
from rapport.envs.session.response.fit import Profile, balanced_weights

FAULTS = {
    "balanced_prior": "behaviours are as frequent as their absence, for the loss weighs both alike",
    "dropout": "a tenth of the response model is left out at random, for it is never put in evaluation mode",
    "log_row_start": "sessions begin at a random row of the log, so that who has more rows comes more often",
    "lost_endings": "the last observation of a session is the first of the next one in its slot",
    "scrambled_history": "the response model reads F rows of L behaviours as L rows of F: time and behaviour are mixed",
    "shrunken_penalty": "resemblance is a mean over 64 dimensions instead of a sum, so that it costs next to nothing",
    "trained_on_everything": "no days are kept apart: the response model and the sessions' beginnings are of all rows",
}
"""Faults of the released code, which ``"all"`` stands for."""

SUSPECTED = {
    "misaligned_categories": "item i's category is given to the i-th item to appear in the log",
}
"""Faults that are likely but not proven; they must be asked for by name."""

RHO = 0.2
"""Weight of the similarity penalty."""
HISTORY = 100
"""Items of a history, observed and read by the response model."""


def chosen_faults(faults: str | Sequence[str] | None, profile: str) -> frozenset[str]:
    """Names of the faults that are switched on.

    Args:
        faults: ``"all"``, ``"none"``, names in :data:`FAULTS` and :data:`SUSPECTED`, or None: all of the official
            profile, none of the corrected one.
        profile: of the environment.

    Raises:
        ValueError: there is no such profile or fault, or faults are asked of the corrected profile.
    """
    if profile not in get_args(Profile):
        raise ValueError(f"profile={profile!r} is unknown; choose one of {', '.join(get_args(Profile))}")
    if faults is None:
        faults = "all" if profile == "official" else "none"
    if isinstance(faults, str):
        words = {"all": frozenset(FAULTS), "none": frozenset[str]()}
        chosen = words.get(faults, frozenset([faults]))
    else:
        chosen = frozenset(faults)
    unknown = sorted(chosen - FAULTS.keys() - SUSPECTED.keys())
    if unknown:
        known = ", ".join([*FAULTS, *SUSPECTED])
        raise ValueError(f"faults: there is no {unknown[0]!r}; choose 'all', 'none' or some of {known}")
    if chosen and profile == "corrected":
        raise ValueError(
            f"faults={faults!r} with profile='corrected', which has none; give profile='official', or leave faults out"
        )
    return chosen


class OfficialArguments(TypedDict):
    """Arguments of :func:`~rapport.envs.session.factory.session_core` that the official profile sets."""

    history: int
    start_at_log_rows: bool | Literal["any_day"]


def official_arguments(faults: frozenset[str]) -> OfficialArguments:
    """What :func:`~rapport.envs.session.factory.session_core` takes by default under the official profile."""
    start: bool | Literal["any_day"] = "log_row_start" in faults
    if start and "trained_on_everything" in faults:
        start = "any_day"
    return {"history": HISTORY, "start_at_log_rows": start}


def official_settings(faults: frozenset[str]) -> OfficialSettings:
    """How the response model is fitted."""
    return OfficialSettings(
        length=HISTORY, scramble="scrambled_history" in faults, all_days="trained_on_everything" in faults
    )


def official_response(data: SessionData, answers: HistoryResponse, faults: frozenset[str]) -> ReadsHistories:
    """What people do: a fitted model's answers, brought back to plain rates unless that is a fault, less the penalty.

    Args:
        data: what the model was fitted to.
        answers: fitted with :func:`official_settings`, its dropout on where that fault is.
        faults: those that are switched on.
    """
    inner: ReadsHistories = answers
    if "balanced_prior" not in faults:
        rows = predicted_rows(data, all_days="trained_on_everything" in faults)
        inner = PlainPrior(answers, balanced_weights(data.log.feedback[rows])[1].numpy())
    return SimilarityPenalty(inner, answers.encodings(), RHO, divide_by_width="shrunken_penalty" in faults)


class PlainPrior:
    """Another response model's chances, brought back from a world where a behaviour is as frequent as its absence.

    Where negatives were weighed w = #positives / #negatives in the loss, the odds that come out are 1 / w times too
    high (Elkan, *The foundations of cost-sensitive learning*, IJCAI 2001, theorem 2): p = w q / (1 - q + w q).

    Args:
        inner: whose chances q are corrected; it keeps the states.
        weights: shape (F,), w of each behaviour.
    """

    def __init__(self, inner: ReadsHistories, weights: FloatArray) -> None:
        self.inner = inner
        self.weights: FloatArray = weights.astype(np.float32)
        self.behaviours = inner.behaviours

    def initial_state(self, users: IntArray) -> FloatArray:
        """The inner model's."""
        return self.inner.initial_state(users)

    def state_after(self, users: IntArray, items: Int32Array, feedback: Int8Array) -> FloatArray:
        """The inner model's."""
        return self.inner.state_after(users, items, feedback)

    def probabilities(self, state: FloatArray, users: IntArray, slates: Int32Array) -> FloatArray:
        """The inner model's, corrected, shape (B, K, F)."""
        balanced = self.inner.probabilities(state, users, slates)
        does: FloatArray = self.weights * balanced
        return does / (1 - balanced + does)

    def advance(self, state: FloatArray, users: IntArray, slates: Int32Array, feedback: Int8Array) -> FloatArray:
        """The inner model's."""
        return self.inner.advance(state, users, slates, feedback)

    def click_scores(self, state: FloatArray, users: IntArray) -> FloatArray:
        """The inner model's, shape (B, N): the correction hardly changes their order."""
        return self.inner.click_scores(state, users)


def misaligned(data: SessionData) -> SessionData:
    """The same data with categories joined by position instead of by id.

    LERL looks categories up by the order in which items first appear in its log; tables like its ``item_types.csv`` are
    written in the order of ids, as a later repository of its authors says, which realigns them.
    """
    items, rows = np.unique(data.log.item, return_index=True)
    shown = items[np.argsort(rows)]
    never = np.setdiff1d(np.arange(data.catalog.n_items), shown)
    category = np.empty_like(data.catalog.category)
    category[np.concatenate([shown, never])] = data.catalog.category
    category.flags.writeable = False
    return dataclasses.replace(data, catalog=dataclasses.replace(data.catalog, category=category))
