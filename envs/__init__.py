"""Gymnasium environments over :mod:`rapport.datasets`. They know no agent.

The public names are imported from their modules when they are first used: registering the ids costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rapport.envs.common.preparation import prepare, prepared_by
    from rapport.envs.registration import register_environments
    from rapport.envs.session.arguments import SessionArguments
    from rapport.envs.session.custom_log import register_log
    from rapport.envs.session.engine.core import SessionCore
    from rapport.envs.session.engine.quit_rules import (
        Never,
        Positional,
        QuitRule,
        Satisfaction,
        SetOverlap,
        Slate,
        WindowedCount,
    )
    from rapport.envs.session.env import SessionEnv, SessionVectorEnv
    from rapport.envs.session.factory import session_core
    from rapport.envs.session.kuairand import KuaiRandArguments
    from rapport.envs.session.kuairand_satiation import SatiationArguments
    from rapport.envs.session.kuairec import KuaiRecArguments
    from rapport.envs.session.response.base import MatrixResponse, ResponseModel
    from rapport.envs.session.satiation.model import SatiatedResponse, SatiationQuit, SatiationState
    from rapport.envs.session.satiation.parameters import SatiationParameters

__all__ = [
    "KuaiRandArguments",
    "KuaiRecArguments",
    "MatrixResponse",
    "Never",
    "Positional",
    "QuitRule",
    "ResponseModel",
    "SatiatedResponse",
    "SatiationArguments",
    "SatiationParameters",
    "SatiationQuit",
    "SatiationState",
    "Satisfaction",
    "SessionArguments",
    "SessionCore",
    "SessionEnv",
    "SessionVectorEnv",
    "SetOverlap",
    "Slate",
    "WindowedCount",
    "prepare",
    "prepared_by",
    "register_environments",
    "register_log",
    "session_core",
]

_MODULES = {
    "rapport.envs.common.preparation": (
        "prepare",
        "prepared_by",
    ),
    "rapport.envs.registration": ("register_environments",),
    "rapport.envs.session.arguments": ("SessionArguments",),
    "rapport.envs.session.custom_log": ("register_log",),
    "rapport.envs.session.engine.core": ("SessionCore",),
    "rapport.envs.session.engine.quit_rules": (
        "Never",
        "Positional",
        "QuitRule",
        "Satisfaction",
        "SetOverlap",
        "Slate",
        "WindowedCount",
    ),
    "rapport.envs.session.env": (
        "SessionEnv",
        "SessionVectorEnv",
    ),
    "rapport.envs.session.factory": ("session_core",),
    "rapport.envs.session.kuairand": ("KuaiRandArguments",),
    "rapport.envs.session.kuairand_satiation": ("SatiationArguments",),
    "rapport.envs.session.kuairec": ("KuaiRecArguments",),
    "rapport.envs.session.response.base": (
        "MatrixResponse",
        "ResponseModel",
    ),
    "rapport.envs.session.satiation.model": (
        "SatiatedResponse",
        "SatiationQuit",
        "SatiationState",
    ),
    "rapport.envs.session.satiation.parameters": ("SatiationParameters",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'rapport.envs' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
