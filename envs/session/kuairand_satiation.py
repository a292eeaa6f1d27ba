"""``rapport/KuaiRandSatiation-v0``: sessions of users who respond as in the KuaiRand-Pure log, with satiation.

See ``docs/satiation.md`` for what is measured, what is assumed, and the arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from gymnasium.vector import AutoresetMode

from rapport.datasets.schema import SessionData
from rapport.envs.common.arguments import VECTOR_ONLY, check_arguments
from rapport.envs.common.preparation import Progress, prepared_by
from rapport.envs.session.arguments import CoreArguments
from rapport.envs.session.engine.core import SessionCore
from rapport.envs.session.engine.own_parts import try_response
from rapport.envs.session.env import SessionEnv, SessionVectorEnv
from rapport.envs.session.factory import DataKey, check_choices, single_env, user_pool, vector_env
from rapport.envs.session.kuairand import KuaiRandArguments, find_data, fitted_response, kuairand_core
from rapport.envs.session.response.base import ResponseModel
from rapport.envs.session.response.fit import FitSettings, Profile
from rapport.envs.session.satiation.model import SatiatedResponse, SatiationQuit, SatiationState
from rapport.envs.session.satiation.parameters import SatiationParameters, Strength, shipped
from rapport.envs.session.simulator_cache import prepare_simulator

SATIATION = "satiation"


class SatiationArguments(KuaiRandArguments, total=False):
    """What ``gym.make("rapport/KuaiRandSatiation-v0", ...)`` takes; ``quit_rule`` is ``"satiation"`` by default."""

    strength: Strength
    """Which end of the measured intervals: ``"low"``, ``"estimate"`` (default) or ``"high"``."""
    tolerance: float
    """Of :class:`~rapport.envs.session.satiation.model.SatiationQuit`; default 0.25."""
    parameters: SatiationParameters | None
    """Of user satiation, instead of those that the package ships; ``strength`` is then not used."""


def satiation_core(
    n_envs: int,
    *,
    data: str | SessionData = "auto",
    root: str | None = None,
    profile: Profile = "corrected",
    faults: str | Sequence[str] | None = None,
    response: ResponseModel | None = None,
    strength: Strength = "estimate",
    tolerance: float = 0.25,
    parameters: SatiationParameters | None = None,
    device: str = "cpu",
    **arguments: Unpack[CoreArguments],
) -> SessionCore:
    """The engine behind the environment; arguments as of :class:`SatiationArguments`.

    ``profile`` says how the inner simulator is fitted; ``response`` replaces it.

    Raises:
        ValueError: an argument is out of range or unknown, or the response model does not fit the data.
        DataError: the data is missing or damaged.
    """
    found = find_data(data, root)
    satiation = SatiationState(found, shipped(strength) if parameters is None else parameters)
    rule = arguments.get("quit_rule", SATIATION)
    if isinstance(rule, str) and rule == SATIATION:
        arguments["quit_rule"] = SatiationQuit(satiation, tolerance)
    check_choices(found, arguments.get("users", "train"), arguments.get("reward"), arguments.get("quit_rule", rule))
    if response is None:
        response = fitted_response(DataKey(found), FitSettings(profile=profile), device)
    else:
        users = user_pool(found, arguments.get("users", "train"), arguments.get("among"))
        try_response(response, found, users, arguments.get("slate_size", 6) or 1)
    return kuairand_core(n_envs, data=found, faults=faults, response=SatiatedResponse(response, satiation), **arguments)


def kuairand_satiation_env(render_mode: str | None = None, **arguments: Unpack[SatiationArguments]) -> SessionEnv:
    """One user at a time: ``gym.make("rapport/KuaiRandSatiation-v0", ...)``.

    Args:
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.
        **arguments: see :class:`SatiationArguments`.

    Raises:
        TypeError: an argument is unknown.
        ValueError: as of :func:`satiation_core`.
        DataError: the data is missing or damaged.
    """
    return single_env(satiation_core, SatiationArguments, render_mode, arguments)


def _prepare(progress: Progress | None, **arguments: Unpack[SatiationArguments]) -> None:
    """Fit the inner simulator."""
    check_arguments(arguments, SatiationArguments, VECTOR_ONLY)
    if arguments.get("response") is None:
        settings = FitSettings(profile=arguments.get("profile", "corrected"))
        prepare_simulator(find_data(arguments.get("data", "auto"), arguments.get("root")), settings, progress)


@prepared_by(_prepare)
def kuairand_satiation_vector_env(
    num_envs: int = 1,
    autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    *,
    copy: bool = True,
    **arguments: Unpack[SatiationArguments],
) -> SessionVectorEnv:
    """``num_envs`` users at a time: ``gym.make_vec("rapport/KuaiRandSatiation-v0", num_envs=...)``.

    ``copy`` as of :class:`~rapport.envs.session.env.SessionVectorEnv`.
    """
    return vector_env(satiation_core, SatiationArguments, num_envs, autoreset_mode, render_mode, copy, arguments)
