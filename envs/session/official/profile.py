"""LERL's released environment (arXiv 2601.19585) rule for rule, its faults each behind a switch.

The profile ``official`` of ``rapport/KuaiRand-v0``: the response model is a transformer, similarity within a slate
lowers probabilities by 0.2 times its correlation, histories have 100 items, the quit rule is ``positional`` with a
budget of 20 and slates of 6, and an ended session is replaced within the step. :data:`FAULTS` lists the released code's
deviations from this; without them it is the environment that its authors describe.

These faults are not switched here, because they are not the environment's:

- the agent's: excluded items that outrank allowed ones, the critic given the next user's log, scores shared by three
  users, prompts that count the steps of the user before, category 0 out of reach, retries without end, dropout in the
  policy, a frozen encoder;
- the evaluation's: training rollouts of one seed, no held-out users. The argument ``users`` says whose sessions are
  simulated; LERL's are those of all users (``"all"``);
- the quit rule's: reordering a slate avoids the cost of ``positional`` (``set_overlap`` is the stricter rule);
  ``window_size``, ``temper_discount`` and ``empty_history`` are read and never used;
- those without effect: the limit of 20 slates is never enforced, but a budget of 20 lasts no longer; there is no limit
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
    "balanced_prior": "each behaviour is as frequent as its absence, because the loss gives both the same weight",
    "dropout": "a tenth of the response model is dropped out at random, because it is never put in evaluation mode",
    "log_row_start": "sessions begin at a random row of the log, so that users with more rows come more often",
    "lost_endings": "the last observation of a session is the first of the next one in its slot",
    "scrambled_history": "the response model reads F rows of L behaviours as L rows of F: time and behaviour are mixed",
    "shrunken_penalty": "similarity is a mean over 64 dimensions instead of a sum, so that the penalty is negligible",
    "trained_on_everything": "no days are held out: response model and initial histories use all rows",
}
"""Faults of the released code; ``"all"`` selects all of them."""

SUSPECTED = {
    "misaligned_categories": "item i's category is given to the i-th item to appear in the log",
}
"""Faults that are likely but not proven; they must be selected by name."""

RHO = 0.2
"""Weight of the similarity penalty."""
HISTORY = 100
"""Items of a history, for the observation and for the response model."""


def chosen_faults(faults: str | Sequence[str] | None, profile: str) -> frozenset[str]:
    """Names of the faults that are switched on.

    Args:
        faults: ``"all"``, ``"none"``, names in :data:`FAULTS` and :data:`SUSPECTED`, or None: all under the official
            profile, none under the corrected one.
        profile: of the environment.

    Raises:
        ValueError: there is no such profile or fault, or faults are given with the corrected profile.
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


def official_response(data: SessionData, fitted: HistoryResponse, faults: frozenset[str]) -> ReadsHistories:
    """The profile's response model: a fitted model, with its prior corrected unless that is a fault, and the penalty.

    Args:
        data: the data that the model was fitted to.
        fitted: a model with :func:`official_settings`, its dropout on with that fault.
        faults: those that are switched on.
    """
    inner: ReadsHistories = fitted
    if "balanced_prior" not in faults:
        rows = predicted_rows(data, all_days="trained_on_everything" in faults)
        inner = PlainPrior(fitted, balanced_weights(data.log.feedback[rows])[1].numpy())
    return SimilarityPenalty(inner, fitted.encodings(), RHO, divide_by_width="shrunken_penalty" in faults)


class PlainPrior:
    """Another response model's probabilities, corrected from the class-balanced prior of its fit to the log's rates.

    If negatives have weight w = #positives / #negatives in the loss, the fitted odds are 1 / w times too high (Elkan,
    *The foundations of cost-sensitive learning*, IJCAI 2001, theorem 2): p = w q / (1 - q + w q).

    Args:
        inner: the other response model, with probabilities q; it keeps the states.
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
        weighted: FloatArray = self.weights * balanced
        return weighted / (1 - balanced + weighted)

    def advance(self, state: FloatArray, users: IntArray, slates: Int32Array, feedback: Int8Array) -> FloatArray:
        """The inner model's."""
        return self.inner.advance(state, users, slates, feedback)

    def click_scores(self, state: FloatArray, users: IntArray) -> FloatArray:
        """The inner model's, shape (B, N): the correction hardly changes their order."""
        return self.inner.click_scores(state, users)


def misaligned(data: SessionData) -> SessionData:
    """The same data with categories joined by position instead of by id.

    LERL looks categories up by the order in which items first appear in its log. Tables like its ``item_types.csv`` are
    in the order of ids, according to a later repository of its authors, which realigns them.
    """
    items, rows = np.unique(data.log.item, return_index=True)
    shown = items[np.argsort(rows)]
    never = np.setdiff1d(np.arange(data.catalog.n_items), shown)
    labels = np.empty_like(data.catalog.labels)
    labels[np.concatenate([shown, never])] = data.catalog.labels
    labels.flags.writeable = False
    further = None if data.catalog.further is None else labels[:, 1:]
    catalog = dataclasses.replace(data.catalog, category=labels[:, 0], further=further)
    return dataclasses.replace(data, catalog=catalog)
