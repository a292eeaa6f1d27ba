"""A checkpoint from anybody: it chooses no server, no model file and nothing that is written; damage is told."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from rapport.agents.checkpoint import read_checkpoint
from rapport.agents.planning.reflection import ReflectionPool
from rapport.datasets.files.tensors import load_arrays, save_arrays
from rapport.experiments.cli import main
from rapport.experiments.lerl.config import PlannerConfig
from rapport.experiments.lerl.environments import session_env
from rapport.experiments.lerl.training import Training, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A pretrained agent's checkpoint; nobody changes the file."""
    from rapport.agents.lerl import PPOConfig
    from rapport.agents.policies.encoder import EncoderSettings
    from rapport.agents.policies.warm_start import WarmStart

    low_level = PPOConfig(
        encoder=EncoderSettings(width=16, item_width=8, feed_forward=16, heads=2, window=12),
        warm_start=WarmStart(epochs=1, length=16),
        n_envs=4,
        n_steps=5,
        batch_size=20,
        n_epochs=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAPPORT_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "rapport-cache"))
        training = Training(session_env("kuairand", "twin"), "lerl", 0, 20, tmp_path_factory.mktemp("run"))
        training = Training(**{**vars(training), "low_level": low_level})
        train(training)
    return training.checkpoint


@pytest.fixture
def changed(trained, tmp_path):
    """Writes a copy of the checkpoint with changes to its note; None takes an entry away."""

    def write(**entries):
        arrays, note = load_arrays(trained)
        note = {name: value for name, value in {**note, **entries}.items() if value is not None}
        path = tmp_path / "run" / "checkpoints" / "evil.safetensors"
        save_arrays(path, arrays, note)
        return path

    return write


@pytest.fixture
def spy(monkeypatch):
    """A server that must get no request, whatever keys the environment holds."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self):
            requests.append(f"{self.path} {self.headers.get('Authorization')}")
            self.send_response(404)
            self.end_headers()

        do_GET = do_POST = _answer

        def log_message(self, *_):
            pass

    for name in ("OPENAI_API_KEY", "RAPPORT_API_KEY"):
        monkeypatch.setenv(name, "sk-secret")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        server.url, server.requests = f"http://127.0.0.1:{server.server_port}/v1#m", requests
        yield server
        server.shutdown()


def evaluate(path, *more):
    return main(["evaluate", str(path), "--data", "twin", "--sessions", "3", "--seeds", "1", *more])


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_checkpoint_chooses_no_server_and_nothing_that_is_written(changed, spy, tmp_path, capsys):
    victims = [tmp_path / name for name in ("victim.txt", "victim2.txt", "victim3.txt")]
    for victim in victims:
        victim.write_text("mine")
    pool, cache, record = map(str, victims)
    told = {"name": "llm", "llm": spy.url, "pool": pool, "cache": cache, "record": record, "period": 1}
    evil = changed(planner=told, pool=pool, cache=cache)
    (tmp_path / "run" / "llm-cache.sqlite").write_text("mine too")
    before = contents(tmp_path)
    assert evaluate(evil) == 2
    assert "name the model with --llm, or another planner with --planner" in capsys.readouterr().err
    assert evaluate(evil, "--planner", "rotation") == 0
    assert not spy.requests and contents(tmp_path) == before
    evaluate(evil, "--llm", spy.url)
    assert spy.requests and contents(tmp_path) == before  # the command line may choose, and still no file is touched


@pytest.mark.parametrize("llm", ["m.gguf", "hf:a/b/c.gguf", "replay:t.sqlite", "\x1b[31mred.gguf"])
def test_a_checkpoint_opens_no_file(changed, llm, capsys):
    assert evaluate(changed(planner={"name": "llm", "llm": llm})) == 2
    said = capsys.readouterr().err
    assert "which is not opened because a file says so" in said and "\x1b[31mred" not in said


def test_reflections_are_read_and_never_written(changed, trained, tmp_path):
    from rapport.experiments.lerl.agents import pool_of_agent

    taught = [{"text": "taught", "score": 3.0, "user": 1}]
    path = changed(reflections=taught)
    before = contents(tmp_path)
    assert [entry.text for entry in pool_of_agent(path, read_checkpoint(path)[1]).entries()] == ["taught"]
    assert contents(tmp_path) == before
    beside = ReflectionPool(tmp_path / "run" / "reflections-evil.sqlite")
    beside.add("beside", 1.0)
    beside.close()
    assert [entry.text for entry in pool_of_agent(path, read_checkpoint(path)[1]).entries()] == ["beside"]
    (tmp_path / "run" / "reflections-evil.sqlite").write_text("no database")
    before = contents(tmp_path)
    assert evaluate(path) == 2 and contents(tmp_path) == before


DAMAGE = [
    ("environment", None),
    ("environment", "mars"),
    ("environment", ["kuairand"]),
    ("quit_rule", 3),
    ("budget", "much"),
    ("budget", -1),
    ("slate_size", 2.5),
    ("slate_size", 10**12),
    ("profile", {}),
    ("planner", None),
    ("planner", "none"),
    ("planner", {}),
    ("planner", {"name": "llm"}),
    ("planner", {"name": ["llm"]}),
    ("planner", {"name": "none", "period": "1"}),
    ("planner", {"name": "none", "period": -3}),
    ("low_level", None),
    ("low_level", {}),
    ("low_level", {"encoder": {"width": 10**9}}),
    ("low_level", {"encoder": {"wide": 3}}),
    ("low_level", {"encoder": {}, "n_envs": 10**12}),
    ("method", None),
    ("method", ["lerl"]),
    ("transitions", None),
    ("transitions", "many"),
    ("transitions", -1),
    ("dataset", 3),
    ("fingerprint", None),
    ("reflections", [{"text": 3}]),
    ("reflections", [{"text": "t", "score": "high"}]),
    ("reflections", "taught"),
]


@pytest.mark.parametrize(("entry", "value"), DAMAGE, ids=[f"{e}={json.dumps(v)[:24]}" for e, v in DAMAGE])
def test_a_damaged_note_is_one_sentence(changed, entry, value, capsys):
    path = changed(**{entry: value})
    assert evaluate(path) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("rapport: ") and "evil.safetensors" in said and "Traceback" not in said


def test_every_changed_byte_is_refused_or_changes_nothing(trained, tmp_path):
    content, (arrays, note) = trained.read_bytes(), load_arrays(trained)
    copy = tmp_path / "copy.safetensors"
    for place in np.random.default_rng(0).choice(len(content), 200, replace=False):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        copy.write_bytes(damaged)
        try:
            found, said = load_arrays(copy)
        except ValueError as error:
            assert str(copy) in str(error)
        else:  # of the key of the checksum
            assert said == note and all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_numbers_that_are_not_finite_are_refused(trained, tmp_path, capsys):
    arrays, note = load_arrays(trained)
    name = next(iter(arrays))
    arrays[name] = np.full_like(arrays[name], np.nan)
    path = tmp_path / "nan.safetensors"
    save_arrays(path, arrays, note)
    assert evaluate(path) == 2
    assert f"{name} holds numbers that are not finite" in " ".join(capsys.readouterr().err.split())


def test_a_file_of_an_earlier_version_without_a_checksum_is_read(trained, tmp_path):
    from safetensors.numpy import save_file

    arrays, note = load_arrays(trained)
    path = tmp_path / "old.safetensors"
    save_file(arrays, path, metadata={"note": json.dumps(note)})
    assert load_arrays(path)[1] == note
    with pytest.raises(ValueError, match="it has no checksum"):
        load_arrays(path, checked=True)


def test_a_planner_of_another_version_is_still_read(changed):
    path = changed(planner={"name": "lasting preference", "period": 5, "rest": False})
    assert evaluate(path) == 0
    assert PlannerConfig("rotation").cache is None and isinstance(path, Path)
