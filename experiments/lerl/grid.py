"""The grid: worlds x methods x seeds, every cell its own job with its own file, so that a stopped grid goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from rapport.agents.lerl import PPOConfig
from rapport.experiments.lerl.config import PlannerChoice, Setup
from rapport.experiments.lerl.rows import LLM, METHODS, NO_RL
from rapport.experiments.lerl.training import Training
from rapport.experiments.results.store import MethodResult, ResultStore, config_hash


@dataclass(frozen=True)
class World:
    """One environment of the tables.

    Attributes:
        name: short name, used for folders.
        title: shown name.
        setup: data and environment.
        methods: short names of its rows.
        main: whether sensitivity studies and the case study are made here.
    """

    name: str
    title: str
    setup: Setup
    methods: tuple[str, ...]
    main: bool = False


@dataclass(frozen=True)
class Grid:
    """All that a reproduction's results depend on.

    Attributes:
        worlds: environments, the paper's own first.
        planner: who plans LERL's rows: a language model, or the heuristic where none is given.
        seeds: trainings, and draws of users and luck.
        transitions: transitions that each learning method learns from.
        sessions: complete sessions of held-out users per row and seed.
        folder: keeps everything.
        tuned: hyper-parameters found by the search, by method.
        base: sizes of the low level, and PPO's settings where none were found.
    """

    worlds: tuple[World, ...]
    planner: PlannerChoice
    seeds: int
    transitions: int
    sessions: int
    folder: str
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    base: PPOConfig = field(default_factory=PPOConfig)

    def place(self, world: World) -> Path:
        """The folder of a world."""
        return Path(self.folder) / world.name

    def low_level(self, method: str) -> PPOConfig:
        """PPO's settings for a method of LERL's kind: what was found for planned or for planner-less agents."""
        return replace(self.base, **self.tuned.get("ppo" if METHODS[method].family == "learned" else "lerl", {}))

    def settings(self, method: str) -> Mapping[str, Any]:
        """Hyper-parameters of a baseline."""
        return self.tuned.get(METHODS[method].tuned_as or method, {})

    def choice(self, world: World, method: str, seed: int) -> PlannerChoice:
        """Who plans in a row, with this seed's own pool of reflections where there is one."""
        row = METHODS[method]
        if row.planner is None:
            return PlannerChoice("none")
        if not row.planner.startswith(LLM):
            period = self.planner.period if row.rests_by_default else 1
            return PlannerChoice(row.planner, period=period, rest=row.rest)
        planner = self.planner if row.period is None else replace(self.planner, period=row.period, rest=row.rest)
        if planner.llm is None:
            return planner
        pool = str(self.place(world) / f"reflections-{method}-seed{seed}.sqlite") if row.has_pool else None
        return replace(planner, name=row.planner, pool=pool)

    def training(self, world: World, method: str, seed: int) -> Training:
        """The training of a method of LERL's kind."""
        return Training(
            world.setup,
            method,
            seed,
            0 if method == NO_RL else self.transitions,
            str(self.place(world)),
            PlannerChoice("none") if method == NO_RL else self.choice(world, method, seed),
            self.base if method == NO_RL else self.low_level(method),
            first_folder=str(Path(self.folder) / "first-policies" / world.setup.session_data().name),
        )

    def store(self, world: World, method: str) -> ResultStore:
        """Results of a method under this very configuration."""
        row = METHODS[method]
        trained_as = row.trained_as or method
        config = {
            "environment": world.setup.identity(),
            "planner": _without_files(self.choice(world, method, 0)),
            "low_level": asdict(self.low_level(method if trained_as == NO_RL else trained_as)),
            "trained_as": trained_as,
            "settings": dict(self.settings(method)),
            "numbers": [self.transitions, self.sessions],
        }
        return ResultStore(self.place(world) / "results", config_hash(config))

    def results(self, world: World) -> list[MethodResult]:
        """Everything a world has so far, in the rows' order."""
        cells = [(method, seed) for method in world.methods for seed in range(self.seeds)]
        found = [self.store(world, method).load(method, seed) for method, seed in cells]
        return [result for result in found if result is not None]


def tuned_settings() -> dict[str, dict[str, Any]]:
    """Hyper-parameters that the search found, by method; those of no method where there is no search's file."""
    file = files("rapport.experiments.lerl").joinpath("tuned.json")
    return dict(json.loads(file.read_text("utf-8"))["settings"]) if file.is_file() else {}


def _without_files(choice: PlannerChoice) -> dict[str, Any]:
    """What a planner's results depend on: not where its answers and reflections are kept."""
    known = asdict(replace(choice, cache=None, record=None))
    return {**known, "pool": choice.pool is not None}
