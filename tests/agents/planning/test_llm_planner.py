from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rapport.agents.llm import Budget, CachedLLM, ScriptedLLM
from rapport.agents.planning.controls import GreedyRotationPlanner, NoPlanner
from rapport.agents.planning.critic import LLMCritic
from rapport.agents.planning.llm_planner import LLMPlanner
from rapport.agents.planning.memory import SimilarSessions, preferences
from rapport.agents.planning.planner import FinishedSession, SessionViews
from rapport.agents.planning.prompts import NAMES as PROMPTS
from rapport.agents.planning.prompts import Prompt, load_prompt
from rapport.agents.planning.reflection import Reflection, ReflectionPool
from rapport.datasets.schema import SessionData

NAMES = ["Comedy", "Sport", "News", "Music", "Cooking"]
SIZES = np.full(5, 20)
RATES = np.array([0.5, 0.62, 0.114, 0.3, 0.4])
GOOD = '{"categories": ["Comedy", "Music"]}'


def views_of(n: int = 3, step: int = 0, horizon: int = 12) -> SessionViews:
    """Users 0 to n-1, whose history differs only in the oldest item."""
    categories = np.tile(np.arange(horizon) % 4, (n, 1))
    categories[:, 0] = np.arange(n) % 4
    clicks = (categories % 2).astype(np.int8)
    clicks[:, 0] = 1
    return SessionViews(np.arange(n), np.full(n, step), categories, clicks, slate_size=4)


def planner(llm: Any, **options: Any) -> LLMPlanner:
    return LLMPlanner(llm, NAMES, RATES, GreedyRotationPlanner(SIZES, np.full(5, 0.5), n=2), **options)


def test_the_plan_is_what_the_model_chose() -> None:
    llm = ScriptedLLM(lambda prompt: GOOD)
    plans = planner(llm).plan(views_of(step=1))
    np.testing.assert_array_equal(plans, [[True, False, False, True, False]] * 3)
    assert llm.meter.fallbacks == 0


def test_every_row_gets_its_own_answer_and_equal_prompts_are_asked_once() -> None:
    llm = ScriptedLLM(lambda p: '{"categories": ["News", "Sport"]}' if "Comedy 1/3" in p else GOOD)
    plans = planner(llm).plan(views_of(n=8))
    assert llm.meter.calls == 4
    np.testing.assert_array_equal(plans[:4], plans[4:])
    assert [tuple(np.flatnonzero(plan)) for plan in plans[:4]] == [(1, 2), (0, 3), (0, 3), (0, 3)]


def test_the_prompt_shows_the_session_and_what_was_before_it() -> None:
    prompts = planner(ScriptedLLM([])).prompts(views_of(n=1, step=2))
    before, session = prompts[0].split("before this session")[1].split("This session so far")
    assert "Comedy 1/1, Sport 1/1, Music 1/1, News 0/1" in before
    assert session.count("- Comedy 0/1, Sport 1/1, News 0/1, Music 1/1") == 2


def test_at_the_first_step_there_is_no_session() -> None:
    prompt = planner(ScriptedLLM([])).prompts(views_of(n=1, step=0))[0]
    assert "(none yet)" in prompt.split("This session so far")[1]
    assert "Sport 3/3, Music 3/3, Comedy 1/3, News 0/3" in prompt
    assert "nothing known" in planner(ScriptedLLM([]), taste=0).prompts(views_of(n=1))[0]


def test_the_categories_are_listed_most_clicked_first() -> None:
    prompt = planner(ScriptedLLM([])).prompts(views_of(n=1))[0]
    assert "- Sport 62\n- Comedy 50\n- Cooking 40\n- Music 30\n- News 11\n" in prompt
    with pytest.raises(ValueError, match="a click rate for each of 5 categories"):
        LLMPlanner(ScriptedLLM([]), NAMES, np.ones(4), GreedyRotationPlanner(SIZES, RATES))


def test_only_the_newest_slates_are_shown_and_a_long_session_is_no_taste() -> None:
    prompt = planner(ScriptedLLM([]), slates=2).prompts(views_of(n=1, step=9))[0]
    assert prompt.split("This session so far")[1].count("- ") == 2
    assert "nothing known" in prompt


def test_prompts_differ_only_in_their_end() -> None:
    first, second = planner(ScriptedLLM([])).prompts(views_of(n=2, step=1))
    common = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    assert common > 0.7 * len(first)


def test_reflections_are_drawn_once_for_a_group_of_sessions() -> None:
    pool = ReflectionPool()
    for word in ("alpha", "beta", "gamma", "delta", "epsilon"):
        pool.add(f"lesson {word}", 5)
    prompts = planner(ScriptedLLM([]), pool=pool, rng=np.random.default_rng(0)).prompts(views_of())
    drawn = [{line for line in prompt.splitlines() if "lesson" in line} for prompt in prompts]
    assert len(drawn[0]) == 3 and drawn[0] == drawn[1] == drawn[2]
    apart = planner(ScriptedLLM([]), pool=pool, rng=np.random.default_rng(0), group=2).prompts(views_of(n=9))
    drawn = [{line for line in prompt.splitlines() if "lesson" in line} for prompt in apart]
    assert all(drawn[row] == drawn[row + 1] for row in range(0, 8, 2))
    assert len({frozenset(lines) for lines in drawn}) > 1
    with pytest.raises(ValueError, match="rng is needed"):
        planner(ScriptedLLM([]), pool=pool)


@pytest.mark.parametrize(
    "text",
    [
        "no idea",
        "{}",
        "[]",
        "5",
        "null",
        '{"categories": "Comedy"}',
        '{"categories": ["Comedy"]}',
        '{"categories": ["Comedy", "Comedy"]}',
        '{"categories": ["Comedy", "Opera"]}',
        '{"categories": ["Comedy", ["Music"]]}',
        '{"categories": [1, 2]}',
    ],
)
def test_nonsense_ends_in_a_counted_fallback(text: str) -> None:
    llm = ScriptedLLM(lambda prompt: text)
    views = views_of(step=1)
    plans = planner(llm).plan(views)
    np.testing.assert_array_equal(plans, planner(llm)._fallback.plan(views))
    assert llm.meter.fallbacks == 3 and llm.meter.calls == 9 and llm.meter.retries == 6


def test_the_first_category_can_be_chosen_and_a_bare_list_is_understood() -> None:
    plans = planner(ScriptedLLM(['["Comedy", "Sport"]'])).plan(views_of(n=1))
    assert plans[0, 0]


def test_a_refused_answer_is_mended() -> None:
    llm = ScriptedLLM(lambda p: GOOD if "'Opera' is not in the list" in p else '{"categories": ["Opera", "Music"]}')
    assert planner(llm).plan(views_of(n=1))[0, 3]
    assert llm.meter.retries == 1 and llm.meter.fallbacks == 0


def test_failures_fall_back_row_by_row() -> None:
    llm = ScriptedLLM([GOOD, TimeoutError("late"), GOOD])
    views = views_of()
    plans = planner(llm).plan(views)
    fallback = planner(llm)._fallback.plan(views)
    np.testing.assert_array_equal(plans[1], fallback[1])
    assert plans[0, 3] and plans[2, 3] and llm.meter.fallbacks == 1 and llm.meter.failures == 1


def test_a_spent_budget_leaves_the_fallback() -> None:
    llm = ScriptedLLM(lambda prompt: GOOD, budget=Budget(calls=2))
    planner(llm).plan(views_of(n=4))
    assert (llm.meter.calls, llm.meter.fallbacks) == (2, 2)


def test_a_cache_serves_the_second_planner(tmp_path: Path) -> None:
    plans = []
    for _ in range(2):
        llm = CachedLLM(ScriptedLLM(lambda prompt: GOOD), tmp_path / "cache.sqlite")
        plans.append(planner(llm).plan(views_of()))
    np.testing.assert_array_equal(*plans)
    assert llm.meter.calls == 0 and llm.meter.cache_hits == 3


def test_an_empty_batch_asks_nothing() -> None:
    llm = ScriptedLLM([])
    assert planner(llm).plan(views_of(n=0)).shape == (0, 5) and llm.meter.calls == 0


def test_names_must_tell_categories_apart() -> None:
    fallback = GreedyRotationPlanner([1, 1], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"category_names\[0\] and \[1\] are both 'a b'"):
        LLMPlanner(ScriptedLLM([]), ["a b", "a  b"], np.full(2, 0.5), fallback)
    with pytest.raises(ValueError, match=r"category_names\[1\] is blank"):
        LLMPlanner(ScriptedLLM([]), ["a", " "], np.full(2, 0.5), fallback)


def test_a_single_category_can_be_planned() -> None:
    only = LLMPlanner(
        ScriptedLLM(['{"categories": ["all"]}']), ["all"], np.array([0.5]), GreedyRotationPlanner([9], [0.5])
    )
    nothing = np.full((1, 0), -1)
    assert only.plan(SessionViews(np.array([0]), np.array([0]), nothing, nothing.astype(np.int8), 6)).all()


def session_of(user: int, clicks: int) -> FinishedSession:
    bits = np.zeros((3, 4), dtype=np.int8)
    bits.flat[:clicks] = 1
    return FinishedSession(user, np.arange(12).reshape(3, 4) % 5, bits)


def test_the_critic_keeps_each_reflection_with_its_own_score() -> None:
    long = " ".join(f"word{n}" for n in range(30))
    llm = ScriptedLLM([json.dumps({"reflection": text}) for text in ("rest Comedy", long)])
    pool = ReflectionPool()
    LLMCritic(llm, pool, NAMES).reflect([session_of(4, 7), session_of(9, 2)])
    first, second = pool.entries()
    assert first == Reflection("rest Comedy", 7, 4)
    assert len(second.text.split()) == 20 and (second.score, second.user) == (2, 9)
    assert "3 slates with 12 items and 7 clicks" in llm.prompts[0]
    assert "- Comedy 1/1, Sport 1/1, News 1/1, Music 1/1" in llm.prompts[0]


def test_the_critic_looks_back_on_one_in_so_many() -> None:
    llm = ScriptedLLM(lambda prompt: '{"reflection": "rest Comedy ' + str(len(llm.prompts)) + '"}')
    pool = ReflectionPool()
    critic = LLMCritic(llm, pool, NAMES, every=3)
    for first in (0, 2, 3, 7):
        critic.reflect([session_of(user, user) for user in range(first, {0: 2, 2: 3, 3: 7, 7: 8}[first])])
    assert [entry.user for entry in pool.entries()] == [0, 3, 6]
    with pytest.raises(ValueError, match="every, the sessions of which one is reflected on, must be at least 1"):
        LLMCritic(llm, pool, NAMES, every=0)


@pytest.mark.parametrize("text", ["nonsense", '{"reflection": " ... "}', '{"reflection": 3}', "{}"])
def test_the_critic_keeps_no_nonsense(text: str) -> None:
    critic = LLMCritic(ScriptedLLM(lambda prompt: text), pool := ReflectionPool(), NAMES)
    critic.reflect([session_of(0, 1)])
    assert len(pool) == 0 and critic.skipped == 1


def test_prompts_name_their_variables() -> None:
    for name in PROMPTS:
        prompt = load_prompt(name)
        assert len(prompt.version) == 12 and prompt.variables
        prompt.fill(**dict.fromkeys(prompt.variables, "x"))
    with pytest.raises(ValueError, match="no prompt named 'plot'"):
        load_prompt("plot")
    with pytest.raises(ValueError, match=r"must have the variables .*; unknown: \$oops"):
        planner(ScriptedLLM([]), prompt=Prompt("plan", "$oops"))
    with pytest.raises(ValueError, match=r"'reflect' must have the variables .*; missing: \$clicks, .*; unknown: none"):
        LLMCritic(ScriptedLLM([]), ReflectionPool(), NAMES, prompt=Prompt("reflect", "$words"))


def test_a_users_own_prompt_is_what_the_model_reads(tmp_path: Path) -> None:
    text = load_prompt("plan").text
    (tmp_path / "mine.txt").write_text("My own words.\n" + text, "utf-8")
    mine, theirs = (
        planner(ScriptedLLM([]), prompt=prompt).prompts(views_of())
        for prompt in (Prompt.from_file(tmp_path / "mine.txt"), None)
    )
    assert mine == ["My own words.\n" + prompt for prompt in theirs]


def test_the_whole_loop_on_a_real_gguf(tiny_gguf: Path) -> None:
    from rapport.agents.llm.gguf.backend import LlamaCppLLM

    llm = LlamaCppLLM(tiny_gguf, n_threads=1)
    pool = ReflectionPool()
    LLMCritic(llm, pool, NAMES).reflect([session_of(n, n) for n in range(6)])
    assert len(pool) > 0
    views = views_of(n=8, step=2)

    def plans() -> Any:  # weights drawn at random may repeat a name: then all categories are allowed
        return LLMPlanner(llm, NAMES, RATES, NoPlanner(SIZES), pool, np.random.default_rng(3)).plan(views)

    first = plans()
    np.testing.assert_array_equal(first, plans())
    assert np.all(first.sum(1) >= 2) and llm.meter.fallbacks < 16


def test_a_server_that_goes_in_mid_run_leaves_the_fallback(
    serve: Callable[..., Any], answer: Callable[..., Any]
) -> None:
    pytest.importorskip("openai")
    from rapport.agents.llm.openai_api import OpenAILLM

    server = serve(lambda request: answer(GOOD))
    llm = OpenAILLM(server.url, "m", timeout=1, retries=0, parallel=2)
    used = planner(llm)
    assert used.plan(views_of(n=4))[:, 3].all() and llm.meter.fallbacks == 0
    server.stop()
    views = views_of(n=4, step=1)
    for _ in range(50):
        np.testing.assert_array_equal(used.plan(views), used._fallback.plan(views))
    assert llm.meter.fallbacks == 200


@pytest.mark.parametrize("reply", [(500, {}), (200, b"<html>"), (401, {}), (200, {"choices": []})])
def test_any_server_trouble_ends_in_a_counted_fallback(serve: Callable[..., Any], reply: tuple[int, Any]) -> None:
    pytest.importorskip("openai")
    from rapport.agents.llm.openai_api import OpenAILLM

    llm = OpenAILLM(serve(lambda request: reply).url, "m", timeout=1, retries=0)
    assert planner(llm).plan(views_of(n=4)).any(axis=1).all()
    assert llm.meter.fallbacks == 4


def test_similar_sessions_are_recalled(small_data: SessionData) -> None:
    preference = preferences(small_data)
    users = np.flatnonzero(np.abs(preference).sum(axis=1) > 0)[:12]
    pool = ReflectionPool()
    for user in users:
        pool.add(f"about user {user}", 3.0, int(user))
    recalled = SimilarSessions(pool, small_data, n=2).recall(users)
    for user, texts in zip(users, recalled, strict=True):
        likeness = {other: float(preference[user] @ preference[other]) for other in users}
        wanted = sorted(likeness.values(), reverse=True)[:2]
        assert texts[0] == f"about user {user}"
        assert [likeness[int(text.split()[-1])] for text in texts] == pytest.approx(wanted)


def test_without_reflections_nothing_is_recalled(small_data: SessionData) -> None:
    assert SimilarSessions(ReflectionPool(), small_data).recall(np.arange(3)) == [[], [], []]


def test_preferences_are_clicks_beyond_what_is_expected(small_data: SessionData) -> None:
    log, category = small_data.log, small_data.catalog.category
    shape = (small_data.population.n_users, small_data.catalog.n_categories)
    seen, clicked = np.zeros(shape), np.zeros(shape)
    for user, item, time, click in zip(log.user, log.item, log.time_ms, log.feedback[:, 0], strict=True):
        if time < small_data.test_from_ms and click >= 0:
            seen[user, category[item]] += 1
            clicked[user, category[item]] += click
    beyond = clicked - seen * clicked.sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    lengths = np.linalg.norm(beyond, axis=1)
    np.testing.assert_allclose(preferences(small_data) * lengths[:, None], beyond, atol=1e-9)
