"""Weights on disk: a cached simulator, and the checkpoint of an agent."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from tests.fuzz.inputs import command, result_of
from tests.fuzz.kinds.server import Server
from tests.fuzz.mutations import altered, array, damaged, pick
from tests.fuzz.outcome import Attempt, Fault, Outcome


class SimulatorCache:
    """A fitted simulator in the cache."""

    name = "simulator-cache"

    def missing(self) -> str | None:
        """Nothing."""
        return None

    def prepare(self) -> None:
        """Fit a small one."""
        import rapport
        from rapport.envs.session.response.fit import FitSettings

        self._data = rapport.twin(n_users=20, n_items=12)
        self._settings = FitSettings(epochs=1, length=16)
        self._base = tempfile.TemporaryDirectory(prefix="rapport-fuzz-")
        self._pristine = self._load(Path(self._base.name))

    def attempt(self, rng: Generator, folder: Path) -> Attempt:
        """A file with damage, or arrays and settings that another program has put there."""
        from rapport.datasets.files.tensors import load_arrays, save_arrays

        shutil.copytree(self._base.name, folder, dirs_exist_ok=True)
        (file,) = (folder / "simulators").glob("*.safetensors")
        if rng.random() < 0.6:
            content, done = damaged(rng, file.read_bytes())
            file.write_bytes(content)
            return Attempt(done, lambda: self._load(folder), self._pristine)
        arrays, note = load_arrays(file)
        name = pick(rng, sorted(arrays))
        arrays[name], done = array(rng, arrays[name])
        save_arrays(file, arrays, note)
        return Attempt(f"{name}: {done}", lambda: self._finite(folder))

    def _load(self, folder: Path) -> str:
        from rapport.envs.session.simulator_cache import load_simulator

        os.environ["RAPPORT_CACHE_DIR"] = str(folder)
        response, fitted = load_simulator(self._data, self._settings)
        weights = {name: weight.numpy() for name, weight in fitted.model.state_dict().items()}
        self._chances = response.probabilities(response.start[:4], np.arange(4), np.zeros((4, 2), np.int32))
        return result_of(weights, response.start, fitted.calibration.numpy())

    def _finite(self, folder: Path) -> None:
        self._load(folder)
        if not np.isfinite(self._chances).all():
            raise Fault(Outcome.SILENT, "probabilities: not finite")


class Checkpoint:
    """A trained agent, as ``rapport evaluate`` plays it."""

    name = "checkpoint"

    def missing(self) -> str | None:
        """Nothing."""
        return None

    def prepare(self) -> None:
        """Train a small one, on a small log in the layout of KuaiRand-Pure."""
        from rapport.agents.lerl import PPOConfig
        from rapport.agents.policies.encoder import EncoderSettings
        from rapport.experiments.lerl.environments import session_env
        from rapport.experiments.lerl.training import Training, train
        from tests.datasets.kuairand_files import write_kuairand

        self._base = tempfile.TemporaryDirectory(prefix="rapport-fuzz-")
        self._server = Server()
        root = Path(self._base.name)
        os.environ["RAPPORT_CACHE_DIR"] = str(root / "cache")
        self._data = root / "data"
        write_kuairand(self._data)
        encoder = EncoderSettings(width=16, item_width=8, feed_forward=16, heads=2, window=12)
        low_level = PPOConfig(encoder, None, n_envs=2, n_steps=4, batch_size=8, n_epochs=1)
        env = session_env("kuairand", "kuairand-pure", self._data)
        task = Training(env=env, folder=root / "run", seed=0, method="lerl", transitions=8, low_level=low_level)
        train(task)
        self._content = task.checkpoint.read_bytes()
        self._pristine = self._evaluate(task.checkpoint)
        assert "R_cum" in self._pristine

    def attempt(self, rng: Generator, folder: Path) -> Attempt:
        """A file with damage, or with a note and weights that another program has put there."""
        from rapport.datasets.files.tensors import load_arrays, save_arrays

        file = folder / "run" / "checkpoints" / "lerl-seed0.safetensors"
        file.parent.mkdir(parents=True)
        file.write_bytes(self._content)
        way = pick(rng, ("bytes", "bytes", "note", "note", "note", "weights", "server", "victim"))
        if way == "bytes":
            content, done = damaged(rng, self._content)
            file.write_bytes(content)
            return Attempt(done, lambda: self._evaluate(file), self._pristine, (file.name,))
        arrays, note = load_arrays(file)
        watched: tuple[Path, ...] = ()
        if way == "weights":
            name = pick(rng, sorted(n for n in arrays if n.startswith("policy.")))
            arrays[name], done = array(rng, arrays[name])
            done, way = f"{name}: {done}", "nan" if not np.isfinite(arrays[name]).all() else way
        elif way == "note":
            note, done = altered(rng, note)
        else:
            done, watched = self._planner(rng, note, way, folder)
        save_arrays(file, arrays, json.loads(json.dumps(note)))
        unfit = way == "nan"
        return Attempt(done, lambda: self._played(file, unfit), None, (file.name,), watched)

    def _planner(self, rng: Generator, note: dict[str, Any], way: str, folder: Path) -> tuple[str, tuple[Path, ...]]:
        """A note that names a server and files for the agent's planner."""
        from rapport.experiments.lerl.config import PlannerConfig

        address = self._server.address(int(rng.integers(2**31)))
        planner: dict[str, Any] = {**asdict(PlannerConfig("llm", llm=f"{address}#m")), "cache": None}
        victims = tuple(folder / name for name in ("victim.txt", "victim.sqlite"))
        if way == "victim":
            for victim in victims:
                victim.write_text("mine", encoding="utf-8")
            planner |= {"cache": str(victims[0]), "record": str(victims[1]), "pool": str(victims[0])}
        note["planner"], self._asked = planner, address
        return f"a planner at a server of the file's choice, {way}", victims if way == "victim" else ()

    def _played(self, file: Path, unfit: bool) -> None:
        try:
            self._evaluate(file)
        finally:
            if hasattr(self, "_asked") and (key := self._server.told(self._asked)) is not None:
                raise Fault(Outcome.SECRET if key else Outcome.REACHED, "a server that the file names was asked")
        if unfit:
            raise Fault(Outcome.SILENT, "figures: of weights that are not finite")

    def _evaluate(self, file: Path) -> str:
        from rapport.agents.checkpoint import read_checkpoint

        sizes = ("--sessions", 3, "--seeds", 1)
        printed = command("evaluate", file, "--data", "kuairand-pure", "--data-dir", self._data, *sizes)
        return f"{result_of(*read_checkpoint(file))} {printed}"
