"""The methods compared under satiation: from chance to a planner that may read the simulator.

All but ``random`` show no item twice in a session. The first five know what any agent may know: the log of training
users and what the user does. The last two read the simulator, and their names say so: ``oracle, greedy`` reads what a
user without satiation would click; ``oracle, look-ahead`` reads satiation too and tries policies out on a copy of it.
"""

from __future__ import annotations

import numpy as np

from rapport.agents.baselines.controls import PlannedSlates, PopularSlates, RandomSlates
from rapport.agents.baselines.oracles import LookAhead, OracleGreedy
from rapport.agents.planning.build import control_planner
from rapport.envs.session.engine.core import SessionCore
from rapport.experiments.core import Act

PLANNED = {"greedy": "greedy preference", "rotation": "rotation", "greedy rotation": "greedy rotation"}
"""Row -> planner; the most popular items of the planned categories are served."""
METHODS = ("random", "popularity", *PLANNED, "oracle, greedy", "oracle, look-ahead")


def control(name: str, core: SessionCore, rng: np.random.Generator) -> Act:
    """One of :data:`METHODS` for the sessions of an engine.

    Raises:
        ValueError: there is no such method.
    """
    if name not in METHODS:
        raise ValueError(f"method={name!r} is unknown; choose one of {', '.join(METHODS)}")
    if name in PLANNED:
        return PlannedSlates(core, control_planner(PLANNED[name], core.data, rng))
    if name == "random":
        return RandomSlates(core.data.catalog.n_items, core.slate_size, rng)
    if name == "popularity":
        return PopularSlates(core.data, core.slate_size)
    return OracleGreedy(core) if name == "oracle, greedy" else LookAhead(core)
