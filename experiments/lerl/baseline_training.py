"""A baseline's training: one lesson from a seed's first policy, the same for all of them."""

from __future__ import annotations

import time
from contextlib import closing
from typing import NamedTuple

import numpy as np

from rapport.agents.baselines.click_prior import CTRModel
from rapport.agents.baselines.task import Act, Baseline, Settings, TrainingTask
from rapport.agents.lerl import slate_policy
from rapport.agents.llm.transcript import conversation
from rapport.agents.planning.reflection import ReflectionPool
from rapport.experiments.lerl.config import planned
from rapport.experiments.lerl.learning_curve import Watched
from rapport.experiments.lerl.play import Cost
from rapport.experiments.lerl.training import LOOK_BACK_EVERY, Progress, Training, first_agent


class Served(NamedTuple):
    """Somebody ready to serve.

    Attributes:
        act: from observations with plans to slates; its luck begins anew whenever it is made.
        cost: what its training took; None where it had none.
        curve: its learning curve.
    """

    act: Act
    cost: Cost | None = None
    curve: tuple[tuple[int, float, float], ...] = ()


def learn_baseline(
    task: Training, baseline: Baseline, settings: Settings, progress: Progress = lambda _: None
) -> Served:
    """Let a baseline learn under the task's planner from as many transitions with training users.

    What was stopped begins again: nothing of it is kept on the way.
    """
    begun, setup, choice = time.monotonic(), task.setup, task.planner
    data = setup.session_data()
    log_model = CTRModel(slate_policy(first_agent(task, lambda _: None)), data, setup.slate_size)
    watched = Watched(
        setup.sessions(task.low_level.n_envs, "train"), lambda done: progress(min(done / task.transitions, 1.0))
    )
    llm = choice.open(task.seed)
    if choice.pool is not None:  # a training that was stopped may have left some
        with closing(ReflectionPool(choice.pool)) as pool:
            pool.restore([])
    rng = np.random.default_rng([task.seed, 5])
    env = planned(watched, data, choice, llm, rng, learning=True, look_back_every=LOOK_BACK_EVERY)
    with conversation(llm, f"{task.method}, seed {task.seed}, training"):
        act = baseline(TrainingTask(env, log_model, task.transitions, task.seed, settings))
    if not watched.transitions:
        return Served(act)
    meter = {} if llm is None else llm.meter.to_dict()
    capped = None if llm is None else llm.meter.exhausted
    return Served(act, Cost(watched.transitions, time.monotonic() - begun, meter, capped), tuple(watched.curve))
