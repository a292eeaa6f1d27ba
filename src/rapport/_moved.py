"""Old module paths, which keep working for one version and say where the module is now.

Importing this module puts a finder behind Python's own, so that it is asked only for names that no file has.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

MODULES = {
    "agents.planning.surprise": "agents.planning.schedule",
    "agents.baselines.click_learner": "agents.baselines.online_ctr",
    "agents.baselines.lesson": "agents.baselines.task",
    "agents.baselines.log_model": "agents.baselines.click_prior",
    "agents.baselines.slates": "agents.baselines.controls",
    "agents.llm.backend": "agents.llm.base.backend",
    "agents.llm.circuit": "agents.llm.circuit_breaker",
    "agents.llm.drawing": "agents.llm.gguf.sampling",
    "agents.llm.gguf_context": "agents.llm.gguf.context",
    "agents.llm.gguf_grammar": "agents.llm.gguf.grammar",
    "agents.llm.hub": "agents.llm.gguf.hub",
    "agents.llm.llama_cpp": "agents.llm.gguf.backend",
    "agents.llm.open": "agents.llm.load",
    "agents.llm.store": "agents.llm.sqlite",
    "agents.llm.turns": "agents.llm.gguf.scheduler",
    "agents.lm.embedded": "agents.planning.lm.embedded",
    "agents.lm.gguf_export": "agents.lm.gguf",
    "agents.lm.improving": "agents.planning.lm.policy_gradient",
    "agents.lm.lessons": "agents.planning.lm.examples",
    "agents.lm.lived": "agents.planning.lm.simulated_examples",
    "agents.lm.reflecting": "agents.planning.lm.rule_reflection",
    "agents.lm.teaching": "agents.lm.sft",
    "agents.lm.writing": "agents.lm.generate",
    "agents.planning.lookahead": "agents.planning.lm.lookahead",
    "datasets.archive": "datasets.files.archive",
    "datasets.cache": "datasets.files.cache",
    "datasets.check": "datasets.registry.check",
    "datasets.columns": "datasets.custom.columns",
    "datasets.described": "datasets.custom.manifest",
    "datasets.directory": "datasets.files.directory",
    "datasets.download": "datasets.files.download",
    "datasets.fetch": "datasets.registry.fetch",
    "datasets.frames": "datasets.custom.frames",
    "datasets.histories": "datasets.kuairand.histories",
    "datasets.kuairand_large": "datasets.kuairand.large",
    "datasets.kuairand_surfaces": "datasets.kuairand.surfaces",
    "datasets.kuairec_matrices": "datasets.kuairec.matrices",
    "datasets.kuairec_read": "datasets.kuairec.read",
    "datasets.kuairec_synthetic": "datasets.kuairec.synthetic",
    "datasets.store": "datasets.registry.load",
    "datasets.streaming": "datasets.kuairand.streaming",
    "datasets.tables": "datasets.files.csv_tables",
    "datasets.tensors": "datasets.files.tensors",
    "envs.session.build": "envs.session.factory",
    "envs.session.card": "experiments.simulator.card",
    "envs.session.card_baselines": "experiments.simulator.counting_baselines",
    "envs.session.card_metrics": "experiments.simulator.metrics",
    "envs.session.card_selection": "experiments.simulator.selection_bias",
    "envs.session.causal_transformer": "envs.session.response.causal_transformer",
    "envs.session.compiled_step": "envs.session.compiled.step",
    "envs.session.core": "envs.session.engine.core",
    "envs.session.counting": "envs.session.response.counts",
    "envs.session.diary": "envs.session.render.history",
    "envs.session.exposures": "experiments.satiation.exposures",
    "envs.session.factorisation": "experiments.simulator.factorisation",
    "envs.session.fit": "envs.session.response.fit",
    "envs.session.fixed_effects": "experiments.satiation.fixed_effects",
    "envs.session.history_fit": "envs.session.official.fit",
    "envs.session.history_response": "envs.session.official.response",
    "envs.session.kernels": "envs.session.compiled.kernels",
    "envs.session.lookup": "envs.session.compiled.core",
    "envs.session.noise": "envs.session.engine.counter_rng",
    "envs.session.own_log": "envs.session.custom_log",
    "envs.session.quit": "envs.session.engine.quit_rules",
    "envs.session.render_ansi": "envs.session.render.ansi",
    "envs.session.render_fonts": "envs.session.render.fonts",
    "envs.session.render_image": "envs.session.render.image",
    "envs.session.render_marks": "envs.session.render.marks",
    "envs.session.reward": "envs.session.engine.reward",
    "envs.session.satiation_checks": "experiments.satiation.placebos",
    "envs.session.satiation_fit": "experiments.satiation.fit",
    "envs.session.satiation_measure": "experiments.satiation.measure",
    "envs.session.satiation_panel": "experiments.satiation.panel",
    "envs.session.satiation_parameters": "envs.session.satiation.parameters",
    "envs.session.sequence_response": "envs.session.response.learned",
    "envs.session.sequences": "envs.session.response.batches",
    "envs.session.session_view": "envs.session.render.view",
    "envs.session.similarity": "envs.session.official.similarity",
    "envs.session.simulator": "envs.session.simulator_cache",
    "envs.session.starts": "envs.session.engine.initial_histories",
    "envs.session.transformer_model": "envs.session.official.user_model",
    "envs.session.user_model": "envs.session.response.user_model",
    "experiments.bench_commands": "experiments.commands.bench",
    "experiments.calibrate_commands": "experiments.commands.quit_rule",
    "experiments.calibration": "experiments.simulator.quit_rule_length",
    "experiments.card_page": "experiments.simulator.card_page",
    "experiments.card_tables": "experiments.simulator.card_tables",
    "experiments.cost": "experiments.results.llm_cost",
    "experiments.data_commands": "experiments.commands.data",
    "experiments.evaluate": "experiments.commands.evaluate",
    "experiments.export_commands": "experiments.commands.export",
    "experiments.groups": "experiments.lerl.user_groups",
    "experiments.lm_card": "experiments.planner_lm.card",
    "experiments.lm_commands": "experiments.commands.lm",
    "experiments.lm_improving": "experiments.planner_lm.improve",
    "experiments.lm_school": "experiments.planner_lm.build",
    "experiments.offline": "experiments.export.minari",
    "experiments.page": "experiments.report.page",
    "experiments.planner_commands": "experiments.commands.planner",
    "experiments.planner_study": "experiments.lerl.planner_study",
    "experiments.pool": "experiments.jobs.local",
    "experiments.profiles": "experiments.report.performance_profile",
    "experiments.ray_pool": "experiments.jobs.ray",
    "experiments.recording": "experiments.report.session_record",
    "experiments.reflection_commands": "experiments.commands.reflections",
    "experiments.reproduce.answers": "experiments.lerl.pages.findings",
    "experiments.reproduce.methods": "experiments.lerl.rows",
    "experiments.reproduce.paper": "experiments.lerl.pages.paper",
    "experiments.reproduce.search": "experiments.lerl.search",
    "experiments.reproduce.studies": "experiments.lerl.sensitivity",
    "experiments.reproduce_commands": "experiments.commands.reproduce",
    "experiments.run": "experiments.commands.run",
    "experiments.satiation_commands": "experiments.commands.satiation",
    "experiments.satiation_controls": "experiments.satiation.controls",
    "experiments.satiation_inside": "experiments.satiation.double_count",
    "experiments.satiation_separation": "experiments.satiation.separation",
    "experiments.satiation_study": "experiments.satiation.study",
    "experiments.satiation_tables": "experiments.satiation.tables",
    "experiments.setup": "experiments.lerl.config",
    "experiments.simulator_commands": "experiments.commands.simulator",
    "experiments.simulator_compare": "experiments.simulator.compare",
    "experiments.stats": "experiments.results.stats",
    "experiments.table": "experiments.results.summary",
    "experiments.training": "experiments.lerl.training",
    "experiments.transcript_commands": "experiments.commands.transcript",
}
"""Old path of a module -> its path now, both under ``rapport``."""

PACKAGES = {
    "agents.llm.base": "agents.llm.base.interface",
    "datasets.files": "datasets.custom.files",
    "datasets.kuairand": "datasets.kuairand.pure",
    "datasets.kuairec": "datasets.kuairec.load",
    "envs.session.engine": "envs.session.compiled.select",
    "envs.session.official": "envs.session.official.profile",
    "envs.session.response": "envs.session.response.base",
    "envs.session.satiation": "envs.session.satiation.model",
    "experiments.report": "experiments.report.figures",
    "experiments.results": "experiments.results.store",
}
"""Old path of a module that is a package's now -> where the module's names are, both under ``rapport``."""


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        root, _, old = fullname.partition(".")
        if root != "rapport":
            return None
        if old in MODULES:
            return ModuleSpec(fullname, _Alias(f"rapport.{MODULES[old]}"))
        # A package that is gone is empty: what was in it is found here alone.
        gone = any(name.startswith(f"{old}.") for name in MODULES)
        return ModuleSpec(fullname, None, is_package=True) if gone else None


class _Alias(Loader):
    """Gives an old name the very module that has the new one."""

    def __init__(self, name: str) -> None:
        self.name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        warnings.warn(
            f"{spec.name} is {self.name} now; the old path will be removed in version 0.2",
            DeprecationWarning,
            stacklevel=2,
        )
        module = import_module(self.name)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system has put the old name's there


def moved(package: str) -> Callable[[str], Any]:
    """A package's ``__getattr__`` that answers the names of the module that had its path, with a DeprecationWarning.

    Args:
        package: the package's ``__name__``, one of :data:`PACKAGES`.
    """
    module = f"rapport.{PACKAGES[package.removeprefix('rapport.')]}"

    def __getattr__(name: str) -> Any:
        if name.startswith("_") or find_spec(f"{package}.{name}") is not None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(module), name)
        warnings.warn(
            f"{package}.{name} is {module}.{name} now; the old path will be removed in version 0.2",
            DeprecationWarning,
            stacklevel=2,
        )
        return value

    return __getattr__


sys.meta_path.append(_Finder())
