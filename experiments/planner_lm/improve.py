"""Whether a planner that learns from its sessions beats the one it began as: learning curves on held-out users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rapport.agents.lerl import act_on, sampled_actions, slate_policy
from rapport.agents.llm.gguf.backend import file_fingerprint
from rapport.agents.llm.scripted import ScriptedLLM
from rapport.agents.lm.generate import TorchPlanner
from rapport.agents.lm.gguf import read_gguf, write_gguf
from rapport.agents.planning.build import STORED_TOP_K, control_planner, llm_planner
from rapport.agents.planning.lm.lookahead import HeldPlans
from rapport.agents.planning.lm.policy_gradient import Improving, PlannerLearner, Round
from rapport.agents.planning.wrapper import PlannedVectorEnv
from rapport.experiments.jobs.local import Named
from rapport.experiments.lerl.config import PlannerChoice, Setup
from rapport.experiments.lerl.evaluation import evaluation_users, play
from rapport.experiments.lerl.training import Progress, Training, first_agent
from rapport.experiments.report.figures import COLOURS, LICENCE_KUAIRAND, figure_html, lay_out, template_of
from rapport.experiments.results.stats import Estimate
from rapport.experiments.results.store import MethodResult, ResultStore, config_hash
from rapport.experiments.results.summary import RunFacts, compare, markdown, summarise

COLUMNS = (
    ("rounds", ""),
    ("T_int", "slates"),
    ("R_cum", "summed click rate"),
    ("against frozen", "R_cum, paired"),
    ("KL", "nats a token"),
    ("no plan", "of answers"),
)
_HELD = 20
"""Slates a plan holds while the curve is measured: one plan a session."""


@dataclass(frozen=True)
class ImprovingStudy:
    """The same model improved with several seeds.

    Attributes:
        setup: data and environment.
        model: GGUF file that learning begins from.
        seeds: of low levels, users and tokens.
        sessions: of held-out users for each point of a curve.
        every: rounds between two points.
        folder: keeps first policies, results and improved models; a stopped study goes on from it, seed by seed.
        settings: how the planner learns.
    """

    setup: Setup
    model: str
    seeds: int
    sessions: int
    every: int
    folder: str
    settings: Improving = field(default_factory=Improving)

    def store(self) -> ResultStore:
        """Results of this very configuration."""
        known = {"environment": self.setup.identity(), "model": file_fingerprint(Path(self.model))}
        numbers = [self.sessions, self.every]
        return ResultStore(
            Path(self.folder) / "results", config_hash({**known, "how": asdict(self.settings), "numbers": numbers})
        )

    def points(self) -> list[int]:
        """Rounds after which the planner is measured."""
        return [*range(0, self.settings.rounds, self.every), self.settings.rounds]

    def results(self) -> list[MethodResult]:
        """What has been measured."""
        store = self.store()
        found = [store.load(point_name(n), seed) for n in self.points() for seed in range(self.seeds)]
        return [result for result in found if result is not None]

    def jobs(self) -> list[Named]:
        """One per seed that is not done."""
        store, last = self.store(), point_name(self.settings.rounds)
        missing = [seed for seed in range(self.seeds) if store.load(last, seed) is None]
        return [Named(f"seed {seed}", ImproveSeed(self, seed)) for seed in missing]

    def improved(self, seed: int) -> Path:
        """Where the improved model of a seed is written."""
        return Path(self.folder) / f"improved-seed{seed}.gguf"


def point_name(rounds: int) -> str:
    """Name of a point of the curve in the results."""
    return f"rounds-{rounds:04d}"


@dataclass(frozen=True)
class ImproveSeed:
    """Improves the model with one seed and measures it on the way."""

    study: ImprovingStudy
    seed: int

    def __call__(self, progress: Progress) -> None:
        """Learn, measure and keep, from the beginning."""
        study, setup = self.study, self.study.setup
        data = setup.session_data()
        task = Training(setup, "first", self.seed, 0, study.folder, PlannerChoice("none"))
        agent = first_agent(task, lambda share: progress(0.1 * share))
        model, tokenizer = read_gguf(study.model)
        rng = np.random.default_rng([self.seed, 6])
        worded = llm_planner(ScriptedLLM([]), data, rng, None)
        fallback = control_planner(STORED_TOP_K, data, rng)
        low_level = HeldPlans(slate_policy(agent), data.catalog.category, data.catalog.category_sizes, setup.slate_size)
        learner = PlannerLearner(model, tokenizer, worded, fallback, low_level, study.settings, self.seed)

        def measure(rounds: int, seen: Round | None) -> None:
            planner = TorchPlanner(model, tokenizer, worded, fallback)
            sessions = setup.sessions(study.sessions, "held_out")
            env = PlannedVectorEnv(sessions, data, planner, period=_HELD, cooldown=True)
            users = evaluation_users(data, study.sessions, self.seed)
            acting = act_on(env, slate_policy(agent).encoder)
            played = play(acting, sampled_actions(agent, self.seed), users, self.seed)
            meter = {"unusable": planner.unusable, "plans": float(env.plans_made)}
            meter |= {} if seen is None else {"kl": seen.kl}
            label = "frozen" if rounds == 0 else f"{rounds} rounds"
            study.store().save(
                MethodResult(point_name(rounds), label, self.seed, *played[:2], users, played.variety, meter)
            )

        def report(rounds: int, seen: Round) -> None:
            if rounds in study.points():
                measure(rounds, seen)
            progress(0.1 + 0.9 * rounds / study.settings.rounds)

        measure(0, None)
        learner.learn(setup.sessions(study.settings.users, "train"), report)
        write_gguf(study.improved(self.seed), model, tokenizer, name="Rapport planner, improved")


@dataclass(frozen=True)
class Point:
    """One point of the learning curve, over all seeds.

    Attributes:
        rounds: updates so far.
        cells: its line of the table, in the order of :data:`COLUMNS`.
        against: R_cum minus the frozen planner's, paired; None for the frozen planner.
    """

    rounds: int
    cells: tuple[str, ...]
    against: Estimate | None


def curve(study: ImprovingStudy, results: Sequence[MethodResult]) -> list[Point]:
    """The points in order."""
    data = study.setup.session_data()
    facts = RunFacts(data.name, int(data.held_out.sum()), study.setup.profile, Path(study.model).name, point_name(0))
    groups = {n: [r for r in results if r.method == point_name(n)] for n in study.points()}
    points = []
    for rounds, row in zip(
        groups, summarise(results, facts, [(point_name(n), str(n)) for n in groups]).rows, strict=True
    ):
        assert row.t_int is not None and row.r_cum is not None
        against = compare(groups[rounds], groups[0]) if rounds else None
        kl = np.mean([result.meter.get("kl", 0.0) for result in groups[rounds]])
        unusable = sum(r.meter["unusable"] for r in groups[rounds]) / sum(r.meter["plans"] for r in groups[rounds])
        t_int, r_cum = (f"{x.point:.2f} [{x.low:.2f}, {x.high:.2f}]" for x in (row.t_int, row.r_cum))
        gain = "reference" if against is None else f"{against.point:+.3f} [{against.low:+.3f}, {against.high:+.3f}]"
        points.append(Point(rounds, (str(rounds), t_int, r_cum, gain, f"{kl:.3f}", f"{unusable:.1%}"), against))
    return points


def said(points: Sequence[Point]) -> list[str]:
    """What the curve says, in one sentence."""
    last = points[-1].against
    if last is None:
        return ["Nothing was learned yet."]
    how = f"{last.point:+.3f} [{last.low:+.3f}, {last.high:+.3f}] in R_cum after {points[-1].rounds} rounds"
    if last.low > 0:
        return [f"The planner that learns beats the frozen one on held-out users: {how}."]
    if last.high < 0:
        return [f"The planner that learns is worse than the frozen one on held-out users: {how}."]
    return [f"Learning does not tell on held-out users: {how}."]


def notes(study: ImprovingStudy) -> list[str]:
    """What the table rests on."""
    data = study.setup.session_data()
    how = study.settings
    return [
        f"data: {data.name}, quit rule {study.setup.quit_rule}; {study.seeds} seeds, {study.sessions:,} sessions of "
        f"{int(data.held_out.sum()):,} held-out users each; one plan a session, the likeliest tokens",
        f"learning: {how.users} training users x {how.plans} plans a round, valued over {how.horizon} slates; learning "
        f"rate {how.learning_rate:g}, KL weight {how.kl:g}",
        "interquartile mean over seeds [95 % bootstrap interval over seeds and sessions]; differences paired by seed "
        "and session",
    ]


def as_markdown(study: ImprovingStudy, points: Sequence[Point]) -> str:
    """The curve as Markdown."""
    lists = ["\n".join(f"- {line}" for line in lines) for lines in (said(points), notes(study))]
    table = markdown(COLUMNS, [point.cells for point in points])
    return "\n\n".join(["# A planner that learns", lists[0], table, lists[1]]) + "\n"


def page(study: ImprovingStudy, points: Sequence[Point]) -> str:
    """The curve as one HTML page.

    Raises:
        ModuleNotFoundError: the ``report`` extra is not installed.
    """
    template, parts = template_of("planner.html.j2")
    lines = notes(study)
    table = {"columns": COLUMNS, "rows": [point.cells for point in points]}
    return str(
        template.render(
            title="A planner that learns",
            subtitle=lines[0],
            verdict=said(points),
            figure=figure_html(_figure(points)),
            tables=[table],
            notes=lines[1:],
            licence=LICENCE_KUAIRAND,
            **parts,
        )
    )


def _figure(points: Sequence[Point]) -> Any:
    import plotly.graph_objects as go

    later = [(point.rounds, point.against) for point in points if point.against is not None]
    figure = go.Figure()
    figure.add_scatter(
        x=[0, *(rounds for rounds, _ in later)],
        y=[0, *(x.point for _, x in later)],
        error_y={
            "array": [0, *(x.high - x.point for _, x in later)],
            "arrayminus": [0, *(x.point - x.low for _, x in later)],
            "thickness": 1.4,
        },
        mode="lines+markers",
        marker={"size": 8, "color": COLOURS[0]},
        line={"color": COLOURS[0], "width": 1.6},
        hovertemplate="after %{x} rounds<br>%{y:+.3f}<extra></extra>",
        showlegend=False,
    )
    lay_out(figure, "R_cum above the frozen planner [summed click rate]", 340)
    figure.update_xaxes(title="rounds of learning")
    return figure
