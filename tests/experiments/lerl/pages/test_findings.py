"""Findings follow from results: whose gain it is, and which aims are reached."""

from __future__ import annotations

import numpy as np
import pytest

from rapport.experiments.lerl.pages import findings
from rapport.experiments.lerl.rows import DEFINITIONS
from rapport.experiments.results.store import Result


def result(name: str, seed: int, r_cum: float, spread: float = 0.1) -> Result:
    rng = np.random.default_rng(seed)
    arrays = {"length": np.full(200, 20), "return": r_cum + spread * rng.normal(size=200)}
    return Result(name, DEFINITIONS[name].label, seed, arrays, ids=np.arange(200))


def results(**r_cum: float) -> dict[str, list[Result]]:
    names = {m: m.replace("_", "-") for m in r_cum}
    return {names[m]: [result(names[m], s, v) for s in range(5)] for m, v in r_cum.items()}


def test_rows_that_are_compared_are_there() -> None:
    pairs = [name for _, *names in (*findings.LADDER, *findings.BESIDE) for name in names]
    assert {*pairs, *findings.SIMPLE, *findings.OURS, findings.MASKED} <= set(DEFINITIONS)
    assert all(DEFINITIONS[name].has_model for name in findings.OURS)
    assert not any(DEFINITIONS[name].has_model for name in findings.SIMPLE)


def test_a_control_that_wins_is_the_headline() -> None:
    assert findings.headline(results(lerl=14.0, mask=13.0, mmr=14.5)).startswith(
        "A control beats LERL: greedy, re-ranked by MMR, by +0.50"
    )
    assert findings.headline(results(lerl=14.0, mask=14.2, mask_click=15.0, mmr=14.5)) == (
        "A control beats LERL: no-repeat mask (no planner), PPO, by +0.20 [+0.20, +0.20] in R_cum; most of all "
        "no-repeat mask, online CTR model, by +1.00 [+1.00, +1.00]."
    )
    assert findings.headline(results(lerl=14.0, mask=13.0, rotation=14.0)).startswith(
        "A control does as well as LERL: rotation planner, PPO trained under it cannot be told apart"
    )
    assert findings.headline(results(lerl=14.0, mask=13.0, rotation=12.0)).startswith(
        "LERL beats every control; the nearest is no-repeat mask (no planner), PPO, 1.00"
    )
    assert findings.headline(results(ppo=3.0)) == "LERL was not run."
    assert findings.headline(results(lerl=14.0, ppo=9.0)) == "LERL was run without its controls."


def test_the_ladders_parts_add_up() -> None:
    found = results(ppo=9.0, mask=13.0, top_k=14.0, no_reflection=14.5, lerl=14.4, rotation=12.0)
    ladder = findings.parts(found, findings.LADDER)
    assert [round(part.added.point, 2) for part in ladder if part.added] == [4.0, 1.0, 0.5, -0.1]
    assert sum(part.share for part in ladder if part.share) == pytest.approx(1.0)
    beside = {part.what: part for part in findings.parts(found, findings.BESIDE)}
    assert beside["rotating categories alone"].share == pytest.approx(3.0 / 5.4)
    assert beside["what LERL has beyond random plans"].added is None
    assert "gives 56% of LERL's gain" in findings.rotation_line(found)
    line = findings.ladder_line(found)
    assert (
        "the no-repeat mask (one-slate cooldown) +4.00 (74%), the hierarchy" in line
        and "reflections -0.10 (-2%)" in line
    )
    worse = findings.ladder_line(results(ppo=9.0, mask=9.5, top_k=9.0, no_reflection=8.5, lerl=8.5))
    assert "the no-repeat mask (one-slate cooldown) +0.50, the hierarchy" in worse and "%" not in worse
    assert findings.ladder_line(results(ppo=9.0, lerl=10.0)).startswith("Whose LERL's gain is: not known")


def test_aims_say_what_is_reached() -> None:
    lines = findings.aims(results(lerl=12.5, ppo=10.0, a2c=7.0, popularity=8.0, look_ahead=13.0))
    assert ": reached; LERL is +25.0% above PPO, no planner (12.50 against 10.00)" in lines[0]
    assert ": reached; LERL has 96.2% of 13.00" in lines[1]
    assert "not reached; below are A2C" in lines[2]
    lines = findings.aims(results(lerl=12.0, masked_ppo=11.5, ppo=10.0))
    assert "not reached; LERL is +4.3% above masked PPO" in lines[0]
    assert (
        "above PPO, no planner, the best of those that may show the last category again (10.00), LERL is +20.0%."
        in lines[0]
    )
    lines = findings.aims(results(lerl=12.0, masked_ppo=11.5, look_ahead=13.0))
    assert "(12.00 against 11.50), a look-ahead that reads the simulator +13.0%." in lines[0]
    lines = findings.aims(results(lerl=11.0, ppo=10.0, mask_click=11.8, mask=10.5, look_ahead=12.0))
    assert "10.00), without a language model no-repeat mask, online CTR model +18.0%" in lines[0]
    assert lines[1].endswith("; without a language model no-repeat mask, online CTR model has 98.3%.")
    lines = findings.aims(results(lerl=11.0, ppo=10.0, popularity=8.0, look_ahead=12.5))
    assert "not reached; LERL is +10.0%" in lines[0] and "not reached; LERL has 88.0%" in lines[1]
    assert ": reached; all of them are" in lines[2]
    assert findings.aims(results(ppo=10.0)) == ["Aims: LERL was not run."]
