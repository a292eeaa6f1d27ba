"""What rows are called once they were run: after their language model where it planned, else after its fallback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rapport.experiments.core import Row
from rapport.experiments.lerl.config import LLM_PLANNERS, PlannerConfig, model_label
from rapport.experiments.lerl.rows import FALLBACK
from rapport.experiments.results.plan_share import PlanShare, plan_share, training_share
from rapport.experiments.results.store import Result
from rapport.experiments.results.summary import Found

_BEGINNINGS = ("LERL", "LLM")
"""How labels of rows begin that a language model plans."""
_POLICY = "LERL's policy"
"""How labels name what LERL's training has made."""


def model_of(row: Row) -> str | None:
    """The language model that plans for a row, as tables name it; None where none does."""
    planner: PlannerConfig | None = row.planner
    if planner is None or planner.llm is None or planner.name not in LLM_PLANNERS:
        return None
    return model_label(planner.llm)


def in_place_of(model: str, share: PlanShare) -> str:
    """How a fallback is named, e.g. ``"top-k preference planner in place of LLM m.gguf (answered 72 % of 158)"``."""
    return f"{FALLBACK} in place of {model} ({share.answered})"


def share_of(row: Row, found: Found) -> PlanShare | None:
    """The share of a row's plans that its language model made; None where none plans or nothing was run."""
    if model_of(row) is None:
        return None
    trained = None if row.trained_as is None else found.get(row.trained_as, ())
    return plan_share(found.get(row.name, ()), trained)


def true_label(row: Row, by_name: Mapping[str, Row], found: Found) -> str:
    """What a row is called, given who made the plans of the row and of whose policy it plays."""
    model, share = model_of(row), share_of(row, found)
    if model is not None and share is not None:
        if share.by_model:
            return f"{row.label} ({share.fallback})" if share.fallback else row.label
        return in_place_of(model, share) + _variant(row.label)
    trained = by_name.get(row.trained_as or "")
    if trained is not None and model_of(trained) is not None:
        taught = training_share(found.get(trained.name, ()))
        if taught is not None and not taught.by_model:
            part = "in part " if taught.high > 0 else ""
            return row.label.replace(_POLICY, f"the policy trained {part}under the {FALLBACK}")
    return row.label


def true_labels(rows: Sequence[Row], found: Found) -> dict[str, str]:
    """Row's name -> what it is called, in the order of the rows; a row that was not run keeps its label."""
    by_name = {row.name: row for row in rows}
    return {row.name: true_label(row, by_name, found) for row in rows}


def relabelled(rows: Sequence[Row], found: Found) -> dict[str, list[Result]]:
    """The results under the names that are true of them."""
    labels = true_labels(rows, found)
    return {name: [replace(result, label=labels[name]) for result in group] for name, group in found.items()}


def not_by_model(rows: Sequence[Row], found: Found) -> list[Row]:
    """The rows that were run and whose language model made too few of the plans for them to be named after it."""
    shares = ((row, share_of(row, found)) for row in rows)
    return [row for row, share in shares if share is not None and not share.by_model]


def named_rightly(rows: Sequence[Row], found: Found) -> dict[str, list[Result]]:
    """The results of rows that are what their definition says: of these alone is anything said of LERL."""
    labels = true_labels(rows, found)
    wrong = {row.name for row in not_by_model(rows, found)}
    wrong |= {row.name for row in rows if row.trained_as is not None and labels[row.name] != row.label}
    return {name: list(group) for name, group in found.items() if name not in wrong}


def shortfall_lines(rows: Sequence[Row], found: Found) -> list[str]:
    """Why rows are named after the fallback and what to change, a sentence each; none where every model planned.

    The first names the rows; the page begins with it.
    """
    short = [row for row in not_by_model(rows, found) if "." not in row.name]  # without studies of other rows
    if not short:
        return []
    shares = [share for row in short if (share := share_of(row, found)) is not None]
    whole = PlanShare(sum(s.wanted for s in shares), min(s.low for s in shares), max(s.high for s in shares))
    models = " and ".join(dict.fromkeys(model for row in short if (model := model_of(row)) is not None))
    names = "; ".join(row.label for row in short)
    notes = dict.fromkeys(note for row in short for result in found[row.name] for note in result.notes)
    why = "; ".join(notes) or "the results do not say why; they are of an earlier version"
    return [
        f"Not measured: {names}. {models} {whole.answered} plans and the {FALLBACK} made the others: it gives "
        "its name to what was measured, and nothing is said of the model.",
        f"Why: {why}.",
        f"What to change: {_remedy(why)} Then run again with another --out: finished rows are kept as they are.",
    ]


def _remedy(why: str) -> str:
    if "the budget of" in why:
        return "give a higher limit of calls, tokens or seconds, or none."
    return "correct what the model or the server says, or name another model with --llm."


def _variant(label: str) -> str:
    """What follows the name of a row that a language model plans, e.g. ``", online CTR model"``."""
    for beginning in _BEGINNINGS:
        if label.startswith(beginning):
            return label.removeprefix(beginning)
    return f", {label}"
