"""``rapport/KuaiRec-v0``: sessions of users whose response to every video is known from KuaiRec.

See ``docs/kuairec.md`` for spaces, reward, rules, arguments and sources.
"""

from __future__ import annotations

import functools
import logging
from typing import Literal, Unpack

from gymnasium.vector import AutoresetMode

from rapport.datasets.files.directory import data_directory
from rapport.datasets.kuairec.load import CLICK_AT, KuaiRec, load_kuairec, synthetic_kuairec
from rapport.datasets.registry.load import available
from rapport.envs.common.arguments import VECTOR_ONLY, check_arguments
from rapport.envs.common.preparation import Progress, prepared_by
from rapport.envs.session.arguments import SessionArguments
from rapport.envs.session.engine.core import SessionCore
from rapport.envs.session.engine.reward import RewardChoice, TableReward
from rapport.envs.session.env import SessionEnv, SessionVectorEnv
from rapport.envs.session.factory import session_core, single_env, vector_env
from rapport.envs.session.response.base import MatrixResponse, ResponseModel
from rapport.envs.session.response.fit import FitSettings
from rapport.envs.session.simulator_cache import load_simulator, prepare_simulator

LOGGER = logging.getLogger("rapport")

WATCH_RATIO = "watch_ratio"
ResponseName = Literal["lookup", "learned"]


class KuaiRecArguments(SessionArguments, total=False):
    """What ``gym.make("rapport/KuaiRec-v0", ...)`` takes; ``window`` is 9 and ``threshold`` 1 by default."""

    data: str | KuaiRec
    """As of :func:`find_kuairec`; default ``"auto"``."""
    root: str | None
    """The data directory; by default ``$RAPPORT_DATA_DIR``, then the user's cache folder."""
    click_at: float
    """Least watch ratio that is a click, in (0, 5]; default 1."""
    response: ResponseName | ResponseModel
    """``"lookup"`` (default), the small matrix as truth; ``"learned"``, a fitted user model; or a response model."""
    reward: RewardChoice
    """As elsewhere, ``"click"`` by default; or ``"watch_ratio"``, the mean watch ratio of the slate's videos."""
    device: str
    """Where torch computes learned responses; default ``"cpu"``."""


class WatchRatio(TableReward):
    """EasyRL4Rec's and DORL's reward: the watch ratio, in [0, 5], averaged over the slate.

    Args:
        kuairec: the data with the watch ratios.
    """

    def __init__(self, kuairec: KuaiRec) -> None:
        super().__init__(kuairec.watch_ratio, kuairec.truth_users, kuairec.data.population.n_users, WATCH_RATIO)


def find_kuairec(data: str | KuaiRec = "auto", root: str | None = None, click_at: float = CLICK_AT) -> KuaiRec:
    """The data of an environment.

    Args:
        data: ``"kuairec"`` (an error if it is missing), ``"synthetic"`` (made up, fitted to nothing), ``"auto"`` (the
            first if it is available, else the second with a warning in the log), or the data.
        root: the data directory; by default ``$RAPPORT_DATA_DIR``, then the user's cache folder.
        click_at: least watch ratio that is a click in the log.

    Raises:
        DataError: the data is missing or damaged.
        ValueError: the name is unknown.
    """
    if isinstance(data, KuaiRec):
        return data
    return _named_data(data, None if root is None else str(root), str(data_directory(root)), click_at)


@functools.lru_cache(maxsize=4)
def _named_data(name: str, root: str | None, directory: str, click_at: float) -> KuaiRec:
    if name not in ("auto", "kuairec", "synthetic"):
        raise ValueError(f"data={name!r} is unknown; choose auto, kuairec or synthetic, or give a KuaiRec")
    if name == "auto" and not available("kuairec", root):
        LOGGER.warning(
            "KuaiRec is not in %s: using made-up data of its shape (`rapport data fetch kuairec` gets the real one)",
            directory,
        )
        name = "synthetic"
    return synthetic_kuairec() if name == "synthetic" else load_kuairec(root, click_at=click_at)


def kuairec_core(
    n_envs: int,
    *,
    data: str | KuaiRec = "auto",
    root: str | None = None,
    click_at: float = CLICK_AT,
    response: ResponseName | ResponseModel = "lookup",
    reward: RewardChoice = "click",
    device: str = "cpu",
    **arguments: Unpack[SessionArguments],
) -> SessionCore:
    """The engine behind the environment; arguments as of :class:`KuaiRecArguments`.

    Raises:
        ValueError: an argument is out of range or unknown, or the response model does not fit the data.
        DataError: the data is missing or damaged.
    """
    found = find_kuairec(data, root, click_at)
    watched = isinstance(reward, str) and reward == WATCH_RATIO
    if isinstance(reward, str) and reward not in (*found.data.log.behaviours, WATCH_RATIO):
        known = ", ".join((*found.data.log.behaviours, WATCH_RATIO))
        raise ValueError(f"reward={reward!r} is unknown; choose one of {known}, or give weights or a function")
    model = _response(found, response, click_at, device)
    # Only some users are fully observed. A learned model serves all of them, but watch ratios are looked up.
    looked_up = (isinstance(response, str) and response == "lookup") or watched
    both: SessionArguments = {"window": 9, "threshold": 1, **arguments}
    return session_core(
        found.data,
        model,
        n_envs,
        among=found.truth_users if looked_up else None,
        reward=WatchRatio(found) if watched else reward,
        labels=found.tags,
        **both,
    )


def _response(data: KuaiRec, response: str | ResponseModel, click_at: float, device: str) -> ResponseModel:
    if not isinstance(response, str):
        return response
    if response == "lookup":
        return MatrixResponse(data.watch_ratio >= click_at, data.data.log.behaviours, data.truth_users)
    if response == "learned":
        return load_simulator(data.data, device=device)[0]
    raise ValueError(f"response={response!r} is unknown; choose lookup or learned, or give a response model")


def kuairec_env(render_mode: str | None = None, **arguments: Unpack[KuaiRecArguments]) -> SessionEnv:
    """One user at a time: ``gym.make("rapport/KuaiRec-v0", ...)``.

    Args:
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.
        **arguments: see :class:`KuaiRecArguments`.

    Raises:
        TypeError: an argument is unknown.
        ValueError: as of :func:`kuairec_core`.
        DataError: the data is missing or damaged.
    """
    return single_env(kuairec_core, KuaiRecArguments, render_mode, arguments)


def _prepare(progress: Progress | None, **arguments: Unpack[KuaiRecArguments]) -> None:
    """Fit the user model if responses are learned; looked-up responses need no preparation."""
    check_arguments(arguments, KuaiRecArguments, VECTOR_ONLY)
    if arguments.get("response", "lookup") == "learned":
        click_at = arguments.get("click_at", CLICK_AT)
        found = find_kuairec(arguments.get("data", "auto"), arguments.get("root"), click_at)
        prepare_simulator(found.data, FitSettings(), progress)


@prepared_by(_prepare)
def kuairec_vector_env(
    num_envs: int = 1,
    autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    *,
    copy: bool = True,
    **arguments: Unpack[KuaiRecArguments],
) -> SessionVectorEnv:
    """``num_envs`` users at a time: ``gym.make_vec("rapport/KuaiRec-v0", num_envs=...)``; arguments as above.

    ``copy`` as of :class:`~rapport.envs.session.env.SessionVectorEnv`.
    """
    return vector_env(kuairec_core, KuaiRecArguments, num_envs, autoreset_mode, render_mode, copy, arguments)
