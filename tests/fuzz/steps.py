"""Steps of every environment, with random options, each compared with the rules as they are documented."""

from __future__ import annotations

import tempfile
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from tests.fuzz.lanes import Ended, run_forked
from tests.fuzz.mirror import Mirror, Wrong, same
from tests.fuzz.mutations import pick
from tests.fuzz.outcome import Finding, Outcome, explain, place_of, print_trace

NAME = "steps"
OWN_LOG, LEARNED = "own log", "learned responses"
"""Worlds beside those of the registered ids."""
Arguments = dict[str, Any]


@dataclass(frozen=True)
class Played:
    """Steps of one environment.

    Attributes:
        steps: slates shown to one user each.
        case: the environment and its arguments, in words.
        fault: what was wrong; None if nothing was.
    """

    steps: int
    case: str
    fault: Finding | None


class Worlds:
    """Small data for every id; made once."""

    def __init__(self) -> None:
        import rapport
        from rapport.envs.registration import ENVIRONMENTS
        from rapport.envs.session.response.base import MatrixResponse
        from rapport.envs.session.response.fit import FitSettings
        from rapport.envs.session.simulator_cache import load_simulator
        from tests.envs.session.conftest import SMALL
        from tests.fuzz.kinds.tables import shop, write

        self.ids = {name: dict(kwargs) for name, _, kwargs in ENVIRONMENTS}
        self._small = SMALL
        self._folder = tempfile.TemporaryDirectory(prefix="rapport-fuzz-")
        manifest = write(Path(self._folder.name), shop())
        data = rapport.from_manifest(manifest, use_cache=False)
        shape = (data.population.n_users, data.catalog.n_items, len(data.log.behaviours))
        response = MatrixResponse(np.random.default_rng(1).random(shape), data.log.behaviours)
        self._own = rapport.register_log(manifest), {"response": response}
        twin = rapport.twin(n_users=20, n_items=12)
        learned = load_simulator(twin, FitSettings(epochs=1, length=16))[0]
        self._learned = "rapport/KuaiRand-v0", {"data": twin, "response": learned}
        self.names = [*self.ids, OWN_LOG, LEARNED]
        self._compile()

    def _compile(self) -> None:
        """Compile numba's kernels once, and not in every fork."""
        env_id, arguments = self.of("rapport/KuaiRec-v0")
        for more in ({}, {"reward": "watch_ratio"}, {"quit_rule": "windowed_count"}, {"quit_rule": "set_overlap"}):
            done = [0]
            for play in (_play_vector, _play_single):
                for seed in range(3):
                    play(np.random.default_rng(seed), env_id, {**arguments, **more}, 50, done)

    def of(self, name: str) -> tuple[str, Arguments]:
        """The id of a world, and the arguments that make it without any file."""
        if name in (OWN_LOG, LEARNED):
            env_id, arguments = self._own if name == OWN_LOG else self._learned
            return env_id, dict(arguments)
        (make,) = [make for beginning, make in self._small.items() if name.startswith(beginning)]
        return name, dict(make())


_worlds: list[Worlds] = []


def worlds() -> Worlds:
    """The worlds, made when they are first asked for."""
    if not _worlds:
        _worlds.append(Worlds())
    return _worlds[0]


def options(rng: Generator, name: str) -> Arguments:
    """Valid arguments of an id, drawn at random; each is left out as often as not."""
    slate = pick(rng, (None, 1, 2, 6, 12))
    drawn: Arguments = {
        "users": pick(rng, ("train", "held_out", "all")),
        "quit_rule": pick(rng, ("positional", "set_overlap", "windowed_count", "satisfaction", "never")),
        "window": int(rng.integers(1, 14)),
        "threshold": int(rng.integers(0, 3)),
        "early_window": pick(rng, ("exact", "easyrl4rec")),
        "weights": pick(rng, ("first", "ratio")),
        "budget": pick(rng, (1, 2, 3.5, 20, 1e6)),
        "slate_size": slate,
        "history": pick(rng, (1, 3, 12, 50)),
        "max_steps": int(rng.integers(1, 30)),
        "repeats": False,
        "start_at_log_rows": pick(rng, (True, "any_day")),
    }
    if name.startswith("rapport/KuaiRec"):
        drawn |= {"reward": pick(rng, ("click", "watch_ratio")), "click_at": 0.5}
    elif name == "rapport/KuaiRand-v0":
        faults = pick(rng, ("all", "none", ("lost_endings", "misaligned_categories")))
        drawn["profile"] = "official"
        if rng.random() < 0.7:
            return {**_some(rng, drawn), "profile": "official", "faults": faults}
    elif name == "rapport/KuaiRandSatiation-v0":
        drawn |= {"strength": pick(rng, ("low", "high")), "tolerance": 0.1}
    return _some(rng, drawn)


def _some(rng: Generator, drawn: Arguments) -> Arguments:
    return {key: value for key, value in drawn.items() if rng.random() < 0.5}


def play_case(seed: int, folder: Path, steps: int = 5_000) -> Played:
    """Play an environment that the seed chooses, and a second of the same seed beside it."""
    rng = np.random.default_rng([seed, zlib.crc32(NAME.encode())])
    name = pick(rng, worlds().names)
    env_id, fixed = worlds().of(name)
    chosen = options(rng, name)
    done = [0]
    case = f"{name} {chosen}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            play = _play_single if rng.random() < 0.15 else _play_vector
            case += _words(play)
            play(rng, env_id, {**fixed, **chosen}, steps, done)
    except Exception as error:
        wrong = isinstance(error, Wrong)
        if not wrong:
            print_trace(error)
        outcome = Outcome.SILENT if wrong else Outcome.TRACEBACK
        place = "" if wrong else place_of(error.__traceback__)
        words = str(error) if wrong else explain(error)
        return Played(done[0], case, Finding(NAME, seed, outcome, case, words, place))
    return Played(done[0], case, None)


def _words(play: Callable[..., None]) -> str:
    return ", one user" if play is _play_single else ", side by side"


def _play_vector(rng: Generator, env_id: str, arguments: Arguments, steps: int, done: list[int]) -> None:
    import gymnasium as gym
    from gymnasium.vector import AutoresetMode

    arguments["autoreset_mode"] = pick(rng, (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP))
    arguments["copy"] = bool(rng.random() < 0.5)
    batch, seed = int(pick(rng, (1, 2, 3, 7, 33, 64, 129))), int(rng.integers(2**31))
    env, again = (gym.make_vec(env_id, batch, "vector_entry_point", **arguments) for _ in range(2))
    mirror = Mirror(env.unwrapped, batch)
    first = env.reset(seed=seed)
    same(first, again.reset(seed=seed), "reset")
    mirror.begin(np.arange(batch), *first)
    _refused(env, mirror)
    ended = np.zeros(batch, bool)
    while done[0] < steps:
        if rng.random() < 0.01:
            chosen = {"user": int(rng.integers(mirror.n_users))} if rng.random() < 0.3 else None
            if (first := _begun(env, again, chosen)) is not None:
                mirror.begin(np.arange(batch), *first)
                ended[:] = False
        actions = mirror.actions(rng)
        result = env.step(actions)
        same(result, again.step(actions.copy()), "step")
        if arguments["autoreset_mode"] == AutoresetMode.NEXT_STEP:
            mirror.check_next_step(actions, ended, *result)
            ended = result[2] | result[3]
        else:
            mirror.check_same_step(actions, *result)
        if not env.observation_space.contains({key: np.array(value) for key, value in result[0].items()}):
            raise Wrong("observation: outside its space")
        done[0] += batch


def _begun(env: Any, again: Any, chosen: Arguments | None) -> Any:
    """A new beginning of both, or None where they refuse the user."""
    try:
        first = env.reset(options=chosen)
    except ValueError:
        return None
    same(first, again.reset(options=chosen), "reset")
    return first


def _play_single(rng: Generator, env_id: str, arguments: Arguments, steps: int, done: list[int]) -> None:
    import gymnasium as gym

    env, again = (gym.make(env_id, **arguments) for _ in range(2))
    mirror = Mirror(env.unwrapped, 1)
    seed: int | None = int(rng.integers(2**31))
    while done[0] < steps:
        first = env.reset(seed=seed)
        same(first, again.reset(seed=seed), "reset")
        mirror.begin(np.arange(1), *_batched(first))
        over, seed = False, None
        while not over:
            action = mirror.actions(rng)[0]
            result = env.step(action)
            same(result, again.step(action), "step")
            if not env.observation_space.contains(result[0]):
                raise Wrong("observation: outside its space")
            observation, info = _batched((result[0], result[4]))
            outcome = (np.array([part]) for part in result[1:4])
            mirror.check_next_step(np.asarray(action)[None], np.zeros(1, bool), observation, *outcome, info)
            over = result[2] or result[3]
            done[0] += 1


def _batched(result: tuple[Arguments, Arguments]) -> tuple[Arguments, Arguments]:
    observation, info = result
    return tuple({key: np.asarray(value)[None] for key, value in part.items()} for part in (observation, info))  # type: ignore[return-value]


def _refused(env: Any, mirror: Mirror) -> None:
    """Actions that are none must be refused, and change nothing."""
    good = mirror.actions(np.random.default_rng(0))
    for bad in (good + mirror.n_items, good - mirror.n_items, good.astype(float), good[None], good[..., :0]):
        try:
            env.step(bad)
        except ValueError:
            continue
        raise Wrong(f"action: {bad.dtype}{bad.shape} is accepted")


def play_cases(
    number: int, seed: int, lanes: int, limit: float, progress: Callable[[int, int], None]
) -> tuple[list[Finding], int]:
    """Findings of at least ``number`` checked steps, one per environment played, and how many steps there were."""
    worlds()
    each = int(np.clip(number // 64, 100, 5_000))
    cases = [partial(_play, seed + i, each) for i in range(-(-number // each))]
    findings: dict[int, Finding] = {}
    done = 0
    for index, played in run_forked(cases, lanes, limit):
        if isinstance(played, Ended):
            outcome = Outcome.HANG if played.signal is None else Outcome.CRASH
            findings[index] = Finding(NAME, seed + index, outcome, "", played.trace[:200])
        else:
            fine = Finding(NAME, seed + index, Outcome.FINE, played.case)
            findings[index], done = played.fault or fine, done + played.steps
        progress(done, number)
    return [findings[index] for index in sorted(findings)], done


def _play(seed: int, steps: int, folder: Path) -> Played:
    return play_case(seed, folder, steps)
