"""What the language model cost, row by row: per seed, and per 1,000 slates so that runs of different size compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

COST_COLUMNS = (
    ("LLM of", "per seed"),
    ("calls", "sent"),
    ("read", "tokens"),
    ("written", "tokens"),
    ("hits", "cache"),
    ("retries", "sent"),
    ("failed", "sent"),
    ("fallback", "plans"),
    ("waited", "time"),
)
"""Name and unit of each column of the cost table, which fits 80 columns."""
NO_MODEL = "none"
PER_SLATES = "per 1 k slates"
_COUNTS = ("calls", "prompt_tokens", "completion_tokens", "cache_hits", "retries", "failures", "fallbacks")


def had_model(meter: Mapping[str, float] | None) -> bool:
    """Whether a language model was wanted for anything."""
    return meter is not None and any(meter.get(name, 0) for name in ("decisions", *_COUNTS))


def cost_rows(label: str, meter: Mapping[str, float] | None, slates: float) -> list[tuple[str, ...]]:
    """The lines of one method in the cost table: two where a language model planned, else one that says "none".

    Args:
        label: name shown.
        meter: what the model cost (:class:`rapport.agents.llm.base.interface.Meter`), mean over seeds.
        slates: slates served in training and evaluation, mean over seeds.
    """
    if not meter or not had_model(meter):
        return [(label, *(NO_MODEL for _ in COST_COLUMNS[1:]))]
    share = {name: 1_000 * meter.get(name, 0) / slates for name in (*_COUNTS, "seconds")}
    return [
        (label, *(count(meter.get(name, 0)) for name in _COUNTS), duration(meter.get("seconds", 0))),
        (PER_SLATES, *(count(share[name]) for name in _COUNTS), duration(share["seconds"])),
    ]


def planned_by(label: str, meter: Mapping[str, float] | None) -> list[str]:
    """Who made the plans of one method, as a line for the footer; none where no language model was wanted for any."""
    wanted = 0.0 if meter is None else meter.get("decisions", 0)
    if meter is None or not wanted:
        return []
    fallbacks = meter.get("fallbacks", 0)
    made, share = wanted - fallbacks, 100 * (1 - fallbacks / wanted)
    return [
        f"{label}: per seed the language model made {made:,.0f} plans ({share:.0f} %), the fallback {fallbacks:,.0f}"
    ]


def mean_meter(meters: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each count's mean; one that a meter lacks is 0 there."""
    names = dict.fromkeys(name for meter in meters for name in meter)
    return {name: sum(meter.get(name, 0.0) for meter in meters) / len(meters) for name in names}


def count(value: float) -> str:
    """A count in at most five characters: ``0.032``, ``4.7``, ``9,876``, ``12 k``, ``1.2 M``."""
    if value < 0.95:
        return f"{value:.2g}"
    if value < 9_999.5:
        return f"{value:,.0f}" if value >= 99.5 or value == round(value) else f"{value:.1f}"
    scale, unit = next((s, u) for s, u in ((1e3, "k"), (1e6, "M"), (1e9, "G")) if value < 999.5 * s or u == "G")
    return f"{value / scale:.0f} {unit}" if value >= 9.95 * scale else f"{value / scale:.1f} {unit}"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 99.5 else f"{minutes / 60:.1f} h"
