"""``rapport/KuaiRec-v0``: sessions of people of whom KuaiRec knows what they think of every video.

See ``docs/kuairec.md`` for spaces, reward, rules, arguments and sources.
"""

from __future__ import annotations

import functools
import logging
from typing import Any, Literal, get_args

from gymnasium.vector import AutoresetMode

from rapport.datasets.files.directory import data_directory
from rapport.datasets.kuairec.load import CLICK_AT, KuaiRec, load_kuairec, synthetic_kuairec
from rapport.datasets.registry.load import available
from rapport.envs.session.engine.core import SessionCore
from rapport.envs.session.engine.reward import TableReward
from rapport.envs.session.env import SessionEnv, SessionVectorEnv
from rapport.envs.session.factory import session_core
from rapport.envs.session.response.base import MatrixResponse, ResponseModel
from rapport.envs.session.simulator_cache import load_simulator

LOGGER = logging.getLogger("rapport")

RewardName = Literal["click", "watch_ratio"]


class WatchRatio(TableReward):
    """EasyRL4Rec's and DORL's reward: the watch ratio, in [0, 5], averaged over the slate.

    Args:
        kuairec: the truth.
    """

    def __init__(self, kuairec: KuaiRec) -> None:
        super().__init__(kuairec.watch_ratio, kuairec.truth_users, kuairec.data.population.n_users)


def find_kuairec(data: str | KuaiRec = "auto", root: str | None = None, click_at: float = CLICK_AT) -> KuaiRec:
    """The data an environment stands on.

    Args:
        data: ``"kuairec"`` (an error where it is not there), ``"synthetic"`` (made up, fitted to nothing), ``"auto"``
            (the first where it is there, else the second, with a word in the log), or the data.
        root: the data directory; by default ``$RAPPORT_DATA_DIR``, then the user's cache folder.
        click_at: least watch ratio that is a click in the log.

    Raises:
        DataError: the data is missing or damaged.
        ValueError: there is no data of that name.
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
    response: Literal["lookup", "learned"] | ResponseModel = "lookup",
    reward: RewardName = "click",
    device: str = "cpu",
    window: int = 9,
    threshold: int = 1,
    **arguments: Any,
) -> SessionCore:
    """The engine behind the environment; arguments as in :func:`kuairec_env`.

    Raises:
        ValueError: an argument is out of range or names what there is not, or the response model does not fit the data.
        DataError: the data is missing or damaged.
    """
    if reward not in get_args(RewardName):
        raise ValueError(f"reward={reward!r} is unknown; choose one of {', '.join(get_args(RewardName))}")
    found = find_kuairec(data, root, click_at)
    model = _response(found, response, click_at, device)
    # The truth knows some users only; a learned model knows all, but a watch ratio is looked up for those alone.
    looked_up = response == "lookup" or reward == "watch_ratio"
    return session_core(
        found.data,
        model,
        n_envs,
        among=found.truth_users if looked_up else None,
        reward=WatchRatio(found) if reward == "watch_ratio" else None,
        labels=found.tags,
        window=window,
        threshold=threshold,
        **arguments,
    )


def _response(data: KuaiRec, response: str | ResponseModel, click_at: float, device: str) -> ResponseModel:
    if not isinstance(response, str):
        return response
    if response == "lookup":
        return MatrixResponse(data.watch_ratio >= click_at, data.data.log.behaviours, data.truth_users)
    if response == "learned":
        return load_simulator(data.data, device=device)[0]
    raise ValueError(f"response={response!r} is unknown; choose lookup or learned, or give a response model")


def kuairec_env(render_mode: str | None = None, *, slate_size: int | None = 6, **arguments: Any) -> SessionEnv:
    """One user at a time: ``gym.make("rapport/KuaiRec-v0", ...)``.

    Args:
        render_mode: ``"ansi"``, ``"rgb_array"`` or None.
        slate_size: K; None: one item at a time, a ``Discrete`` action.
        **arguments: ``data``, ``root`` and ``click_at`` as in :func:`find_kuairec`; ``response``: ``"lookup"``, the
            small matrix as truth, ``"learned"``, the user model fitted to the big matrix, or a response model;
            ``reward``: ``"click"`` or ``"watch_ratio"``; ``device``: where torch computes learned responses; the
            others as of
            :func:`~rapport.envs.session.factory.session_core`.

    Raises:
        ValueError: as of :func:`kuairec_core`.
        DataError: the data is missing or damaged.
    """
    return SessionEnv(kuairec_core(1, slate_size=slate_size, **arguments), slate_size is None, render_mode)


def kuairec_vector_env(
    num_envs: int = 1,
    autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    *,
    slate_size: int | None = 6,
    copy: bool = True,
    **arguments: Any,
) -> SessionVectorEnv:
    """``num_envs`` users at a time: ``gym.make_vec("rapport/KuaiRec-v0", num_envs=...)``; arguments as above.

    ``copy`` as of :class:`~rapport.envs.session.env.SessionVectorEnv`.
    """
    core = kuairec_core(num_envs, slate_size=slate_size, **arguments)
    return SessionVectorEnv(core, autoreset_mode, slate_size is None, render_mode, copy=copy)
