"""The one experiment mechanism, statistics and pages; LERL's tables are made with it, and so are anybody's.

The public names are imported from their modules when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rapport.experiments.core import EnvConfig as EnvConfig
    from rapport.experiments.core import Episodes as Episodes
    from rapport.experiments.core import Experiment as Experiment
    from rapport.experiments.core import Row as Row
    from rapport.experiments.core import ServingPolicy as ServingPolicy
    from rapport.experiments.core import Task as Task
    from rapport.experiments.core import play as play
    from rapport.experiments.jobs.local import run_jobs as run_jobs
    from rapport.experiments.report.page import Page as Page
    from rapport.experiments.report.page import Section as Section
    from rapport.experiments.report.page import publish as publish
    from rapport.experiments.report.results_table import results_table as results_table
    from rapport.experiments.report.table import Table as Table
    from rapport.experiments.results.metrics import Metric as Metric
    from rapport.experiments.results.summary import summarise as summarise
    from rapport.experiments.results.summary import verdict as verdict

_HOME = {
    "EnvConfig": "core",
    "Episodes": "core",
    "Experiment": "core",
    "Metric": "results.metrics",
    "Page": "report.page",
    "Row": "core",
    "Section": "report.page",
    "ServingPolicy": "core",
    "Table": "report.table",
    "Task": "core",
    "play": "core",
    "publish": "report.page",
    "results_table": "report.results_table",
    "run_jobs": "jobs.local",
    "summarise": "results.summary",
    "verdict": "results.summary",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
