"""Sessions as episodes for offline reinforcement learning, recorded while a policy plays, in Minari's format."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from numpy.typing import NDArray

from rapport.experiments.core import Act

Environment = VectorEnv[Any, Any, Any]


@dataclass(frozen=True)
class Episode:
    """One complete session of T steps.

    Attributes:
        seed: ``reset(seed=seed)`` of a single environment and the same actions give the same session.
        observations: arrays of shape (T + 1, ...); the last observation is after the user has left.
        actions: shape (T, ...).
        rewards: shape (T,), float64.
        terminated: whether the user left; otherwise the time limit ended the session.
    """

    seed: int
    observations: dict[str, NDArray[Any]]
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    terminated: bool


class Recorder(VectorWrapper):
    """Records observations, actions, rewards and ends of a vector environment.

    Args:
        env: a vector environment that resets within the step and has Dict observations.

    Raises:
        ValueError: the environment has another autoreset mode.
    """

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        if env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise ValueError("env: make it with autoreset_mode=AutoresetMode.SAME_STEP; last observations are kept")
        assert isinstance(env.single_observation_space, spaces.Dict)
        self._keys = tuple(env.single_observation_space)
        self._seed = 0
        self._observations: list[dict[str, NDArray[Any]]] = []
        self._steps: list[tuple[Any, ...]] = []
        self._last: dict[int, dict[str, NDArray[Any]]] = {}

    def reset(self, *, seed: int, **arguments: Any) -> tuple[Any, dict[str, Any]]:  # type: ignore[override]
        """Begin sessions, slot i with seed + i, and drop earlier records."""
        observations, info = self.env.reset(seed=seed, **arguments)
        self._seed, self._observations, self._steps, self._last = seed, [observations], [], {}
        return observations, info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the sessions and record the step."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        self._steps.append((np.array(actions), rewards.copy(), terminated.copy(), truncated.copy()))
        self._observations.append(observations)
        for slot in np.flatnonzero(terminated | truncated).tolist():
            # Outer wrappers add keys to this dictionary; only the environment's own observation is kept.
            self._last.setdefault(slot, {key: info["final_obs"][slot][key] for key in self._keys})
        return observations, rewards, terminated, truncated, info

    @property
    def running(self) -> bool:
        """Whether the first session of some slot has not ended yet."""
        return len(self._last) < self.num_envs

    def episodes(self) -> Iterator[Episode]:
        """The first session of every slot, in order. One per slot, so that short sessions are not over-represented."""
        actions, rewards, terminated, truncated = (np.stack(part) for part in zip(*self._steps, strict=True))
        lengths = (terminated | truncated).argmax(axis=0) + 1
        before = {key: np.stack([o[key] for o in self._observations[:-1]]) for key in self._keys}
        for slot, length in enumerate(lengths.tolist()):
            last = self._last[slot]
            observations = {k: np.concatenate([v[:length, slot], last[k][None]]) for k, v in before.items()}
            yield Episode(
                self._seed + slot,
                observations,
                actions[:length, slot],
                rewards[:length, slot],
                bool(terminated[length - 1, slot]),
            )


def record(
    recorder: Recorder, env: Environment, act: Act, n: int, seed: int, report: Callable[[int], None] | None = None
) -> Iterator[Episode]:
    """Play ``n`` sessions, a batch at a time, and yield them.

    Args:
        recorder: records the sessions.
        env: the environment that ``act`` plays on: the recorder, or wrappers around it.
        act: the policy.
        n: number of sessions.
        seed: session i is that of ``reset(seed=seed + i)``.
        report: called with the number of sessions done.
    """
    for first in range(0, n, recorder.num_envs):
        observations, _ = env.reset(seed=seed + first)
        while recorder.running:
            observations, *_ = env.step(act(observations))
        for i, episode in enumerate(recorder.episodes()):
            if first + i < n:
                yield episode
        if report is not None:
            report(min(first + recorder.num_envs, n))


FLAT = WrapperSpec("FlattenObservation", "gymnasium.wrappers:FlattenObservation", {})
"""Makes one array of an environment's observations: :func:`flattened`."""


def flattened(observations: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Observations, arrays (T + 1, ...) by name, as one array (T + 1, D), that of ``FlattenObservation``."""
    kind = np.result_type(*observations.values())
    parts = [observations[name].reshape(len(observations[name]), -1) for name in sorted(observations)]
    return np.concatenate(parts, axis=1).astype(kind)


def write_minari(
    dataset_id: str, episodes: Iterator[Episode], spec: EnvSpec, eval_spec: EnvSpec, *, flat: bool = False, **about: Any
) -> Any:
    """Write episodes as a Minari data set, one at a time; the data set is whole or absent.

    It is written to ``$MINARI_DATASETS_PATH``, by default ``~/.minari/datasets``.

    Args:
        dataset_id: e.g. ``"rapport/kuairand/random-v0"``.
        episodes: the episodes.
        spec: spec of the environment they were played in, which ``recover_environment()`` makes again.
        eval_spec: spec of the environment to evaluate in.
        flat: observations are one array each, as some libraries need; both specs then have the wrapper :data:`FLAT`.
        **about: more of Minari's fields, such as ``algorithm_name``, ``author`` and ``description``.

    Returns:
        the :class:`minari.MinariDataset`.

    Raises:
        ModuleNotFoundError: the ``offline`` extra is not installed.
        ValueError: a data set of this id exists.
    """
    minari = import_minari()
    folder = minari.storage.get_dataset_path(dataset_id)
    if folder.exists():
        raise ValueError(
            f"there is a Minari data set {dataset_id!r} in {folder.parent} already; "
            f"remove it (`minari delete {dataset_id}`) or choose another name or version"
        )
    env = gym.make(spec)
    try:
        return minari.create_dataset_from_buffers(
            dataset_id,
            (_buffer(episode, flat) for episode in episodes),
            env=env,
            eval_env=eval_spec,
            data_format="hdf5",
            requirements=[f"rapport-gym=={importlib.metadata.version('rapport-gym')}"],
            **about,
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        env.close()


def import_minari() -> Any:
    """Import Minari.

    Raises:
        ModuleNotFoundError: it is not installed; the message says how to install it.
    """
    try:
        import h5py  # noqa: F401 - Minari would miss it only after all sessions were played
        import minari.storage
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"exporting to Minari needs {error.name}, which is not installed; install it: "
            'pip install "rapport-gym[offline]"',
            name=error.name,
        ) from error
    return minari


def _buffer(episode: Episode, flat: bool) -> Any:
    from minari.data_collector import EpisodeBuffer

    length = len(episode.rewards)
    ends = np.arange(length) == length - 1
    return EpisodeBuffer(
        seed=episode.seed,
        observations=flattened(episode.observations) if flat else episode.observations,
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=ends & episode.terminated,
        truncations=ends & (not episode.terminated),
    )
