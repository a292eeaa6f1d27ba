"""What environments need before anybody is served in them, such as a fitted simulator: done once for all processes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial

from rich.console import Console

from rapport.envs.common.preparation import prepare as prepare_env
from rapport.experiments.core.env_config import EnvConfig
from rapport.experiments.core.identity import identity
from rapport.experiments.jobs.local import ProgressDisplay
from rapport.experiments.results.store import config_hash


def prepare(envs: Iterable[EnvConfig], console: Console) -> None:
    """Prepare environments, on all cores, those that need the same once; what is ready is passed over quickly."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    for env in {config_hash(identity(env.identity())): env for env in envs}.values():
        with ProgressDisplay(console, 1) as display:
            name = f"preparing {env.title or env.id}"
            prepare_env(env.id, partial(_show, display, name), **env.kwargs, **env.local)
            display.finish(name)


def _show(display: ProgressDisplay, name: str, done: int, total: int) -> None:
    display.show(name, done / total)
