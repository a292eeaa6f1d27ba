"""Evaluation of the embedded planner model: on its training data, under unseen names, and on other data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from rapport.agents.lerl import LowLevel, act_on, sampled_actions, slate_policy
from rapport.agents.llm.base.interface import LLM, Sampling
from rapport.agents.llm.gguf.backend import file_fingerprint
from rapport.agents.llm.load import open_llm
from rapport.agents.llm.structured import complete_json, decode_json
from rapport.agents.planning.build import HEURISTIC, category_click_rates, control_planner
from rapport.agents.planning.controls import NoPlanner, RandomPlanner
from rapport.agents.planning.llm_planner import LLMPlanner, plan_schema
from rapport.agents.planning.lm.embedded import PACKAGED
from rapport.agents.planning.lm.examples import prompt_planner
from rapport.agents.planning.lm.rule_reflection import rule_reflection
from rapport.agents.planning.lm.synthetic_examples import SyntheticService, synthetic_names, top_categories
from rapport.agents.planning.planner import Planner, session_views
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.datasets.kuairec.load import synthetic_kuairec
from rapport.datasets.schema import SessionData
from rapport.experiments.jobs.local import Named
from rapport.experiments.lerl.config import PlannerChoice, Setup
from rapport.experiments.lerl.evaluation import evaluation_users, play
from rapport.experiments.lerl.training import Progress, Training, first_agent
from rapport.experiments.results.store import MethodResult, ResultStore, config_hash
from rapport.experiments.results.summary import RunFacts, compare, markdown, summarise

COLUMNS = (
    ("planner", ""),
    ("T_int", "slates"),
    ("R_cum", "summed click rate"),
    ("against heuristic", "R_cum, paired"),
    ("fallbacks", "of plans"),
)
PLANNERS = ("model", HEURISTIC, "random", "all")
"""The model, the heuristic, eight random categories, and all categories, each with the one-slate cooldown."""
_HELD = 20
"""Slates a plan holds: one plan per session."""
_RENAMED_SEED = 2_000
"""Seed of the names of renamed categories, which no training example uses."""


@lru_cache(maxsize=1)
def _kuairec_stand_in() -> SessionData:
    return synthetic_kuairec(4_000, 1_000, 2_000).data


@dataclass(frozen=True)
class StandInSetup(Setup):
    """KuaiRec's category names with synthetic users and a synthetic log."""

    data: str = "kuairec stand-in"

    def session_data(self) -> SessionData:
        """The data set."""
        return _kuairec_stand_in()


@dataclass(frozen=True)
class Service:
    """A service on which the model is evaluated.

    Attributes:
        name: lower case, used in file names.
        label: name in tables.
        setup: data and environment.
        renamed: the planner sees synthetic names in place of the categories' own.
    """

    name: str
    label: str
    setup: Setup
    renamed: bool = False

    def names(self) -> Sequence[str]:
        """Category names that the planner sees."""
        own = self.setup.session_data().catalog.category_names
        return synthetic_names(np.random.default_rng(_RENAMED_SEED), len(own)) if self.renamed else own


def services(setup: Setup) -> tuple[Service, ...]:
    """The training data, the same users with synthetic category names, and other users, items and names."""
    name = setup.session_data().name
    return (
        Service("taught", name, setup),
        Service("renamed", f"{name}, synthetic names", setup, renamed=True),
        Service("kuairec", "KuaiRec stand-in", StandInSetup(quit_rule=setup.quit_rule, budget=setup.budget)),
    )


@dataclass(frozen=True)
class CardStudy:
    """Evaluation of the model and the controls on every service.

    Attributes:
        model: argument ``source`` of `open_llm`.
        services: the services.
        seeds: number of seeds, of low-level policies, users and random streams.
        sessions: sessions of held-out users per row and seed.
        folder: holds pretrained policies and results, from which a stopped study resumes.
        temperature: sampling temperature of the model.
        low_level: hyper-parameters of the pretrained policies.
    """

    model: str
    services: tuple[Service, ...]
    seeds: int
    sessions: int
    folder: str
    temperature: float
    low_level: LowLevel = field(default_factory=LowLevel)

    def store(self, service: Service) -> ResultStore:
        """Results of this configuration on a service."""
        known = {"environment": service.setup.identity(), "names": list(service.names()), "sessions": self.sessions}
        model = {"model": file_fingerprint(Path(self.model)), "temperature": self.temperature}
        config = config_hash({**known, **model, "low_level": asdict(self.low_level)})
        return ResultStore(Path(self.folder) / "results" / service.name, config)

    def jobs(self) -> list[Named]:
        """One job per service and seed that has no results yet."""
        jobs = []
        for seed in range(self.seeds):
            for service in self.services:
                store = self.store(service)
                if any(store.load(row_name(planner), seed) is None for planner in PLANNERS):
                    jobs.append(Named(f"{service.name}, seed {seed}", PlayService(self, service, seed)))
        return jobs

    def results(self, service: Service, planner: str) -> list[MethodResult]:
        """Results of a planner on a service."""
        found = [self.store(service).load(row_name(planner), seed) for seed in range(self.seeds)]
        return [result for result in found if result is not None]


def row_name(planner: str) -> str:
    """Name of a planner in file names."""
    return planner.replace(" ", "-")


@dataclass(frozen=True)
class PlayService:
    """Evaluates all planners on one service with one seed."""

    study: CardStudy
    service: Service
    seed: int

    def __call__(self, progress: Progress) -> None:
        """Evaluate the planners that have no results yet."""
        study, setup, data = self.study, self.service.setup, self.service.setup.session_data()
        folder = Path(study.folder) / row_name(data.name)
        task = Training(setup, "first", self.seed, 0, str(folder), PlannerChoice("none"), study.low_level)
        agent = first_agent(task, lambda share: progress(0.5 * share))
        users = evaluation_users(data, study.sessions, self.seed)
        store = study.store(self.service)
        for number, name in enumerate(PLANNERS):
            if store.load(row_name(name), self.seed) is not None:
                continue
            llm = open_llm(study.model, sampling=Sampling(study.temperature, seed=self.seed), packaged=PACKAGED)
            planner = self._planner(name, data, llm)
            sessions = setup.sessions(study.sessions, "held_out")
            env = PlannedVectorEnv(sessions, data, planner, period=_HELD, rest=True, once=True)
            played = play(act_on(env, slate_policy(agent).encoder), sampled_actions(agent, self.seed), users, self.seed)
            meter = {**llm.meter.to_dict(), "plans": env.plans_made} if name == "model" else {}
            store.save(MethodResult(row_name(name), name, self.seed, *played[:2], users, played.variety, meter))
            progress(0.5 + 0.5 * (number + 1) / len(PLANNERS))

    def _planner(self, name: str, data: SessionData, llm: LLM) -> Planner:
        sizes, rng = data.catalog.category_sizes, np.random.default_rng([self.seed, 7])
        makers: dict[str, Callable[[], Planner]] = {
            "model": lambda: LLMPlanner(llm, self.service.names(), category_click_rates(data), NoPlanner(sizes)),
            "random": lambda: RandomPlanner(sizes, rng, n=8),
            "all": lambda: NoPlanner(sizes),
        }
        return makers[name]() if name in makers else control_planner(name, data, rng)


def tables(study: CardStudy) -> dict[str, list[tuple[str, ...]]]:
    """Rows of the table of each service, by its label, with the columns :data:`COLUMNS`."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for service in study.services:
        lines = found.setdefault(service.label, [])
        data = service.setup.session_data()
        facts = RunFacts(data.name, int(data.held_out.sum()), service.setup.profile, study.model, "model")
        groups = {planner: study.results(service, planner) for planner in PLANNERS}
        flat = [result for group in groups.values() for result in group]
        table = summarise(flat, facts, [(row_name(planner), planner) for planner in PLANNERS])
        for planner, row in zip(PLANNERS, table.rows, strict=True):
            assert row.t_int is not None and row.r_cum is not None
            gain = None if planner == HEURISTIC else compare(groups[planner], groups[HEURISTIC])
            against = "reference" if gain is None else f"{gain.point:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]"
            fallbacks, plans = (sum(r.meter.get(key, 0) for r in groups[planner]) for key in ("fallbacks", "plans"))
            missed = f"{fallbacks / plans:.1%}" if plans else "-"
            r_cum = f"{row.r_cum.point:.2f} [{row.r_cum.low:.2f}, {row.r_cum.high:.2f}]"
            lines.append((planner, f"{row.t_int.point:.2f}", r_cum, against, missed))
    return found


def unconstrained_plan_rate(study: CardStudy, service: Service, n: int = 300) -> float:
    """Share of completions without a grammar that are plans, for n held-out users at the start of a session."""
    data = service.setup.session_data()
    sessions = service.setup.sessions(n, "held_out")
    observations, info = sessions.reset(seed=0)
    llm = open_llm(study.model, sampling=Sampling(study.temperature), packaged=PACKAGED)
    planner = LLMPlanner(llm, service.names(), category_click_rates(data), NoPlanner(data.catalog.category_sizes))
    views = session_views(observations, info["user"], data, service.setup.slate_size)
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


def reflection_effect(study: CardStudy, n_services: int = 120, n_users: int = 8) -> ReflectionEffect:
    """Plan for users of services with outdated click rates, with and without reflections."""
    llm, rng = (
        open_llm(study.model, sampling=Sampling(study.temperature), packaged=PACKAGED),
        np.random.default_rng(_RENAMED_SEED + 2),
    )
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


def card_markdown(
    study: CardStudy, found: dict[str, list[tuple[str, ...]]], free: dict[str, float], effect: ReflectionEffect
) -> str:
    """The measurements of the card as Markdown."""
    size = Path(study.model).stat().st_size / 1e6
    alone = ", ".join(f"{name} {share:.1%}" for name, share in free.items())
    said = [
        f"file: {size:.2f} MB; temperature {study.temperature:g}; one plan per session, with the one-slate cooldown",
        f"{study.seeds} seeds of {study.sessions:,} sessions of held-out users; low level: the pretrained policy of "
        "each seed, without RL; interquartile mean over seeds [95 % bootstrap interval over seeds and sessions]",
        f"completions without a grammar that are plans: {alone}",
        str(effect),
        "the KuaiRec stand-in has KuaiRec's category names; its users and its log are synthetic",
    ]
    parts = [f"### {label}\n\n{markdown(COLUMNS, lines)}" for label, lines in found.items()]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in said)]) + "\n"
