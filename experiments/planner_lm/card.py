"""What the embedded planner model can do: where it was taught, under names it never saw, and on other data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from rapport.agents.planning.lm.examples import InventedService, best, invented_names, prompting_planner
from rapport.agents.planning.lm.rule_reflection import composed_reflection
from rapport.agents.planning.planner import Planner, session_views
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.datasets.kuairec.load import synthetic_kuairec
from rapport.datasets.registry.licence import licence_note
from rapport.datasets.schema import SessionData
from rapport.experiments.jobs.local import Named
from rapport.experiments.lerl.config import PlannerChoice, Setup
from rapport.experiments.lerl.evaluation import evaluation_users, play
from rapport.experiments.lerl.training import Progress, Training, first_agent
from rapport.experiments.report.page import Page, Section
from rapport.experiments.report.table import Table
from rapport.experiments.results.store import MethodResult, ResultStore, config_hash
from rapport.experiments.results.summary import RunFacts, compare, summarise

COLUMNS = (
    ("planner", ""),
    ("T_int", "slates"),
    ("R_cum", "summed click rate"),
    ("against heuristic", "R_cum, paired"),
    ("fallbacks", "of plans"),
)
PLANNERS = ("model", HEURISTIC, "random", "all")
"""The model; the heuristic; eight categories at random; all of them: under each, those just shown are given a rest."""
_HELD = 20
"""Slates a plan holds: one a session."""
_RENAMED_SEED = 2_000
"""Draws the names of the renamed categories, of no lesson's."""


@lru_cache(maxsize=1)
def _kuairec_stand_in() -> SessionData:
    return synthetic_kuairec(4_000, 1_000, 2_000).data


@dataclass(frozen=True)
class StandInSetup(Setup):
    """KuaiRec's categories by name, and people and a log that are made up."""

    data: str = "kuairec stand-in"

    def session_data(self) -> SessionData:
        """The data set."""
        return _kuairec_stand_in()


@dataclass(frozen=True)
class Service:
    """Where the model is tested.

    Attributes:
        name: lower case, used in file names.
        label: shown.
        setup: data and environment.
        renamed: the planner is told invented names in place of the categories' own.
    """

    name: str
    label: str
    setup: Setup
    renamed: bool = False

    def names(self) -> Sequence[str]:
        """Names of the categories, as the planner is told them."""
        own = self.setup.session_data().catalog.category_names
        return invented_names(np.random.default_rng(_RENAMED_SEED), len(own)) if self.renamed else own


def services(setup: Setup) -> tuple[Service, ...]:
    """Where it was taught, the same people under other names, and other people, items and names."""
    name = setup.session_data().name
    return (
        Service("taught", name, setup),
        Service("renamed", f"{name}, invented names", setup, renamed=True),
        Service("kuairec", "KuaiRec stand-in", StandInSetup(quit_rule=setup.quit_rule, budget=setup.budget)),
    )


@dataclass(frozen=True)
class CardStudy:
    """The model and the controls at every service.

    Attributes:
        model: what `open_llm` takes.
        services: where.
        seeds: of low levels, users and responses.
        sessions: of held-out users per row and seed.
        folder: keeps first policies and results; a stopped study goes on from it.
        temperature: of the model.
        low_level: of the first policies.
    """

    model: str
    services: tuple[Service, ...]
    seeds: int
    sessions: int
    folder: str
    temperature: float
    low_level: LowLevel = field(default_factory=LowLevel)

    def store(self, service: Service) -> ResultStore:
        """Results at a service, of this very configuration."""
        known = {"environment": service.setup.identity(), "names": list(service.names()), "sessions": self.sessions}
        model = {"model": file_fingerprint(Path(self.model)), "temperature": self.temperature}
        config = config_hash({**known, **model, "low_level": asdict(self.low_level)})
        return ResultStore(Path(self.folder) / "results" / service.name, config)

    def jobs(self) -> list[Named]:
        """Per data set and seed a first policy, then whatever was not played."""
        jobs = []
        for seed in range(self.seeds):
            for service in self.services:
                store = self.store(service)
                if any(store.load(row_name(planner), seed) is None for planner in PLANNERS):
                    jobs.append(Named(f"{service.name}, seed {seed}", PlayService(self, service, seed)))
        return jobs

    def results(self, service: Service, planner: str) -> list[MethodResult]:
        """What was played."""
        found = [self.store(service).load(row_name(planner), seed) for seed in range(self.seeds)]
        return [result for result in found if result is not None]


def row_name(planner: str) -> str:
    """A planner's name in file names."""
    return planner.replace(" ", "-")


@dataclass(frozen=True)
class PlayService:
    """Plays all planners at one service with one seed."""

    study: CardStudy
    service: Service
    seed: int

    def __call__(self, progress: Progress) -> None:
        """Do what is not done yet."""
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


def tables(study: CardStudy) -> list[Table]:
    """A table per service, under its label."""
    found = []
    for service in study.services:
        lines = []
        data = service.setup.session_data()
        facts = RunFacts(data.name, int(data.held_out.sum()), service.setup.profile, study.model, "model")
        groups = {planner: study.results(service, planner) for planner in PLANNERS}
        flat = [result for group in groups.values() for result in group]
        table = summarise(flat, facts, [(row_name(planner), planner) for planner in PLANNERS])
        for planner, row in zip(PLANNERS, table.rows, strict=True):
            assert row.t_int is not None and row.r_cum is not None
            gain = None if planner == HEURISTIC else compare(groups[planner], groups[HEURISTIC])
            against = "reference" if gain is None else gain.shown(2, signed=True)
            fallbacks, plans = (sum(r.meter.get(key, 0) for r in groups[planner]) for key in ("fallbacks", "plans"))
            missed = f"{fallbacks / plans:.1%}" if plans else "-"
            lines.append((planner, f"{row.t_int.point:.2f}", row.r_cum.shown(2), against, missed))
        found.append(Table(COLUMNS, tuple(lines), service.label))
    return found


def unaided(study: CardStudy, service: Service, n: int = 300) -> float:
    """Share of answers that are plans with no grammar to keep them so, for n held-out users at a session's start."""
    data = service.setup.session_data()
    sessions = service.setup.sessions(n, "held_out")
    observations, info = sessions.reset(seed=0)
    llm = open_llm(study.model, sampling=Sampling(study.temperature), packaged=PACKAGED)
    planner = LLMPlanner(llm, service.names(), category_click_rates(data), NoPlanner(data.catalog.category_sizes))
    views = session_views(observations, info["user"], data, service.setup.slate_size)
    usable = 0
    for answer in llm.complete(planner.prompts(views), None, 96):
        try:
            planner.parse(decode_json(answer.text))
            usable += 1
        except ValueError:
            continue  # counted by not being usable
    return usable / n


@dataclass(frozen=True)
class Heeded:
    """What reflections do where they tell something: click rate of planned categories, over invented services.

    Attributes:
        without: mean rate of the model's plans without reflections.
        gain: what three reflections add to it.
        margin: half the 95 % interval of the gain, over services.
        possible: what they add to the plans of the teacher, who weighs them with all else.
    """

    without: float
    gain: float
    margin: float
    possible: float

    def __str__(self) -> str:
        low, high = self.gain - self.margin, self.gain + self.margin
        return (
            f"on invented services whose lists are out of date, {self.without:.1%} of planned items are clicked; with "
            f"three reflections {100 * self.gain:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points, where the plans "
            f"of their teacher gain {100 * self.possible:+.1f}"
        )


def heeded(study: CardStudy, n_services: int = 120, people: int = 8) -> Heeded:
    """Plan for people of services whose listed click rates are out of date, with reflections and without."""
    llm, rng = (
        open_llm(study.model, sampling=Sampling(study.temperature), packaged=PACKAGED),
        np.random.default_rng(_RENAMED_SEED + 2),
    )
    rates = np.zeros((n_services, 4))
    for number in range(n_services):
        service = InventedService(rng)
        listed = np.log(service.rates / (1 - service.rates))
        service.true_logit = listed + rng.normal(0, 1.2, len(listed))
        sessions = [service.session(person) for person in service.people(3)]
        served = service.people(people)
        views = service.views(served)
        planner, most = prompting_planner(service.names, service.rates), len(service.names)
        schema = plan_schema(service.names, min(2, most), min(8, most))
        for column, heard in enumerate(([], sessions)):
            taught = [composed_reflection(session, service.names) for session in heard]
            plans = complete_json(llm, planner.prompts_with(views, taught), schema, planner.parse)
            best_known = [best(row) for row in service.known(views, heard)]
            for place, chosen in ((column, plans), (2 + column, best_known)):
                clicked = [served[row, plan].mean() for row, plan in enumerate(chosen) if plan is not None]
                rates[number, place] = np.mean(clicked)
    gains = rates[:, 1] - rates[:, 0]
    margin = 1.96 * gains.std(ddof=1) / np.sqrt(n_services)
    possible = float((rates[:, 3] - rates[:, 2]).mean())
    return Heeded(float(rates[:, 0].mean()), float(gains.mean()), float(margin), possible)


def card_page(study: CardStudy, found: Sequence[Table], free: Mapping[str, float], heard: Heeded) -> Page:
    """The measured part of the card."""
    size = Path(study.model).stat().st_size / 1e6
    data = study.services[0].setup.session_data()
    alone = ", ".join(f"{name} {share:.1%}" for name, share in free.items())
    return Page(
        title="Planner model card",
        finding=card_finding(found),
        findings=[f"Without a grammar, answers that are plans: {alone}", f"Reflections: {heard}"],
        subtitle=f"{Path(study.model).name}, {size:.2f} MB",
        sections=[Section("The model beside planners without one", found)],
        settings={
            "model": f"{size:.2f} MB; temperature {study.temperature:g}; one plan a session, categories of the last "
            "slate in cooldown",
            "sessions": f"{study.seeds} seeds of {study.sessions:,} sessions of held-out users; low level: the "
            "pretrained policy of each seed, without RL",
            "intervals": "interquartile mean over seeds [95 % bootstrap interval over seeds and sessions]",
            "KuaiRec stand-in": "KuaiRec's categories by name; its people and its log are made up",
        },
        licence=licence_note(data.name),
    )


def card_finding(found: Sequence[Table]) -> str:
    """How the model compares with the heuristic at each service, in a sentence."""
    name, against = PLANNERS.index("model"), [column for column, _ in COLUMNS].index("against heuristic")
    lines = [f"{table.rows[name][against]} ({table.caption})" for table in found]
    return f"R_cum under the model's plans less that under the heuristic's: {', '.join(lines)}."
