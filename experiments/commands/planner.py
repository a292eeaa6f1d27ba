"""``rapport planner cost | reflections``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from rich.console import Console

from rapport.agents.checkpoint import read_checkpoint, reading_note
from rapport.agents.llm.transcript import seal
from rapport.experiments.commands.options import (
    LanguageModel,
    LanguageModelLimits,
    LocalData,
    Sizes,
    Workers,
    at_least_one,
)
from rapport.experiments.commands.run import tell_problems
from rapport.experiments.core import EnvConfig, Experiment, Row
from rapport.experiments.core.env_config import prepare
from rapport.experiments.lerl.config import LLM, LLM_ONLY, PlannerConfig, with_language_model
from rapport.experiments.lerl.environments import env_of_note, session_env
from rapport.experiments.lerl.pages.planner import cost_page, reflections_page
from rapport.experiments.lerl.planner_study import (
    StudyLearner,
    checkpoint_of,
    cost_rows,
    planner_study,
    reflection_rows,
    study_learner,
)
from rapport.experiments.report.page import publish

FULL = {"seeds": 5, "sessions": 1_000, "pool_sessions": 200}
QUICK = {"seeds": 2, "sessions": 200, "pool_sessions": 40}
"""What ``--quick`` makes of the settings that were not given."""


@dataclass(kw_only=True)
class _PlannerStudy(LocalData, Sizes, LanguageModel, LanguageModelLimits, Workers):
    checkpoint: Path | None = None
    """Folder of a run, e.g. runs/lerl, whose trained LERL agents play; by default the pretrained policies play."""
    pool_sessions: int | None = None
    """Sessions of training users that fill each seed's pool of reflections beforehand; 200 by default."""

    def _study(
        self, rows: Callable[[EnvConfig, PlannerConfig, StudyLearner], tuple[Row, ...]], out: Path, console: Console
    ) -> Experiment:
        """Play what has not been played yet."""
        sizes = self.sizes(FULL, QUICK)
        env = session_env("kuairand", self.data, self.data_dir)
        agents = None if self.checkpoint is None else self.checkpoint.resolve()
        if agents is not None:
            with reading_note(checkpoint_of(agents, 0)):
                env = env_of_note(read_checkpoint(checkpoint_of(agents, 0))[1], self.data, self.data_dir)
        llm = with_language_model(PlannerConfig(LLM), self.llm, self.budget(), self.llm_record, self.model_settings())
        llm.open(seed=0)
        learner = study_learner(llm, sizes["pool_sessions"], agents, sizes["seeds"])
        study = planner_study(rows(env, llm, learner), sizes["seeds"], sizes["sessions"], out.resolve())
        tell_problems(study, console)
        prepare([env], console)
        self.run_jobs(study.jobs(), console)
        if llm.record is not None:
            seal(Path(llm.record))
        return study


@dataclass(kw_only=True)
class PlannerCost(_PlannerStudy):
    """Return against calls: plans that hold for 1 to 20 slates, or until a replan trigger."""

    surprise: float = 2.0
    """Standard deviations from the clicks expected beyond which a session is planned anew, in the row that does so."""
    out: Path = Path("runs/planner-cost")
    """Folder of pretrained policies, pools, results and the report. A stopped study goes on where it was."""

    reference: ClassVar[str] = "llm-1"

    def run(self) -> int:
        """Play, print and write; 0."""
        console = Console()
        study = self._study(lambda env, llm, how: cost_rows(env, llm, how, self.surprise), self.out, console)
        publish(cost_page(study, self.reference), study.folder, console)
        return 0


@dataclass(kw_only=True)
class PlannerReflections(_PlannerStudy):
    """What reflections do: as LERL draws them, none, with shuffled scores, and those on the worst sessions."""

    period: int = 5
    """Slates a plan holds."""
    out: Path = Path("runs/planner-reflections")
    """Folder of pretrained policies, pools, results and the report. A stopped study goes on where it was."""

    reference: ClassVar[str] = LLM_ONLY.replace(" ", "-")

    def run(self) -> int:
        """Play, print and write; 0."""
        at_least_one(period=self.period)
        console = Console()
        study = self._study(
            lambda env, llm, how: reflection_rows(env, replace(llm, period=self.period), how), self.out, console
        )
        publish(reflections_page(study, self.reference), study.folder, console)
        return 0
