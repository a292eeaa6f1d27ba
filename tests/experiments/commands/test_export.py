"""Exported sessions are the sessions that were played, and a single environment lives through them again."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from rapport.agents.baselines.controls import PopularSlates, RandomSlates
from rapport.envs.session import kuairand
from rapport.envs.session.env import SessionEnv
from rapport.envs.session.kuairand import kuairand_core, kuairand_vector_env
from rapport.envs.session.response.fit import FitSettings
from rapport.experiments.cli import main
from rapport.experiments.commands.export import _parsed, _spec
from rapport.experiments.export.minari import Recorder, record, write_minari
from rapport.experiments.lerl.config import PlannerConfig
from rapport.experiments.lerl.training import Training, train


@pytest.fixture
def play(small_data, matrix_response):
    """Records sessions of the small twin under random slates."""

    def played(n, batch=8, seed=3, **arguments):
        sessions = kuairand_vector_env(
            batch, AutoresetMode.SAME_STEP, data=small_data, response=matrix_response, **arguments
        )
        act = RandomSlates(small_data.catalog.n_items, sessions.core.slate_size, np.random.default_rng(0))
        single = arguments.get("slate_size", 6) is None
        recorder = Recorder(sessions)
        return record(recorder, recorder, (lambda o: act(o)[:, 0]) if single else act, n, seed)

    return played


@pytest.fixture
def minari(tmp_path, monkeypatch):
    library = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return library


def lived_again(env, episode):
    """What the single environment makes of an episode's seed and actions."""
    observation, _ = env.reset(seed=episode.seed)
    observations, rewards, ends = [observation], [], (False, False)
    for action in episode.actions:
        assert ends == (False, False)
        observation, reward, *ends, _ = env.step(action)
        ends = tuple(ends)
        observations.append(observation)
        rewards.append(reward)
    return {key: np.stack([o[key] for o in observations]) for key in observation}, rewards, ends


@pytest.mark.parametrize("arguments", [{}, {"slate_size": None}, {"quit_rule": "never", "max_steps": 7}])
def test_recorded_sessions_are_those_of_a_single_environment(play, small_data, matrix_response, arguments):
    core = kuairand_core(
        1, data=small_data, response=matrix_response, **{**arguments, "slate_size": arguments.get("slate_size", 6)}
    )
    env = SessionEnv(core, single_item=arguments.get("slate_size", 6) is None)
    episodes = list(play(19, **arguments))
    assert [episode.seed for episode in episodes] == list(range(3, 22))
    for episode in episodes:
        observations, rewards, ends = lived_again(env, episode)
        np.testing.assert_array_equal(episode.rewards, rewards)
        assert (episode.terminated, not episode.terminated) == ends
        assert observations.keys() == episode.observations.keys()
        for key, value in observations.items():
            np.testing.assert_array_equal(episode.observations[key], value)


def test_sessions_are_handed_on_while_later_ones_are_not_yet_played(play):
    few, many = play(8), play(10**9)
    for expected, episode in zip(few, many, strict=False):
        np.testing.assert_array_equal(expected.rewards, episode.rewards)


def test_a_recorder_needs_the_last_observations(small_data, matrix_response):
    with pytest.raises(ValueError, match="SAME_STEP"):
        Recorder(kuairand_vector_env(2, data=small_data, response=matrix_response))


def export(*words):
    return main(["export", "minari", "--data", "twin", *words])


def test_what_is_loaded_is_what_the_recovered_environment_lives_through(minari, capsys):
    assert export("--sessions", "12", "--seed", "5", "--arguments", "quit_rule=set_overlap", "slate_size=4") == 0
    name = "rapport/kuairand-twin/random-v0"
    assert f"Wrote {name}: 12 sessions" in capsys.readouterr().out.replace("\n", " ")
    loaded = minari.load_dataset(name)
    env, held_out = loaded.recover_environment(), loaded.recover_environment(eval_env=True)
    assert env.unwrapped.core.quit_rule.name == "set_overlap"
    assert loaded.total_episodes == 12 and loaded.spec.action_space == env.action_space
    for i, (episode, kept) in enumerate(
        zip(loaded.iterate_episodes(), loaded.storage.get_episode_metadata(range(12)), strict=True)
    ):
        assert kept["seed"] == 5 + i
        observations, rewards, ends = lived_again(env, _Seeded(episode, kept["seed"]))
        np.testing.assert_array_equal(episode.rewards, rewards)
        assert (bool(episode.terminations[-1]), bool(episode.truncations[-1])) == ends
        assert not episode.terminations[:-1].any() and not episode.truncations[:-1].any()
        for key, value in observations.items():
            np.testing.assert_array_equal(episode.observations[key], value)
    data = held_out.unwrapped.core.data
    assert data.held_out[held_out.reset(seed=1)[1]["user"]]
    assert not data.held_out[env.reset(seed=1)[1]["user"]]
    about = loaded.storage.metadata
    assert about["algorithm_name"] == "random items" and "twin" in about["description"]
    assert about["author"] and about["requirements"]


class _Seeded:
    def __init__(self, episode, seed):
        self.actions, self.seed = episode.actions, seed


def test_a_data_set_is_not_overwritten_and_a_failed_one_leaves_nothing(minari, tmp_path, play, capsys):
    assert export("--sessions", "2", "--dataset", "rapport/mine-v0") == 0
    assert export("--sessions", "2", "--dataset", "rapport/mine-v0") == 2
    assert "minari delete rapport/mine-v0" in capsys.readouterr().err.replace("\n", " ")
    assert minari.load_dataset("rapport/mine-v0").total_episodes == 2

    def broken():
        yield from play(1)
        raise OSError("disk full")

    spec = _spec("rapport/KuaiRand-v0", {"data": "twin"})
    with pytest.raises(OSError, match="disk full"), pytest.warns(UserWarning):
        write_minari("rapport/broken-v0", broken(), spec, spec)
    assert not (tmp_path / "minari" / "rapport" / "broken-v0").exists()


def test_popular_items_are_those_of_the_baseline(minari):
    assert export("--policy", "popular", "--sessions", "3") == 0
    loaded = minari.load_dataset("rapport/kuairand-twin/popular-v0")
    data = loaded.recover_environment().unwrapped.core.data
    order = PopularSlates(data, 6).order
    for episode in loaded.iterate_episodes():
        np.testing.assert_array_equal(episode.actions.ravel(), order[: episode.actions.size])


def test_a_trained_agent_plays_under_its_planner(minari, twin_env, small, tmp_path):
    task = Training(twin_env, "lerl", 0, 80, tmp_path / "run", PlannerConfig("rotation"), small)
    train(task)
    assert export("--policy", str(task.checkpoint), "--sessions", "5") == 0
    loaded = minari.load_dataset("rapport/kuairand-twin/lerl-v0")
    env = loaded.recover_environment()
    for i, episode in enumerate(loaded.iterate_episodes()):
        observations, rewards, _ = lived_again(env, _Seeded(episode, i))
        assert "plan" not in episode.observations and observations.keys() == episode.observations.keys()
        np.testing.assert_array_equal(episode.rewards, rewards)


def test_a_description_names_no_directory(minari, tmp_path):
    assert export("--sessions", "1", "--data-dir", str(tmp_path)) == 0
    loaded = minari.load_dataset("rapport/kuairand-twin/random-v0")
    assert str(tmp_path) not in json.dumps({k: str(v) for k, v in loaded.storage.metadata.items()})


def test_arguments_are_read_as_json_or_text():
    assert _parsed(("quit_rule=never", "slate_size=null", "budget=7.5")) == {
        "quit_rule": "never",
        "slate_size": None,
        "budget": 7.5,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--sessions", "0"), "--sessions 0"),
        (("--arguments", "slate_size"), "write NAME=VALUE"),
        (("--policy", "nowhere.safetensors"), "nowhere.safetensors"),
        (("--policy", "some.safetensors", "--arguments", "budget=3"), "a checkpoint brings its own"),
    ],
)
def test_mistakes_are_one_clear_line(minari, words, message, capsys):
    assert export(*words) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_flat_observations_are_gymnasiums(minari):
    assert export("--flat", "--sessions", "5", "--arguments", "slate_size=null", "history=4") == 0
    loaded = minari.load_dataset("rapport/kuairand-twin/random-v0")
    env = loaded.recover_environment()
    assert isinstance(loaded.spec.observation_space, spaces.Box) and isinstance(
        loaded.spec.action_space, spaces.Discrete
    )
    assert env.observation_space == loaded.spec.observation_space
    kept = loaded.storage.get_episode_metadata(range(5))
    for episode, about in zip(loaded.iterate_episodes(), kept, strict=True):
        observation, _ = env.reset(seed=about["seed"])
        seen = [observation, *(env.step(action)[0] for action in episode.actions)]
        np.testing.assert_array_equal(episode.observations, np.stack(seen))
        assert episode.observations.dtype == env.observation_space.dtype


def test_a_log_of_ones_own_is_exported_and_made_again(minari, tmp_path, monkeypatch, capsys):
    rng, n = np.random.default_rng(0), 1_500
    log = pd.DataFrame({"user_id": rng.integers(0, 30, n), "item_id": rng.integers(0, 20, n)})
    log["time"], log["click"] = 1_700_000_000 + rng.integers(0, 20 * 86_400, n), rng.integers(0, 2, n)
    log.to_csv(tmp_path / "log.csv", index=False)
    pd.DataFrame({"item_id": range(20), "category": list("abcde") * 4}).to_csv(tmp_path / "items.csv", index=False)
    manifest = 'name = "Shop"\n[interactions]\npath = "log.csv"\n[interactions.behaviours]\nclick = "click"\n'
    manifest += '[items]\npath = "items.csv"\n[environment]\nslate_size = 2\nbudget = 5\n'
    (tmp_path / "shop.toml").write_text(manifest)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kuairand, "FitSettings", lambda: FitSettings(epochs=1, length=8))
    assert main(["export", "minari", "--data", "shop.toml", "--env", "rapport/Shop-v0", "--sessions", "3"]) == 0
    monkeypatch.chdir("/")
    env = minari.load_dataset("rapport/shop/random-v0").recover_environment(eval_env=True)
    assert env.unwrapped.core.data.name == "Shop" and env.action_space.nvec.tolist() == [20, 20]
    assert env.reset(seed=0)[1]["budget"] == 5
    for words, told in (
        (("--env", "rapport/Shop-v0"), "--env rapport/Shop-v0: .*manifest of a log of your own: --data shop.toml"),
        (("--env", "rapport/Log-v0"), "--data twin: rapport/Log-v0 stands on a log of your own"),
    ):
        assert export(*words) == 2
        assert re.search(told, capsys.readouterr().err.replace("\n", " "))
