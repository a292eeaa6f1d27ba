"""``rapport/KuaiRandSatiation-v0``: sessions of people who respond as in the KuaiRand-Pure log, and tire.

See ``docs/satiation.md`` for what is measured, what is assumed, and the arguments.
"""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from rapport.datasets.schema import SessionData
from rapport.envs.session.engine.core import SessionCore
from rapport.envs.session.engine.quit_rules import QuitRule
from rapport.envs.session.env import SessionEnv, SessionVectorEnv
from rapport.envs.session.factory import ByFingerprint, pool
from rapport.envs.session.kuairand import find_data, fitted_response, kuairand_core
from rapport.envs.session.response.base import ResponseModel
from rapport.envs.session.response.fit import FitSettings, Profile
from rapport.envs.session.satiation.model import Boredom, SatiatedResponse, SatiationQuit
from rapport.envs.session.satiation.parameters import SatiationParameters, Strength, shipped

SATIATION = "satiation"


def satiation_core(
    n_envs: int,
    *,
    data: str | SessionData = "auto",
    root: str | None = None,
    profile: Profile = "corrected",
    response: ResponseModel | None = None,
    quit_rule: str | QuitRule = SATIATION,
    strength: Strength = "estimate",
    tolerance: float = 0.25,
    parameters: SatiationParameters | None = None,
    device: str = "cpu",
    **arguments: Any,
) -> SessionCore:
    """The engine behind the environment.

    Args:
        n_envs: sessions at once.
        data: as of :func:`~rapport.envs.session.kuairand.find_data`.
        root: the data directory.
        profile: how the inner simulator is fitted.
        response: what people do when rested, in the inner simulator's place.
        quit_rule: ``"satiation"``, another rule's name, or a rule.
        strength: which end of the measured intervals; see
            :func:`~rapport.envs.session.satiation.parameters.parameters_from`.
        tolerance: of :class:`~rapport.envs.session.satiation.model.SatiationQuit`.
        device: where torch computes the inner responses.
        parameters: of how people tire, in the place of those that the package ships; ``strength`` is then not used.
        **arguments: the others as of :func:`~rapport.envs.session.factory.session_core`.

    Raises:
        ValueError: an argument is out of range or names what there is not, or the response model does not fit the data.
        DataError: the data is missing or damaged.
    """
    found = find_data(data, root)
    pool(found, arguments.get("users", "train"))  # a wrong word is refused before minutes of fitting, not after
    parameters = shipped(strength) if parameters is None else parameters
    boredom = Boredom(found, parameters)
    rule: str | QuitRule = quit_rule
    if isinstance(quit_rule, str) and quit_rule == SATIATION:
        rule = SatiationQuit(boredom, tolerance)
    if response is None:
        response = fitted_response(ByFingerprint(found), FitSettings(profile=profile), device)
    return kuairand_core(n_envs, data=found, response=SatiatedResponse(response, boredom), quit_rule=rule, **arguments)


def kuairand_satiation_env(
    render_mode: str | None = None, *, slate_size: int | None = 6, **arguments: Any
) -> SessionEnv:
    """One user at a time: ``gym.make("rapport/KuaiRandSatiation-v0", ...)``; arguments as of :func:`satiation_core`.

    Args:
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.
        slate_size: K; None: one item at a time, a ``Discrete`` action.
        **arguments: the others.

    Raises:
        ValueError: as of :func:`satiation_core`.
        DataError: the data is missing or damaged.
    """
    return SessionEnv(satiation_core(1, slate_size=slate_size, **arguments), slate_size is None, render_mode)


def kuairand_satiation_vector_env(
    num_envs: int = 1,
    autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    *,
    slate_size: int | None = 6,
    copy: bool = True,
    **arguments: Any,
) -> SessionVectorEnv:
    """``num_envs`` users at a time: ``gym.make_vec("rapport/KuaiRandSatiation-v0", num_envs=...)``.

    ``copy`` as of :class:`~rapport.envs.session.env.SessionVectorEnv`.
    """
    core = satiation_core(num_envs, slate_size=slate_size, **arguments)
    return SessionVectorEnv(core, autoreset_mode, slate_size is None, render_mode, copy=copy)
