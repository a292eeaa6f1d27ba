"""Who plans in a row, as plain settings, and the sessions that are planned for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

import numpy as np
from gymnasium.vector import VectorEnv

from rapport.agents.llm.address import split_credentials
from rapport.agents.llm.base.backend import Backend
from rapport.agents.llm.base.interface import LLM as LanguageModel
from rapport.agents.llm.base.interface import Budget, Sampling
from rapport.agents.llm.cache import CachedLLM
from rapport.agents.llm.load import REPLAY, open_llm
from rapport.agents.llm.transcript import RecordedLLM, conversation
from rapport.agents.planning.build import CONTROLS, HELD, TOP_K_PREFERENCE, control_planner, llm_planner, planner_name
from rapport.agents.planning.critic import LLMCritic
from rapport.agents.planning.llm_planner import LLMPlanner
from rapport.agents.planning.lm.embedded import PACKAGED
from rapport.agents.planning.planner import Planner
from rapport.agents.planning.reflection import ReflectionPool
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.datasets.schema import SessionData
from rapport.experiments.core import LOCAL
from rapport.experiments.core.own_code import OwnCode, is_own
from rapport.experiments.lerl.own_planners import own_planner, own_planner_class
from rapport.experiments.results.store import config_hash

LLM, LLM_ONLY = "llm", "llm without reflection"
SHUFFLED, WORST = "llm, shuffled reflections", "llm, worst reflections"
SIMILAR = "llm, reflections of similar users"
LLM_PLANNERS = (LLM, LLM_ONLY, SHUFFLED, WORST, SIMILAR)
LEARNING_PLANNERS = (LLM, SIMILAR)
"""Those whose critic looks back on sessions while an agent learns."""
CACHE = "llm-cache.sqlite"
"""File in a run's folder that keeps a language model's answers."""
ALPHA = 0.1
"""Of LERL's Eq. 4."""


@dataclass(frozen=True)
class PlannerConfig:
    """Which planner, and the language model behind it where it has one."""

    name: str = TOP_K_PREFERENCE
    """A control's name, one of :data:`LLM_PLANNERS`, or name and digest of a planner of the user's own."""
    llm: str | None = None
    """GGUF file, address of a server, or ``replay:FILE``: a transcript to play again without the model."""
    period: int = 1
    """Slates a plan holds."""
    cooldown: bool | None = None
    """One-slate cooldown: leave out the categories of the slate just shown. None: under planners whose plans are meant
    to hold, which are those with a language model and :data:`~rapport.agents.planning.build.HELD`."""
    replan_threshold: float | None = None
    """Standard deviations from the clicks expected beyond which a session is planned anew; None for never."""
    llm_calls: int | None = None
    """Prompts the language model may be sent, training and evaluation each; beyond them the fallback plans."""
    llm_tokens: int | None = None
    """Tokens it may read and write, training and evaluation each."""
    llm_seconds: float | None = None
    """Seconds it may take, training and evaluation each. A limit in seconds makes results depend on the machine's
    load, so there is none unless one is given."""
    llm_temperature: float = 0.8
    """Sampling temperature."""
    llm_answer_tokens: int | None = None
    """Most tokens of one answer; None for what each kind of answer needs."""
    llm_context: int = 4096
    """Tokens that prompts and answers running at a time may have together (GGUF files)."""
    llm_gpu_layers: int = 0
    """Layers on the GPU, whose sums differ in the last bits from the processor's; -1 for all (GGUF files)."""
    llm_parallel: int | None = None
    """Prompts that run at a time, whose sums depend in the last bits on those beside them; None for the default."""
    llm_timeout: float | None = None
    """Seconds that one answer may take; None for the default, which is no limit with a GGUF file."""
    llm_threads: int | None = field(default=None, metadata=LOCAL)
    """Processor threads (GGUF files), on which no result depends; None for OMP_NUM_THREADS, else 1."""
    llm_address: str | None = field(default=None, repr=False, metadata=LOCAL)
    """The whole address of a server, where :attr:`llm` leaves out the credentials in it."""
    most: int = 8
    """Most categories in a language model's plan."""
    reflections: int = 3
    """Reflections that a language model is shown."""
    cache: str | None = field(default=None, metadata=LOCAL)
    """File that keeps answers."""
    record: str | None = field(default=None, metadata=LOCAL)
    """Transcript in which everything it is asked and answers is kept."""
    own: OwnCode | None = field(default=None, metadata=LOCAL)
    """Where the planner is, of a planner of the user's own."""

    def __post_init__(self) -> None:
        """Keep the credentials of an address apart, in a field that nothing is written from."""
        if self.llm is None:
            return
        public, whole = split_credentials(self.llm)
        if whole is not None:
            object.__setattr__(self, "llm_address", whole)
        elif self.llm_address is not None and split_credentials(self.llm_address)[0] != public:
            object.__setattr__(self, "llm_address", None)  # of another model
        object.__setattr__(self, "llm", public)

    @property
    def cools_down(self) -> bool:
        """Whether categories just shown are left out: not under controls, which stay what they are called."""
        return self.name in (*LLM_PLANNERS, *HELD) if self.cooldown is None else self.cooldown

    @property
    def learns(self) -> bool:
        """Whether its critic looks back on sessions while an agent learns."""
        return self.llm is not None and self.name in LEARNING_PLANNERS

    def limits(self) -> dict[str, str]:
        """What the language model may cost, for the report; nothing where there is none, or none is asked."""
        if self.llm is None or self.llm.startswith(REPLAY):
            return {}
        limits = {"calls": self.llm_calls, "tokens": self.llm_tokens, "seconds": self.llm_seconds}
        given = ", ".join(f"{limit:,g} {unit}" for unit, limit in limits.items() if limit is not None)
        return {"language model may take": f"{given} in each training and each evaluation" if given else "no limit"}

    def open(self, seed: int) -> LanguageModel | None:
        """The language model, or None for a control."""
        if self.name not in LLM_PLANNERS or self.llm is None:
            return None
        llm = open_llm(
            self.llm_address or self.llm,
            sampling=Sampling(self.llm_temperature, seed=seed, answer_tokens=self.llm_answer_tokens),
            budget=Budget(self.llm_calls, self.llm_tokens, self.llm_seconds),
            cache=self.cache,
            packaged=PACKAGED,
            timeout=self.llm_timeout,
            parallel=self.llm_parallel,
            n_ctx=self.llm_context,
            n_threads=self.llm_threads,
            n_gpu_layers=self.llm_gpu_layers,
        )
        backend = llm.llm if isinstance(llm, CachedLLM) else llm
        if isinstance(backend, Backend):
            backend.name = model_label(self.llm)
        return llm if self.record is None else RecordedLLM(llm, self.record)


def planner_by_name(name: str, period: int) -> PlannerConfig:
    """A planner without a language model, as the table's row of that name has it.

    Args:
        name: a control's, or ``FILE.py:NAME``: a planner of the user's own.
        period: slates of a plan that is meant to hold, which are those of the planners in :data:`HELD` and of planners
            of the user's own, unless their class has a ``period``; the other controls plan every slate.

    Raises:
        OwnCodeError: there is no such planner in the user's file.
    """
    if is_own(name):
        code = OwnCode.of(name)
        made = own_planner_class(code)
        period, cooldown = getattr(made, "period", period), getattr(made, "cooldown", True)
        return PlannerConfig(f"{code.shown} {code.digest}", period=period, cooldown=cooldown, own=code)
    known = planner_name(name)
    return PlannerConfig(known, period=period if known in HELD else 1)


def with_language_model(
    choice: PlannerConfig, llm: str, budget: Budget, record: Path | None, settings: Mapping[str, Any] | None = None
) -> PlannerConfig:
    """The choice with what a command line says of the language model; settings that it leaves out stay.

    Raises:
        ValueError: what is replayed would be recorded.
    """
    if record is not None and llm.startswith(REPLAY):
        raise ValueError(f"--llm-record {record}: a replay has nothing new to record; copy the transcript instead")
    kept = None if record is None else str(record.resolve())
    limits = {f"llm_{unit}": limit for unit, limit in asdict(budget).items()}
    return replace(choice, llm=llm, record=kept, **limits, **(settings or {}))


def model_label(llm: str) -> str:
    """How a language model is named in tables: by its file, the server's name for it, or else the server's address."""
    if llm.startswith(REPLAY):
        return f"LLM replayed from {Path(llm.removeprefix(REPLAY)).name}"
    if "://" in llm:
        address, _, model = llm.partition("#")
        return f"LLM {model or urlsplit(address).netloc.rpartition('@')[2]}"
    return f"LLM {Path(llm).name}"


def planner_of_note(note: Mapping[str, Any]) -> PlannerConfig:
    """The planner of a checkpoint, also of one that an earlier version wrote.

    Raises:
        ValueError: a setting has the wrong type or is out of range.
        KeyError: the planner's name is missing.
    """
    known = {
        {"rest": "cooldown", "surprise": "replan_threshold"}.get(name, name): value for name, value in note.items()
    }
    names = {f.name for f in fields(PlannerConfig) if not f.metadata.get("local")}
    given = {name: value for name, value in known.items() if name in names}
    config = PlannerConfig(**{**given, "name": planner_name(given["name"])})
    for name, kind in get_type_hints(PlannerConfig).items():
        value = getattr(config, name)
        kind = kind | int if isinstance(1.0, kind) else kind
        if not isinstance(value, kind) or (type(value) is bool and name != "cooldown"):
            raise ValueError(f"planner: {name}={str(value)[:40]!r} has the wrong type")
    if config.name not in (*LLM_PLANNERS, *CONTROLS):
        raise ValueError(f"planner: name={config.name[:40]!r} is none of {', '.join((*LLM_PLANNERS, *CONTROLS))}")
    for name in ("period", "most"):
        if getattr(config, name) < 1:
            raise ValueError(f"planner: {name}={getattr(config, name)}; it must be at least 1")
    return config


def planned(
    sessions: VectorEnv[Any, Any, Any],
    data: SessionData,
    planner_config: PlannerConfig,
    llm: LanguageModel | None,
    rng: np.random.Generator,
    pool_file: Path | ReflectionPool | None = None,
    learning: bool = False,
    once: bool = False,
    look_back_every: int = 1,
) -> PlannedVectorEnv:
    """Sessions with a planner over them; while learning, a critic fills the pool that the planner reads from.

    Two ablations read a pool without adding to it: under :data:`SHUFFLED` its scores are dealt to its texts at random,
    once, so that some are drawn as much more often than others but for no reason; under :data:`WORST` Eq. 4 has -alpha
    for alpha, so that the worst sessions' are drawn most. Under :data:`SIMILAR` similar users' are recalled. With
    ``once`` every place serves one session that counts. The critic looks back on one in ``look_back_every`` sessions.
    """
    config, pool, critic = planner_config, None, None
    planner: Planner
    if config.own is not None:
        planner = own_planner(config.own, data, int(rng.integers(2**31)))
    elif llm is None:
        planner = control_planner(config.name, data, rng)
    else:
        pool = None if config.name == LLM_ONLY else _pool(pool_file, learning)
        if config.learns and pool is not None and learning:
            critic = LLMCritic(llm, pool, data.catalog.category_names, every=look_back_every)
        if config.name == SHUFFLED and pool is not None:
            pool = pool.shuffled(rng)
        alpha = -ALPHA if config.name == WORST else ALPHA
        alike = config.name == SIMILAR
        planner = llm_planner(llm, data, rng, pool, alpha, config.most, config.reflections, alike)
    trigger = config.replan_threshold
    return PlannedVectorEnv(sessions, data, planner, critic, config.period, config.cools_down, trigger, once)


def _pool(pool: Path | ReflectionPool | None, learning: bool) -> ReflectionPool:
    """The pool in a file, which only learning changes, or the pool itself."""
    if isinstance(pool, ReflectionPool):
        return pool
    return ReflectionPool(pool) if learning or pool is None else ReflectionPool.copy_of(pool)


def unanswered(env: PlannedVectorEnv) -> str | None:
    """Why a fallback planned in the language model's place, in its own words; None where none did or there is none."""
    return env.planner.unanswered if isinstance(env.planner, LLMPlanner) else None


def shortfall_notes(when: str, capped: str | None, reason: str | None) -> tuple[str, ...]:
    """What a reader has to know where the fallback planned in a language model's place.

    Args:
        when: e.g. ``"in training"``.
        capped: the limit that was reached, as a sentence; None where none was.
        reason: why the model gave no plan, in its own words; None where it always gave one.
    """
    notes = [f"{when} {capped}, then {TOP_K_PREFERENCE} planned"] if capped else []
    if reason is not None and not (capped and capped in reason):
        notes.append(f"{when} the language model gave no plan: {reason}")
    return tuple(notes)


@contextmanager
def part_of_run(llm: LanguageModel | None, name: str, depends_on: object = None) -> Iterator[None]:
    """A part of a run that is finished or begun again as a whole: a segment of a training, or an evaluation.

    A transcript records and replays it as one conversation. Where answers are kept in a file, what it asked before it
    was stopped is charged to it when it is begun again, so that its meter is that of the whole.

    Args:
        llm: the model; None for no effect.
        name: unique in the run's folder, together with what it depends on.
        depends_on: settings by name, ready for JSON; None for a part that is charged for what it asks anew alone.
    """
    cache = llm.llm if isinstance(llm, RecordedLLM) else llm
    if isinstance(cache, CachedLLM):
        cache.pay_for("" if depends_on is None else f"{name} ({config_hash({'depends on': depends_on})})")
    with conversation(llm, name):
        yield
