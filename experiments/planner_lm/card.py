"""Evaluation of the embedded planner model: on its training data, under unseen names, and on other data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from rapport.agents.lerl import PPOConfig
from rapport.agents.llm.base.interface import LLM, Sampling
from rapport.agents.llm.gguf.backend import file_fingerprint
from rapport.agents.llm.load import open_llm
from rapport.agents.llm.structured import complete_json, decode_json
from rapport.agents.planning.build import TOP_K_PREFERENCE, category_click_rates, control_planner
from rapport.agents.planning.controls import NoPlanner, RandomPlanner
from rapport.agents.planning.llm_planner import LLMPlanner, plan_schema
from rapport.agents.planning.lm.embedded import PACKAGED
from rapport.agents.planning.lm.examples import prompt_planner
from rapport.agents.planning.lm.rule_reflection import rule_reflection
from rapport.agents.planning.lm.synthetic_examples import SyntheticService, synthetic_names, top_categories
from rapport.agents.planning.planner import Planner, session_views
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.datasets.kuairec.load import synthetic_kuairec
from rapport.datasets.registry.licence import licence_note
from rapport.datasets.schema import SessionData
from rapport.experiments.core import LOCAL, EnvConfig, Episodes, Experiment, Row, ServingPolicy, Task, play
from rapport.experiments.lerl.environments import data_of, session_env, sessions_of
from rapport.experiments.lerl.learners import PretrainedLearner
from rapport.experiments.lerl.metrics import R_CUM, T_INT
from rapport.experiments.lerl.protocol import UNITS, Variety, evaluation_users
from rapport.experiments.report.page import Page, Section
from rapport.experiments.report.table import Table
from rapport.experiments.results.summary import compare, estimated

COLUMNS = (
    ("planner", ""),
    T_INT.column,
    R_CUM.column,
    ("against top-k", "R_cum, paired"),
    ("fallbacks", "of plans"),
)
MODEL = "model"
PLANNERS = (MODEL, TOP_K_PREFERENCE, "random", "all")
"""The model, the top-k preference planner, eight random categories, and all categories, each with the cooldown."""
_HELD = 20
"""Slates a plan holds: one plan per session."""
_RENAMED_SEED = 2_000
"""Seed of the names of renamed categories, which no training example uses."""


@lru_cache(maxsize=1)
def _kuairec_stand_in() -> SessionData:
    return synthetic_kuairec(4_000, 1_000, 2_000).data


@dataclass(frozen=True)
class Service:
    """A service on which the model is evaluated.

    Attributes:
        name: lower case, used in file names.
        label: name in tables.
        env: data and environment.
        renamed: the planner sees synthetic names in place of the categories' own.
    """

    name: str
    label: str
    env: EnvConfig
    renamed: bool = False

    def names(self) -> Sequence[str]:
        """Category names that the planner sees."""
        return category_names(data_of(self.env), self.renamed)


def category_names(data: SessionData, renamed: bool) -> Sequence[str]:
    """Names of the categories, or synthetic ones in their place."""
    own = data.catalog.category_names
    return synthetic_names(np.random.default_rng(_RENAMED_SEED), len(own)) if renamed else own


def services(env: EnvConfig) -> tuple[Service, ...]:
    """The training data, the same users with synthetic category names, and other users, items and names."""
    name = data_of(env).name
    stand_in = session_env(data=_kuairec_stand_in(), quit_rule=env.kwargs["quit_rule"], budget=env.kwargs["budget"])
    return (
        Service("taught", name, env),
        Service("renamed", f"{name}, synthetic names", env, renamed=True),
        Service("kuairec", "KuaiRec stand-in", stand_in),
    )


@dataclass(frozen=True)
class CardModel:
    """The model of a card.

    Attributes:
        file: GGUF file.
        fingerprint: of the file.
        temperature: sampling temperature.
    """

    file: Path = field(metadata=LOCAL)
    fingerprint: str
    temperature: float

    @classmethod
    def of(cls, file: Path, temperature: float) -> CardModel:
        """The model in a file."""
        return cls(file, file_fingerprint(file), temperature)

    def open(self, seed: int = 0) -> LLM:
        """Load it."""
        sampling = Sampling(self.temperature, seed=seed)
        return open_llm(self.file, sampling=sampling, packaged=PACKAGED)


@dataclass(frozen=True)
class CardPlanner:
    """Who plans in a row of the card.

    Attributes:
        name: one of :data:`PLANNERS`.
        model: of the row of that name; None for the others.
        renamed: whether it sees synthetic names.
    """

    name: str
    model: CardModel | None = None
    renamed: bool = False

    def make(self, data: SessionData, llm: LLM | None, seed: int) -> Planner:
        """The planner, with this seed's chance."""
        sizes, rng = data.catalog.category_sizes, np.random.default_rng([seed, 7])
        if llm is not None:
            names = category_names(data, self.renamed)
            return LLMPlanner(llm, names, category_click_rates(data), NoPlanner(sizes))
        makers: dict[str, Callable[[], Planner]] = {
            "random": lambda: RandomPlanner(sizes, rng, n=8),
            "all": lambda: NoPlanner(sizes),
        }
        return makers[self.name]() if self.name in makers else control_planner(self.name, data, rng)


@dataclass(frozen=True)
class CardSessions:
    """Complete sessions of held-out users under one plan each, with the one-slate cooldown."""

    sessions: int

    def __call__(self, task: Task, policy: ServingPolicy) -> Episodes:
        """Play them."""
        planner: CardPlanner = task.row.planner
        data, llm = data_of(task.row.env), None if planner.model is None else planner.model.open(task.seed)
        env = PlannedVectorEnv(
            sessions_of(task.row.env, self.sessions, "held_out"),
            data,
            planner.make(data, llm, task.seed),
            period=_HELD,
            cooldown=True,
            once=True,
        )
        users = evaluation_users(data, self.sessions, task.seed)
        variety = Variety(len(users), data.catalog.n_categories)
        arrays = play(env, policy.act(env), task.seed, {"user": users}, [variety])
        meter = {} if llm is None else {**llm.meter.to_dict(), "plans": env.plans_made}
        return Episodes(arrays, UNITS, users, meter)


def card_experiment(
    model: CardModel,
    services: Sequence[Service],
    seeds: int,
    sessions: int,
    folder: Path,
    low_level: PPOConfig | None = None,
) -> Experiment:
    """The model and the controls on every service.

    Args:
        model: the model.
        services: the services.
        seeds: number of seeds, of pretrained policies, users and random streams.
        sessions: sessions of held-out users per row and seed.
        folder: holds pretrained policies and results, from which a stopped evaluation resumes.
        low_level: of the pretrained policies; the defaults where None.
    """
    learner = PretrainedLearner(low_level or PPOConfig())
    rows = []
    for service in services:
        for name in PLANNERS:
            planner = CardPlanner(name, model, service.renamed) if name == MODEL else CardPlanner(name)
            rows.append(Row(row_name(service, name), name, service.env, learner, service.label, planner))
    return Experiment(tuple(rows), seeds, CardSessions(sessions), folder)


def row_name(service: Service, planner: str) -> str:
    """Name of a row."""
    return f"{service.name}.{planner.replace(' ', '-')}"


def tables(card: Experiment, services: Sequence[Service]) -> list[Table]:
    """A table per service, under its label."""
    results, found = card.results(), []
    for service in services:
        groups = {planner: results[row_name(service, planner)] for planner in PLANNERS}
        lines = []
        for planner, group in groups.items():
            gain = None if planner == TOP_K_PREFERENCE else compare(group, groups[TOP_K_PREFERENCE], R_CUM)
            fallbacks, plans = (sum(r.meter.get(key, 0) for r in group) for key in ("fallbacks", "plans"))
            t_int = estimated(group, T_INT)
            assert t_int is not None
            lines.append(
                (
                    planner,
                    f"{t_int.point:.2f}",
                    R_CUM.shown(estimated(group, R_CUM)),
                    "reference" if gain is None else R_CUM.shown(gain, signed=True),
                    f"{fallbacks / plans:.1%}" if plans else "-",
                )
            )
        found.append(Table(COLUMNS, tuple(lines), service.label))
    return found


def unconstrained_plan_rate(model: CardModel, service: Service, n: int = 300) -> float:
    """Share of completions without a grammar that are plans, for n held-out users at the start of a session."""
    data = data_of(service.env)
    observations, info = sessions_of(service.env, n, "held_out").reset(seed=0)
    llm = model.open()
    planner = LLMPlanner(llm, service.names(), category_click_rates(data), NoPlanner(data.catalog.category_sizes))
    views = session_views(observations, info["user"], data, service.env.kwargs["slate_size"])
    usable = 0
    for completion in llm.complete(planner.prompts(views), None, 96):
        try:
            planner.parse(decode_json(completion.text))
            usable += 1
        except ValueError:
            continue  # it is no plan
    return usable / n


@dataclass(frozen=True)
class ReflectionEffect:
    """Effect of reflections on the click rate of planned categories, on synthetic services with outdated lists.

    Attributes:
        without: mean click rate of the model's plans without reflections.
        gain: difference that three reflections make.
        margin: half the 95 % interval of the gain, over services.
        possible: difference that they make to the target plans, which use all information.
    """

    without: float
    gain: float
    margin: float
    possible: float

    def __str__(self) -> str:
        low, high = self.gain - self.margin, self.gain + self.margin
        return (
            f"on synthetic services with outdated lists, {self.without:.1%} of planned items are clicked; with "
            f"three reflections {100 * self.gain:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points, where the "
            f"target plans gain {100 * self.possible:+.1f}"
        )


def reflection_effect(model: CardModel, n_services: int = 120, n_users: int = 8) -> ReflectionEffect:
    """Plan for users of services with outdated click rates, with and without reflections."""
    llm, rng = model.open(), np.random.default_rng(_RENAMED_SEED + 2)
    rates = np.zeros((n_services, 4))
    for number in range(n_services):
        service = SyntheticService(rng)
        listed = np.log(service.rates / (1 - service.rates))
        service.true_logit = listed + rng.normal(0, 1.2, len(listed))
        sessions = [service.session(user) for user in service.users(3)]
        served = service.users(n_users)
        views = service.views(served)
        planner, most = prompt_planner(service.names, service.rates), len(service.names)
        schema = plan_schema(service.names, min(2, most), min(8, most))
        for column, reflected in enumerate(([], sessions)):
            reflections = [rule_reflection(session, service.names) for session in reflected]
            plans = complete_json(llm, planner.prompts_with(views, reflections), schema, planner.parse)
            targets = [top_categories(row) for row in service.estimated_rates(views, reflected)]
            for place, chosen in ((column, plans), (2 + column, targets)):
                clicked = [served[row, plan].mean() for row, plan in enumerate(chosen) if plan is not None]
                rates[number, place] = np.mean(clicked)
    gains = rates[:, 1] - rates[:, 0]
    margin = 1.96 * gains.std(ddof=1) / np.sqrt(n_services)
    possible = float((rates[:, 3] - rates[:, 2]).mean())
    return ReflectionEffect(float(rates[:, 0].mean()), float(gains.mean()), float(margin), possible)


def card_page(
    card: Experiment,
    services: Sequence[Service],
    model: CardModel,
    plan_rates: Mapping[str, float],
    effect: ReflectionEffect,
) -> Page:
    """The measured part of the card."""
    size, found = model.file.stat().st_size / 1e6, tables(card, services)
    alone = ", ".join(f"{name} {share:.1%}" for name, share in plan_rates.items())
    assert isinstance(card.protocol, CardSessions)
    return Page(
        title="Planner model card",
        finding=card_finding(found),
        findings=[f"Completions without a grammar that are plans: {alone}", f"Reflections: {effect}"],
        subtitle=f"{model.file.name}, {size:.2f} MB",
        sections=[Section("The model beside planners without one", found)],
        settings={
            "model": f"{size:.2f} MB; temperature {model.temperature:g}; one plan per session, with the one-slate "
            "cooldown",
            "sessions": f"{card.seeds} seeds of {card.protocol.sessions:,} sessions of held-out users; low level: the "
            "pretrained policy of each seed, without RL",
            "intervals": "interquartile mean over seeds [95 % bootstrap interval over seeds and sessions]",
            "KuaiRec stand-in": "KuaiRec's category names; its users and its log are synthetic",
        },
        licence=licence_note(data_of(services[0].env)),
    )


def card_finding(found: Sequence[Table]) -> str:
    """How the model compares with the top-k preference planner on each service, in a sentence."""
    name, against = PLANNERS.index(MODEL), [column for column, _ in COLUMNS].index("against top-k")
    lines = [f"{table.rows[name][against]} ({table.caption})" for table in found]
    return f"R_cum under the model's plans less that under the top-k preference planner's: {', '.join(lines)}."
