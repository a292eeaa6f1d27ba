"""Training, generation and fine-tuning: the same when interrupted, equal to llama.cpp, and towards higher reward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from rapport.agents.lm.example import Example, split_prompts
from rapport.agents.lm.generate import generate
from rapport.agents.lm.model import Llama, LlamaConfig
from rapport.agents.lm.sft import SFTConfig, SFTTrainer, TokenBatch, learning_rate_factor, losses, tokenize
from rapport.agents.lm.tokenizer import Tokenizer, learn_tokenizer
from rapport.agents.planning.controls import GreedyPreferencePlanner
from rapport.agents.planning.lm import policy_gradient
from rapport.agents.planning.lm.curriculum import COPYING_STEPS, Curriculum, example_texts
from rapport.agents.planning.lm.examples import plan_completion, prompt_planner
from rapport.agents.planning.lm.policy_gradient import PolicyGradientConfig, PolicyGradientTrainer, Update
from rapport.agents.planning.lm.synthetic_examples import synthetic_plans
from rapport.agents.planning.lm.torch_planner import TorchPlanner, parse_plans
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
        example_texts([example for step in range(COPYING_STEPS, COPYING_STEPS + 4) for example in curriculum(step)]),
        600,
    )


def new_model(tokenizer: Tokenizer, seed: int = 0) -> Llama:
    return Llama(LlamaConfig(tokenizer.n_vocab, 32, 2, 2, 64), torch.Generator().manual_seed(seed))


def small(step: int) -> list[Example]:
    curriculum = Curriculum([], 1)
    return [Example(example.prefix, example.suffixes[:2], example.completions[:2]) for example in curriculum(step)[:2]]


def test_losses_are_those_of_the_whole_texts_read_one_by_one(tokenizer: Tokenizer) -> None:
    model, example = new_model(tokenizer), synthetic_plans(np.random.default_rng(2), 5)
    answer, prompt = losses(model, [tokenize(example, tokenizer)])
    sums: dict[str, list[float]] = {"answer": [], "prompt": []}
    for row, (rest, text) in enumerate(zip(example.suffixes, example.completions, strict=True)):
        start = [tokenizer.bos, *tokenizer.encode(example.prefix)]
        suffixes, answers = tokenizer.encode(rest), [*tokenizer.encode(text), tokenizer.eos]
        tokens = torch.tensor([*start, *suffixes, *answers])
        chances = model(tokens[None])[0, :-1].log_softmax(dim=1)
        each = -chances[torch.arange(len(tokens) - 1), tokens[1:]].detach()
        sums["answer"] += each[-len(answers) :].tolist()
        if row % 4 == 0:
            sums["prompt"] += each[len(start) : len(start) + len(suffixes) - 1].tolist()
    assert float(answer.detach()) == pytest.approx(np.mean(sums["answer"]), rel=1e-4)
    assert float(prompt.detach()) == pytest.approx(np.mean(sums["prompt"]), rel=1e-4)


def test_teaching_makes_answers_likelier_and_can_be_interrupted(tokenizer: Tokenizer, tmp_path: Path) -> None:
    settings = SFTConfig(steps=6, warm_up=2, learning_rate=1e-2)
    seen: list[float] = []
    whole = SFTTrainer(new_model(tokenizer), tokenizer, small, settings)
    whole.train(lambda step, loss: seen.append(loss))
    assert seen[-1] < seen[0]

    class Stop(Exception):
        pass

    def stop(step: int, loss: float) -> None:
        if step == 3:
            first.save(tmp_path / "state.pt")
            raise Stop

    first = SFTTrainer(new_model(tokenizer), tokenizer, small, settings)
    with pytest.raises(Stop):
        first.train(stop)
    second = SFTTrainer(new_model(tokenizer, seed=9), tokenizer, small, settings)
    second.resume(tmp_path / "state.pt")
    second.train()
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 half a file"])
def test_a_damaged_state_is_refused(tokenizer: Tokenizer, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.pt"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"(?s)cannot resume from .*state\.pt .*: delete the file to start from the beginning"
    ):
        SFTTrainer(new_model(tokenizer), tokenizer, small, SFTConfig()).resume(path)


def test_the_learning_rate_rises_and_falls() -> None:
    settings = SFTConfig(steps=100, warm_up=10)
    assert (
        learning_rate_factor(0, settings) == 0.1
        and learning_rate_factor(9, settings) == learning_rate_factor(10, settings) == 1
    )
    assert learning_rate_factor(100, settings) == pytest.approx(0.05)
    assert all(
        learning_rate_factor(step, settings) > learning_rate_factor(step + 1, settings) for step in range(10, 99)
    )


def test_what_is_written_is_the_likeliest_continuation(tokenizer: Tokenizer) -> None:
    model = new_model(tokenizer)
    example = small(0)[0]
    prefix = model.read_prefix(torch.tensor([tokenizer.bos, *tokenizer.encode(example.prefix)]))
    got = generate(model, tokenizer, prefix, example.suffixes, temperature=0, generator=torch.Generator(), max_tokens=5)
    for rest, tokens in zip(example.suffixes, got.tokens, strict=True):
        text = [tokenizer.bos, *tokenizer.encode(example.prefix), *tokenizer.encode(rest)]
        for token in tokens:
            assert int(model(torch.tensor([text]))[0, -1].argmax()) == token
            text.append(token)


def test_writing_is_drawn_from_the_generator_alone(tokenizer: Tokenizer) -> None:
    model, example = new_model(tokenizer), small(0)[0]
    prefix = model.read_prefix(torch.tensor([tokenizer.bos]))

    def drawn(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return generate(
            model, tokenizer, prefix, example.suffixes, temperature=1, generator=generator, max_tokens=8
        ).tokens

    assert drawn(1) == drawn(1) != drawn(2)


def views_of(n: int) -> SessionViews:
    nothing = np.full((n, 12), -1)
    return SessionViews(np.arange(n), np.zeros(n, np.int64), nothing, nothing.astype(np.int8), 4)


def test_answers_become_plans_and_useless_ones_the_fallback() -> None:
    planner = prompt_planner(NAMES, RATES)
    fallback = GreedyPreferencePlanner(np.full(4, 9), RATES, n=1)
    texts = [
        '{"categories": ["News", "Music"]}',
        "no",
        '{"categories": ["Opera"]}',
        '{"categories": ["Sport", "News"]}',
    ]
    plans, usable = parse_plans(texts, planner, fallback, views_of(2))
    np.testing.assert_array_equal(usable, [[True, False], [False, True]])
    np.testing.assert_array_equal(plans[0], [[False, False, True, True], [True, False, False, False]])
    np.testing.assert_array_equal(plans[1], [[True, False, False, False], [False, True, True, False]])


def test_an_untaught_model_falls_back_and_says_so(tokenizer: Tokenizer) -> None:
    fallback = GreedyPreferencePlanner(np.full(4, 9), RATES, n=2)
    planner = TorchPlanner(new_model(tokenizer), tokenizer, prompt_planner(NAMES, RATES), fallback)
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
    planner = prompt_planner(NAMES, RATES)
    start, suffixes = split_prompts(planner.prompts(views_of(4)))
    example = Example(
        start, suffixes, [plan_completion([0, 1], NAMES, RATES), plan_completion([2, 3], NAMES, RATES)] * 2
    )
    model = new_model(tokenizer)
    SFTTrainer(model, tokenizer, lambda step: [example], SFTConfig(steps=100, warm_up=5, learning_rate=1e-2)).train()

    def worth(core: Any, low_level: Any, plans: BoolArray, horizon: int) -> Any:
        return plans[:, 2].astype(float)

    monkeypatch.setattr(policy_gradient, "plan_values", worth)
    monkeypatch.setattr(policy_gradient, "session_views", lambda *_: views_of(4))
    monkeypatch.setattr(PolicyGradientTrainer, "_play", lambda self, env, slates: None)
    fallback = GreedyPreferencePlanner(np.full(4, 9), RATES, n=2)
    how = PolicyGradientConfig(rounds=15, users=4, plans=4, learning_rate=1e-3)
    seen: list[Update] = []
    learner = PolicyGradientTrainer(model, tokenizer, planner, fallback, _Serves(), how, 0)  # type: ignore[arg-type]
    learner.train(env, lambda number, one: seen.append(one))
    values = [one.value for one in seen]
    assert np.mean(values[-4:]) > np.mean(values[:2]) + 0.2
    assert seen[0].kl == pytest.approx(0, abs=1e-6) and seen[-1].kl > 0


def test_llama_cpp_writes_what_torch_writes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The same likeliest answer from the same prompt, through the file and the real backend."""
    pytest.importorskip("llama_cpp")
    from rapport.agents.llm import Sampling
    from rapport.agents.llm.gguf.backend import LlamaCppLLM
    from rapport.agents.lm.gguf import write_gguf

    model, example = new_model(tokenizer), small(0)[0]
    SFTTrainer(model, tokenizer, small, SFTConfig(steps=5, warm_up=2)).train()
    path = write_gguf(tmp_path / "m.gguf", model, tokenizer, name="m", precision="F32")
    llm = LlamaCppLLM(path, sampling=Sampling(temperature=0), n_ctx=1024)
    prefix = model.read_prefix(torch.tensor([tokenizer.bos, *tokenizer.encode(example.prefix)]))
    ours = generate(
        model, tokenizer, prefix, example.suffixes, temperature=0, generator=torch.Generator(), max_tokens=12
    )
    theirs = llm.complete([example.prefix + rest for rest in example.suffixes], None, 12)
    assert [answer.text for answer in theirs] == ours.texts


def test_rows_mark_what_is_asked_for(tokenizer: Tokenizer) -> None:
    batch: TokenBatch = tokenize(Example("a\n", ["b c\n", "d\n"], ["{}", "{}"]), tokenizer)
    assert not (batch.completion_mask & batch.prompt_mask).any()
    assert batch.completion_mask.sum(dim=1).unique().numel() == 1
    assert (batch.tokens[batch.completion_mask] == tokenizer.eos).sum() == 2
