"""The jobs of :mod:`rapport.experiments.jobs.local` on a running Ray cluster.

Ray schedules, cancels and resends tasks and carries their reports, but three things it does not offer are done here:

- The console says which job was lost with its worker or node, why, and that it is sent again, up to :data:`LOSSES`
  times. Ray's own retries (``max_retries``) are not told to the driver, nor are those of its process pool and of its
  joblib backend, which know no dependents either.
- Every node is seen to share the folder of the results (:func:`check_shared`).
- An address where no cluster answers is told within two minutes; ``ray.init`` tries for longer, uninterrupted.

A job that had written its result before it was lost finds it and has nothing left to do. Jobs therefore look for their
result first and write it atomically at their end, to a folder that all nodes share.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from rapport.envs.common.threads import threads
from rapport.experiments.jobs.local import Job, ProgressDisplay, Task, count, drive, run_task, use_threads

LOSSES = 3
"""How often a job is sent again after it was lost with its worker or node."""
_ON_HEAD = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}, "max_restarts": -1, "max_task_retries": -1}
"""Options of an actor on the head node; without that node there is no cluster."""
_ANSWER = 120.0
"""How long a cluster or a node may take to answer [s]."""
_KNOCKS = 3
"""How often a connection to ``ray://`` is tried. Behind that address Ray forks a server for each driver, which fails to
start one time in fifteen or so (https://github.com/ray-project/ray/issues/63202)."""
_HOW = "start one with `ray start --head`, add machines with `ray start --address=HEAD:6379`"


class ClusterError(ConnectionError):
    """A Ray cluster cannot be used as it is; the message names what was met and the remedy."""


def run_on_ray(jobs: Sequence[Job], address: str, console: Console) -> None:
    """Run jobs and their dependents on a Ray cluster, one CPU and one thread each.

    The results are those of :func:`~rapport.experiments.jobs.local.run_jobs`. The first failure of a job stops what has
    not begun, lets end what has, and is raised. An interrupt cancels what runs. The driver's ``RAPPORT_*`` environment
    variables hold in every job; folders they name have to be there on every node, as Rapport itself.

    Args:
        jobs: what to run.
        address: ``HOST:PORT`` of a cluster this machine is a node of, ``ray://HOST:PORT`` of any, or ``auto``.
        console: where progress, and each job that was lost, is told.

    Raises:
        ImportError: Ray is not installed.
        ClusterError: there is no usable cluster at ``address``, or a job was lost with its worker or node more than
            :data:`LOSSES` times.
    """
    with _connected(address), ProgressDisplay(console, count(jobs)) as display:
        _run_connected(jobs, display, console)


def _run_connected(jobs: Sequence[Job], display: ProgressDisplay, console: Console) -> None:
    import ray
    from ray import exceptions
    from ray.util.queue import Queue

    lost = (
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.LocalRayletDiedError,
        exceptions.OutOfMemoryError,
        exceptions.ObjectLostError,
    )
    reports: Any = Queue(actor_options=_ON_HEAD)
    remote = ray.remote(num_cpus=1, max_retries=0)(_run_task)
    sent: list[Any] = []
    losses: Counter[str] = Counter()

    def start(job: Job) -> Future[None]:
        sent.append(remote.remote(job.task, job.name, reports))
        future: Future[None] = sent[-1].future()
        return future

    def judge(job: Job, error: Exception) -> Exception | None:
        if not isinstance(error, lost):
            return error.cause if isinstance(error, exceptions.RayTaskError) else error
        losses[job.name] += 1
        times, why = losses[job.name], type(error).__name__
        if times > LOSSES:
            failure = ClusterError(
                f"{job.name}: lost {times} times with its worker or node, last {why}; see that the nodes stay up and "
                "have the memory it needs, and run again: what is done is kept"
            )
            failure.__cause__ = error
            return failure
        told = f"  {job.name}: lost with its worker or node ({why}); sent again, {times} of {LOSSES}"
        console.print(told, style="yellow", highlight=False, markup=False, soft_wrap=True)
        return None

    try:
        drive(jobs, start, _cpus, lambda: reports.get_nowait_batch(reports.size()), judge, display)
    except BaseException:
        for ref in sent:
            ray.cancel(ref)
        ray.wait(sent, num_returns=len(sent), timeout=5)
        raise


def _run_task(task: Task, name: str, reports: Any) -> None:
    use_threads()
    run_task(task, name, reports)


def _cpus() -> int:
    return sum(int(node["Resources"]["CPU"]) for node in _working_nodes())


def check_shared(folder: Path, address: str) -> None:
    """See that every node of the cluster that can run jobs reads and writes ``folder``, under the same path.

    Nodes that join later are not looked at.

    Raises:
        ImportError: Ray is not installed.
        ClusterError: there is no usable cluster at ``address``, or a node does not see the folder, may not write to it
            or does not answer.
    """
    token = folder.resolve() / f".shared-{secrets.token_hex(8)}"
    with _connected(address):
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        look: Any = ray.remote(num_cpus=0, max_retries=LOSSES)(_look)
        try:
            token.write_text(token.name, encoding="utf-8")
            answers = []
            for node in _working_nodes():
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                answers.append((node, look.options(scheduling_strategy=there).remote(str(token), node["NodeID"])))
            for node, answer in answers:
                try:
                    wrong = ray.get(answer, timeout=_ANSWER)
                except ray.exceptions.RayError as error:
                    wrong = f"no answer ({type(error).__name__})"
                if not wrong and not token.with_name(f"{token.name}-{node['NodeID']}").exists():
                    wrong = "what it writes there does not arrive here"
                if wrong:
                    name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, node {node['NodeID'][:8]})"
                    raise ClusterError(
                        f"node {name} does not share the run folder {folder}: {wrong}; mount it on all nodes under the "
                        "same path, or put the run in a folder that is"
                    )
        finally:
            for path in token.parent.glob(f"{token.name}*"):
                path.unlink(missing_ok=True)


def _look(token: str, node: str) -> str:
    """What is wrong with the folder of ``token`` on this node, or empty. Leaves an answer beside the token."""
    path = Path(token)
    try:
        if path.read_text(encoding="utf-8") != path.name:
            return f"{path} holds something else there"
        path.with_name(f"{path.name}-{node}").touch()
    except OSError as error:
        return str(error)
    return ""


def _working_nodes() -> list[dict[str, Any]]:
    import ray

    nodes: Any = ray.nodes  # it is not typed
    return [node for node in nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]


@contextmanager
def _connected(address: str) -> Iterator[None]:
    # Losses are told on the console; Ray would print the last pages of the lost node's log.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    try:
        import ray
    except ImportError as error:
        raise ImportError(f"address {address!r} needs Ray: pip install 'rapport-gym[ray]'") from error
    _find(address)
    variables = {name: value for name, value in os.environ.items() if name.startswith("RAPPORT_")}
    environment = {"env_vars": {**variables, "OMP_NUM_THREADS": str(threads())}}
    refused = (ConnectionError, RuntimeError)
    join = partial(ray.init, address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=environment)
    try:
        _knock(address, join, refused)
    except refused as error:
        raise ClusterError(f"the Ray cluster at {address!r} does not take this run: {error}") from error
    try:
        if not _working_nodes():
            raise ClusterError(f"no node of the Ray cluster at {address!r} has a CPU for jobs; {_HOW}")
        yield
    finally:
        ray.shutdown()


def _find(address: str) -> None:
    """See that a cluster answers at ``address``."""
    if address != "auto":
        parts = urlsplit(address if "://" in address else f"//{address}")
        try:
            if parts.scheme not in ("", "ray") or not parts.hostname or not parts.port:
                raise ValueError("it has to be HOST:PORT, ray://HOST:PORT or auto")
            socket.create_connection((parts.hostname, parts.port), timeout=5).close()
        except (OSError, ValueError) as error:
            raise ClusterError(f"no Ray cluster at {address!r} ({error}); {_HOW}, and name its address") from error
    connect = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR')"
    command = [sys.executable, "-c", connect, address]
    look = partial(subprocess.run, command, check=True, capture_output=True, text=True, timeout=_ANSWER)
    try:
        _knock(address, look, (subprocess.CalledProcessError,))
    except subprocess.TimeoutExpired as error:
        raise ClusterError(
            f"no Ray cluster answered at {address!r} within {_ANSWER:g} s; name the address `ray start` printed "
            "(port 6379 unless another was given) on one of its nodes, ray://HEAD:10001 elsewhere"
        ) from error
    except subprocess.CalledProcessError as error:
        why = (error.stderr.strip() or str(error)).splitlines()[-1]
        raise ClusterError(
            f"no Ray cluster to be used at {address!r}: {why}; {_HOW}. A cluster with token authentication needs "
            "RAY_AUTH_MODE=token and its token here too"
        ) from error


def _knock(address: str, connect: Callable[[], object], refused: tuple[type[Exception], ...]) -> None:
    """Connect, to ``ray://`` at most :data:`_KNOCKS` times; the last refusal is raised."""
    for _ in range(_KNOCKS - 1 if address.startswith("ray://") else 0):
        with suppress(*refused):
            connect()
            return
    connect()
