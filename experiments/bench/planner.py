"""Plans per second of a language model in this process, beside llama-cpp-python with one prompt at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from rapport.agents.llm.base.interface import Sampling
from rapport.agents.llm.gguf.backend import LlamaCppLLM
from rapport.agents.llm.gguf.grammar import schema_to_gbnf
from rapport.agents.planning.build import llm_planner
from rapport.agents.planning.llm_planner import LLMPlanner, plan_schema
from rapport.agents.planning.planner import SessionViews, session_views
from rapport.datasets.schema import SessionData
from rapport.envs.session.env import SessionVectorEnv
from rapport.envs.session.kuairand import kuairand_core
from rapport.envs.session.response.base import ResponseModel
from rapport.experiments.bench.timing import Speed, Work, compare

SUBJECT = "LLMPlanner"
REFERENCE = "create_completion, one by one"
SLATES = 5
"""Slates that were already shown to the users who are planned for; the prompt tells of as many."""


@dataclass(frozen=True)
class PlannerSpeed:
    """One subject at one batch size.

    Attributes:
        subject: what plans.
        batch: sessions planned for at once, B.
        speed: plans per second.
        ratio: median speed as a share of the reference's.
        own: share of plans that are the model's own, in [0, 1]; the others came from the fallback planner.
    """

    subject: str
    batch: int
    speed: Speed
    ratio: float
    own: float


def measure_planner(
    data: SessionData,
    response: ResponseModel,
    model: Path,
    batch_sizes: tuple[int, ...],
    threads: int | None,
    seconds: float,
    rounds: int,
    report: Callable[[str], None] = lambda _: None,
) -> list[PlannerSpeed]:
    """Time the planner with a GGUF file at several batch sizes, and plain llama-cpp-python with the same prompts.

    The prompts are of training users after `SLATES` random slates. The reference reuses the prefix that a prompt shares
    with the one before, and has the same grammar and sampling.

    Args:
        data: the users who are planned for.
        response: the response learned from ``data``.
        model: a GGUF file.
        batch_sizes: sessions planned for at once, B.
        threads: processor threads of both; None chooses by the model's size.
        seconds: time for each subject in each round [s].
        rounds: number of rounds, of which the median is taken.
        report: called with the name of what is being timed.
    """
    report("collecting sessions")
    views = simulated_views(data, response, 4 * max(batch_sizes))
    planners = {b: llm_planner(LlamaCppLLM(model, n_threads=threads), data, _rng(), None) for b in batch_sizes}
    subjects = {f"{SUBJECT}, B = {b}": batched_planning(planner, views, b) for b, planner in planners.items()}
    prompts = llm_planner(planners[batch_sizes[0]].llm, data, _rng(), None).prompts(views)
    report("timing all in turn")
    names = data.catalog.category_names
    found = compare({**subjects, REFERENCE: one_by_one(model, prompts, names, threads)}, seconds, rounds)
    limit = found[REFERENCE].median
    result = [PlannerSpeed(REFERENCE, 1, found[REFERENCE], 1.0, 1.0)]
    for batch, name in zip(batch_sizes, subjects, strict=True):
        meter = planners[batch].llm.meter
        own = 1 - meter.fallbacks / meter.decisions
        result.append(PlannerSpeed(SUBJECT, batch, found[name], found[name].median / limit, own))
    return result


def simulated_views(data: SessionData, response: ResponseModel, n: int) -> SessionViews:
    """The planner's input for ``n`` training users who were shown `SLATES` random slates in the simulator."""
    core = kuairand_core(n, data=data, response=response, users="train", quit_rule="never")
    env = SessionVectorEnv(core, AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(SLATES):
        env.step(env.action_space.sample())
    return session_views(core.observation(), core.user, data, core.slate_size)


def batched_planning(planner: LLMPlanner, views: SessionViews, batch: int) -> Work:
    """Work that plans for the next ``batch`` sessions, and begins again after the last."""
    parts = _parts(len(views), batch)

    def work() -> int:
        planner.plan(views.rows(next(parts)))
        return batch

    return work


def one_by_one(model: Path, prompts: list[str], names: tuple[str, ...] | list[str], threads: int | None) -> Work:
    """Work that completes the next prompt by llama-cpp-python's own `Llama.create_completion`."""
    from llama_cpp import Llama
    from llama_cpp.llama_grammar import LlamaGrammar

    llama = Llama(str(model), n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False)
    grammar = LlamaGrammar.from_string(schema_to_gbnf(plan_schema(names, 2, 8)), verbose=False)
    sampling = Sampling()
    waiting = cycle(prompts)

    def work() -> int:
        llama.create_completion(
            next(waiting),
            max_tokens=256,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=0,
            min_p=0.0,
            repeat_penalty=1.0,
            seed=sampling.seed,
            grammar=grammar,
        )
        return 1

    return work


def _parts(n: int, size: int) -> Iterator[NDArray[np.int64]]:
    return cycle(np.arange(n)[start : start + size] for start in range(0, n - size + 1, size))


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)
