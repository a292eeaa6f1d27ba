"""Teaching, writing and improving: interrupted or not the same, as llama.cpp writes, and towards what is rewarded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from rapport.agents.lm.example import Lesson, split_prompts
from rapport.agents.lm.generate import TorchPlanner, plans_of, write
from rapport.agents.lm.model import Llama, LlamaConfig
from rapport.agents.lm.sft import Rows, Teacher, Teaching, losses, pace, rows_of
from rapport.agents.lm.tokenizer import Tokenizer, learn_tokenizer
from rapport.agents.planning.controls import GreedyPreferencePlanner
from rapport.agents.planning.lm import policy_gradient as improving
from rapport.agents.planning.lm.examples import (
    SPELLING,
    Curriculum,
    invented_plans,
    lesson_texts,
    plan_answer,
    prompting_planner,
)
from rapport.agents.planning.lm.policy_gradient import Improving, PlannerLearner, Round
from rapport.agents.planning.planner import BoolArray, SessionViews
from rapport.datasets.schema import SessionData
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.response.base import MatrixResponse

NAMES = ["Comedy", "Sport", "News", "Music"]
RATES = np.array([0.5, 0.4, 0.3, 0.2])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    pytest.importorskip("sentencepiece")
    curriculum = Curriculum([], 0)
    return learn_tokenizer(
        lesson_texts([lesson for step in range(SPELLING, SPELLING + 4) for lesson in curriculum(step)]), 600
    )


def new_model(tokenizer: Tokenizer, seed: int = 0) -> Llama:
    return Llama(LlamaConfig(tokenizer.n_vocab, 32, 2, 2, 64), torch.Generator().manual_seed(seed))


def small(step: int) -> list[Lesson]:
    curriculum = Curriculum([], 1)
    return [Lesson(lesson.start, lesson.rests[:2], lesson.answers[:2]) for lesson in curriculum(step)[:2]]


def test_losses_are_those_of_the_whole_texts_read_one_by_one(tokenizer: Tokenizer) -> None:
    model, lesson = new_model(tokenizer), invented_plans(np.random.default_rng(2), 5)
    answer, prompt = losses(model, [rows_of(lesson, tokenizer)])
    sums: dict[str, list[float]] = {"answer": [], "prompt": []}
    for row, (rest, text) in enumerate(zip(lesson.rests, lesson.answers, strict=True)):
        start = [tokenizer.bos, *tokenizer.encode(lesson.start)]
        rests, answers = tokenizer.encode(rest), [*tokenizer.encode(text), tokenizer.eos]
        tokens = torch.tensor([*start, *rests, *answers])
        chances = model(tokens[None])[0, :-1].log_softmax(dim=1)
        each = -chances[torch.arange(len(tokens) - 1), tokens[1:]].detach()
        sums["answer"] += each[-len(answers) :].tolist()
        if row % 4 == 0:
            sums["prompt"] += each[len(start) : len(start) + len(rests) - 1].tolist()
    assert float(answer.detach()) == pytest.approx(np.mean(sums["answer"]), rel=1e-4)
    assert float(prompt.detach()) == pytest.approx(np.mean(sums["prompt"]), rel=1e-4)


def test_teaching_makes_answers_likelier_and_can_be_interrupted(tokenizer: Tokenizer, tmp_path: Path) -> None:
    settings = Teaching(steps=6, warm_up=2, learning_rate=1e-2)
    seen: list[float] = []
    whole = Teacher(new_model(tokenizer), tokenizer, small, settings)
    whole.teach(lambda step, loss: seen.append(loss))
    assert seen[-1] < seen[0]

    class Stop(Exception):
        pass

    def stop(step: int, loss: float) -> None:
        if step == 3:
            first.save(tmp_path / "state.pt")
            raise Stop

    first = Teacher(new_model(tokenizer), tokenizer, small, settings)
    with pytest.raises(Stop):
        first.teach(stop)
    second = Teacher(new_model(tokenizer, seed=9), tokenizer, small, settings)
    second.resume(tmp_path / "state.pt")
    second.teach()
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 half a file"])
def test_a_damaged_state_is_refused(tokenizer: Tokenizer, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"(?s)state\.pt cannot be gone on from .*: delete it to begin anew"):
        Teacher(new_model(tokenizer), tokenizer, small, Teaching()).resume(path)


def test_the_learning_rate_rises_and_falls() -> None:
    settings = Teaching(steps=100, warm_up=10)
    assert pace(0, settings) == 0.1 and pace(9, settings) == pace(10, settings) == 1
    assert pace(100, settings) == pytest.approx(0.05)
    assert all(pace(step, settings) > pace(step + 1, settings) for step in range(10, 99))


def test_what_is_written_is_the_likeliest_continuation(tokenizer: Tokenizer) -> None:
    model = new_model(tokenizer)
    lesson = small(0)[0]
    prefix = model.read(torch.tensor([tokenizer.bos, *tokenizer.encode(lesson.start)]))
    got = write(model, tokenizer, prefix, lesson.rests, temperature=0, generator=torch.Generator(), longest=5)
    for rest, tokens in zip(lesson.rests, got.tokens, strict=True):
        text = [tokenizer.bos, *tokenizer.encode(lesson.start), *tokenizer.encode(rest)]
        for token in tokens:
            assert int(model(torch.tensor([text]))[0, -1].argmax()) == token
            text.append(token)


def test_writing_is_drawn_from_the_generator_alone(tokenizer: Tokenizer) -> None:
    model, lesson = new_model(tokenizer), small(0)[0]
    prefix = model.read(torch.tensor([tokenizer.bos]))

    def drawn(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return write(model, tokenizer, prefix, lesson.rests, temperature=1, generator=generator, longest=8).tokens

    assert drawn(1) == drawn(1) != drawn(2)


def views_of(n: int) -> SessionViews:
    nothing = np.full((n, 12), -1)
    return SessionViews(np.arange(n), np.zeros(n, np.int64), nothing, nothing.astype(np.int8), 4)


def test_answers_become_plans_and_useless_ones_the_fallback() -> None:
    planner = prompting_planner(NAMES, RATES)
    fallback = GreedyPreferencePlanner(np.full(4, 9), RATES, n=1)
    texts = [
        '{"categories": ["News", "Music"]}',
        "no",
        '{"categories": ["Opera"]}',
        '{"categories": ["Sport", "News"]}',
    ]
    plans, usable = plans_of(texts, planner, fallback, views_of(2))
    np.testing.assert_array_equal(usable, [[True, False], [False, True]])
    np.testing.assert_array_equal(plans[0], [[False, False, True, True], [True, False, False, False]])
    np.testing.assert_array_equal(plans[1], [[True, False, False, False], [False, True, True, False]])


def test_an_untaught_model_falls_back_and_says_so(tokenizer: Tokenizer) -> None:
    fallback = GreedyPreferencePlanner(np.full(4, 9), RATES, n=2)
    planner = TorchPlanner(new_model(tokenizer), tokenizer, prompting_planner(NAMES, RATES), fallback)
    np.testing.assert_array_equal(planner.plan(views_of(3)), [[True, True, False, False]] * 3)
    assert planner.unusable == 3


class _Serves:
    """A low level that is never asked."""

    slate_size, sizes = 6, np.ones(4)


def test_the_planner_learns_what_is_rewarded(
    tokenizer: Tokenizer,
    small_data: SessionData,
    matrix_response: MatrixResponse,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model taught to name one of two pairs of categories names more and more the pair that is worth something."""
    core = kuairand_core(4, data=small_data, response=matrix_response, users="train")
    env = SessionVectorEnv(core, AutoresetMode.SAME_STEP)
    planner = prompting_planner(NAMES, RATES)
    start, rests = split_prompts(planner.prompts(views_of(4)))
    lesson = Lesson(start, rests, [plan_answer([0, 1], NAMES, RATES), plan_answer([2, 3], NAMES, RATES)] * 2)
    model = new_model(tokenizer)
    Teacher(model, tokenizer, lambda step: [lesson], Teaching(steps=100, warm_up=5, learning_rate=1e-2)).teach()

    def worth(core: Any, low_level: Any, plans: BoolArray, horizon: int) -> Any:
        return plans[:, 2].astype(float)

    monkeypatch.setattr(improving, "plan_values", worth)
    monkeypatch.setattr(improving, "session_views", lambda *_: views_of(4))
    monkeypatch.setattr(PlannerLearner, "_play_on", lambda self, env, slates: None)
    fallback = GreedyPreferencePlanner(np.full(4, 9), RATES, n=2)
    how = Improving(rounds=15, users=4, plans=4, learning_rate=1e-3)
    seen: list[Round] = []
    learner = PlannerLearner(model, tokenizer, planner, fallback, _Serves(), how, 0)  # type: ignore[arg-type]
    learner.learn(env, lambda number, one: seen.append(one))
    values = [one.value for one in seen]
    assert np.mean(values[-4:]) > np.mean(values[:2]) + 0.2
    assert seen[0].kl == pytest.approx(0, abs=1e-6) and seen[-1].kl > 0


def test_llama_cpp_writes_what_torch_writes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The same likeliest answer from the same prompt, through the file and the real backend."""
    pytest.importorskip("llama_cpp")
    from rapport.agents.llm import Sampling
    from rapport.agents.llm.gguf.backend import LlamaCppLLM
    from rapport.agents.lm.gguf import write_gguf

    model, lesson = new_model(tokenizer), small(0)[0]
    Teacher(model, tokenizer, small, Teaching(steps=5, warm_up=2)).teach()
    path = write_gguf(tmp_path / "m.gguf", model, tokenizer, name="m", precision="F32")
    llm = LlamaCppLLM(path, sampling=Sampling(temperature=0), n_ctx=1024)
    prefix = model.read(torch.tensor([tokenizer.bos, *tokenizer.encode(lesson.start)]))
    ours = write(model, tokenizer, prefix, lesson.rests, temperature=0, generator=torch.Generator(), longest=12)
    theirs = llm.complete([lesson.start + rest for rest in lesson.rests], None, 12)
    assert [answer.text for answer in theirs] == ours.texts


def test_rows_mark_what_is_asked_for(tokenizer: Tokenizer) -> None:
    rows: Rows = rows_of(Lesson("a\n", ["b c\n", "d\n"], ["{}", "{}"]), tokenizer)
    assert not (rows.answers & rows.prompts).any()
    assert rows.answers.sum(dim=1).unique().numel() == 1
    assert (rows.tokens[rows.answers] == tokenizer.eos).sum() == 2
