"""The grid as jobs: first policies, then what is trained from them, then what is played with what was trained."""

from __future__ import annotations

from collections.abc import Sequence

from rapport.experiments.jobs.local import Job
from rapport.experiments.lerl.cells import Cell, FirstPolicy
from rapport.experiments.lerl.grid import Grid, World
from rapport.experiments.lerl.rows import METHODS, NO_RL
from rapport.experiments.lerl.sensitivity import variations


def grid_jobs(grid: Grid, studies: Sequence[World] = ()) -> list[Job]:
    """What is to be done, per data set and seed; ``studies`` are the worlds whose sensitivity is studied."""
    by_data: dict[str, list[World]] = {}
    for world in grid.worlds:
        by_data.setdefault(world.setup.session_data().fingerprint, []).append(world)
    jobs = []
    for worlds in by_data.values():
        for seed in range(grid.seeds):
            later = [job for world in worlds for job in _of_world(grid, world, seed, world in studies)]
            first = FirstPolicy(grid, worlds[0], seed)
            jobs.append(Job(f"first policy, seed {seed}", first, tuple(later)))
    return jobs


def _of_world(grid: Grid, world: World, seed: int, study: bool) -> list[Job]:
    jobs = []
    for method in world.methods:
        if METHODS[method].trained_as in (None, NO_RL):
            jobs.append(_job(grid, world, method, seed, study))
    return jobs


def _job(grid: Grid, world: World, method: str, seed: int, study: bool) -> Job:
    """A row's cell, followed by those that are played with what it trained."""
    cell = Cell(grid, world, method, seed)
    followers = [m for m in world.methods if METHODS[m].trained_as == method]
    later = [_job(grid, world, follower, seed, False) for follower in followers]
    if study:
        later += [Job(f"{method}, {v.study} {v.value}, seed {seed}", v) for v in variations(cell)]
    return Job(f"{world.name}: {method}, seed {seed}", cell, tuple(later))
