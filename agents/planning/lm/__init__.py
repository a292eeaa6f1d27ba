"""The embedded planner model: its file, its training examples and its fine-tuning by policy gradient.

Names other than those of the file are imported when they are first used, because they need torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rapport.agents.planning.lm.embedded import EMBEDDED, PACKAGED, embedded_model

if TYPE_CHECKING:
    from rapport.agents.planning.lm.curriculum import Curriculum as Curriculum
    from rapport.agents.planning.lm.lookahead import FixedPlanPolicy as FixedPlanPolicy
    from rapport.agents.planning.lm.policy_gradient import PolicyGradientConfig as PolicyGradientConfig
    from rapport.agents.planning.lm.policy_gradient import PolicyGradientTrainer as PolicyGradientTrainer
    from rapport.agents.planning.lm.simulated_examples import SimulatedExamples as SimulatedExamples
    from rapport.agents.planning.lm.synthetic_examples import SyntheticService as SyntheticService
    from rapport.agents.planning.lm.torch_planner import TorchPlanner as TorchPlanner

_MODULES = {
    "Curriculum": "curriculum",
    "FixedPlanPolicy": "lookahead",
    "PolicyGradientConfig": "policy_gradient",
    "PolicyGradientTrainer": "policy_gradient",
    "SimulatedExamples": "simulated_examples",
    "SyntheticService": "synthetic_examples",
    "TorchPlanner": "torch_planner",
}
__all__ = ["EMBEDDED", "PACKAGED", "embedded_model", *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
