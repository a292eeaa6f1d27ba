"""Options that several commands have, each with one name, one default and one help text.

A command inherits from the classes whose options it has and adds its own. A field that it repeats with another default
keeps the help text; one that means something else gets its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rapport.envs.common.threads import threads

if TYPE_CHECKING:
    from rich.console import Console

    from rapport.agents.llm.base.interface import Budget
    from rapport.datasets.schema import SessionData
    from rapport.experiments.jobs.local import Job

DataName = Literal["auto", "kuairand-pure", "twin"]


@dataclass(kw_only=True)
class DataDirectory:
    """Where the data sets are."""

    data_dir: Path | None = None
    """Data directory; by default RAPPORT_DATA_DIR, then the user's cache folder."""

    @property
    def root(self) -> str | None:
        """The data directory as environments take it."""
        return None if self.data_dir is None else str(self.data_dir)


@dataclass(kw_only=True)
class LocalData(DataDirectory):
    """The data set, of those that are there."""

    data: str = "auto"
    """`kuairand-pure`, `twin`, `auto`: the first where it is there; or the manifest of a log of your own, shop.toml."""

    def session_data(self) -> SessionData:
        """Load it."""
        from rapport.envs.session.kuairand import find_data

        return find_data(self.data, self.root)


@dataclass(kw_only=True)
class FetchedData(DataDirectory):
    """The data set, fetched where it is not there."""

    data: str = "auto"
    """`kuairand-pure`, `twin`, `auto`: KuaiRand-Pure where it is or can be fetched, else its statistical twin; or the
    manifest of a log of your own, shop.toml."""


@dataclass(kw_only=True)
class SomeEnvironment:
    """Which environment."""

    env: str = "rapport/KuaiRand-v0"
    """Id of a registered environment of slates, e.g. rapport/KuaiRandSatiation-v0; of a log of your own, --data names
    it."""


@dataclass(kw_only=True)
class Sizes:
    """How much is computed."""

    quick: bool = False
    """A quick look: small sizes, unless these are given."""
    seeds: int | None = None
    """Seeds; 5 by default."""
    sessions: int | None = None
    """Complete sessions of held-out users per row and seed; 1,000 by default."""

    def sizes(self, full: Mapping[str, int], quick: Mapping[str, int]) -> dict[str, int]:
        """The sizes that were given; the others from ``full``, or from ``quick`` with ``--quick``.

        Raises:
            ValueError: one is below 1.
        """
        given = {name: getattr(self, name) for name in full}
        defaults = quick if self.quick else full
        return at_least_one(**{n: defaults[n] if size is None else size for n, size in given.items()})


@dataclass(kw_only=True)
class TrainingSizes(Sizes):
    """How much is computed, training included."""

    transitions: int | None = None
    """Transitions each agent learns from; 51,200 by default."""


@dataclass(kw_only=True)
class LanguageModel:
    """Which language model plans."""

    llm: str = "embedded"
    """Language model that plans: `embedded`, the small one that comes with Rapport; `smollm2`, a general one of the
    extra rapport-gym[smollm2]; a GGUF file;
    hf:OWNER/REPO/FILE.gguf; an OpenAI-compatible server such as http://localhost:8080/v1#model; replay:FILE, the
    transcript of an earlier run; or none: then the top-k preference planner plans, and every line says so."""


@dataclass(kw_only=True)
class LanguageModelLimits:
    """What a language model may take, how it runs, and where its answers are kept."""

    llm_seconds: float | None = None
    """Seconds the language model may take in each training and each evaluation; beyond them the fallback plans. No
    limit by default: one in seconds makes results depend on the machine's load."""
    llm_calls: int | None = None
    """Prompts it may be sent in each training and each evaluation; beyond them the fallback plans."""
    llm_tokens: int | None = None
    """Tokens it may read and write in each training and each evaluation; beyond them the fallback plans."""
    llm_record: Path | None = None
    """File in which all prompts and answers are kept; --llm replay:FILE plays the run again without the model."""

    llm_temperature: float | None = None
    """Sampling temperature from 0, the likeliest token, to 2; 0.8 by default."""
    llm_answer_tokens: int | None = None
    """Most tokens of one answer, e.g. 4000 for a model that thinks before it answers; by default what the answer
    needs."""
    llm_context: int | None = None
    """Tokens that prompts and answers running at a time may have together (GGUF files); 4,096 by default."""
    llm_threads: int | None = None
    """Processor threads in each process (GGUF files), at most the cores it may use; OMP_NUM_THREADS by default where it
    is set, else 1. Results do not depend on it."""
    llm_gpu_layers: int | None = None
    """Layers on the GPU, -1 for all (GGUF files, where llama-cpp-python was built for a GPU); 0 by default."""
    llm_parallel: int | None = None
    """Prompts that run at a time; 8 by default, or 2 with a GGUF file of at most 64 MiB. Halved while answers are
    late."""
    llm_timeout: float | None = None
    """Seconds that one answer may take; by default 120 with a server and no limit with a GGUF file. A limit makes
    results depend on the machine's load."""

    def model_settings(self) -> dict[str, float]:
        """How the model runs, as far as it was given; names are fields of ``PlannerConfig``."""
        names = ("temperature", "answer_tokens", "context", "threads", "gpu_layers", "parallel", "timeout")
        given = {f"llm_{name}": getattr(self, f"llm_{name}") for name in names}
        return {name: value for name, value in given.items() if value is not None}

    def budget(self) -> Budget:
        """The limits of one training or evaluation."""
        from rapport.agents.llm.base.interface import Budget

        return Budget(self.llm_calls, self.llm_tokens, self.llm_seconds)


@dataclass(kw_only=True)
class Workers:
    """How many processes work."""

    workers: int | None = None
    """Processes; by default one per core, or per as many cores as each has threads."""
    threads: int | None = None
    """Threads of torch in each process; by default RAPPORT_THREADS, else 1, and at most OMP_NUM_THREADS. Several differ
    from one in the last digits, so simulators and results are kept apart by their number; they help on idle cores
    alone."""

    def run_jobs(self, jobs: list[Job], console: Console, default: int | None = None) -> None:
        """Run jobs on as many processes as were asked for, else on ``default``, else on one per core.

        Raises:
            ValueError: fewer than one process was asked for.
        """
        from rapport.experiments.jobs.local import run_jobs

        if self.workers is not None:
            run_jobs(jobs, at_least_one(workers=self.workers)["workers"], console)
            return
        free = max(1, (os.cpu_count() or 1) // threads())
        run_jobs(jobs, default or free, console)


@dataclass(kw_only=True)
class Cluster(Workers):
    """How many processes work, or which machines."""

    ray: str | None = None
    """Address of a Ray cluster, e.g. 10.0.0.1:6379, whose nodes share the run folder; by default this machine alone."""

    def run_shared(self, jobs: list[Job], folder: Path, console: Console, default: int | None = None) -> None:
        """Run jobs that keep their results in ``folder`` on the cluster, or here where none was named."""
        if self.ray is None:
            self.run_jobs(jobs, console, default)
            return
        from rapport.experiments.jobs.ray import check_shared, run_on_ray

        check_shared(folder, self.ray)
        run_on_ray(jobs, self.ray, console)


@dataclass(kw_only=True)
class TablesFile:
    """Where the printed tables are also kept."""

    out: Path | None = None
    """Also write the tables to this file, as Markdown."""


def at_least_one(**numbers: int) -> dict[str, int]:
    """The numbers, as they are.

    Raises:
        ValueError: one is below 1; the message names its option.
    """
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"--{name.replace('_', '-')} {number}: it must be at least 1")
    return numbers
