"""The jobs of :mod:`rapport.experiments.jobs.local` on a running Ray cluster.

Ray gives the jobs to the nodes; what is done, and what has to be done again, is known here, to the driver. A job is
done when its task has come back. A task that was lost with its worker or node is sent again, up to :data:`LOSSES`
times. A job that had written its result before it was lost finds it and has nothing left to do, which is why jobs have
to look first, to write their result atomically at their end, and to write it to a folder that all nodes share
(:func:`check_shared`).
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from rapport.experiments.jobs.local import Board, Job, Named, _one_thread, count, shown

LOSSES = 3
"""How often a job is sent again after it was lost with its worker or node."""
_HEAD = "node:__internal_head__"
"""The resource by which Ray marks the head node; without that node there is no cluster."""
_ANSWER = 120.0
"""How long a cluster or a node may take to answer [s]."""
_KNOCKS = 3
"""How often the door of ``ray://`` is knocked at. Behind it Ray forks a server for each driver, which is stillborn one
time in fifteen or so (https://github.com/ray-project/ray/issues/63202)."""
_LOOK = 0.5
"""How often progress is told and read [s]."""
_HOW = "start one with `ray start --head`, add machines with `ray start --address=HEAD:6379`"


class ClusterError(ConnectionError):
    """A Ray cluster cannot be used as it is; the message names what was met and the remedy."""


def run_on_ray(jobs: list[Named], address: str, console: Console) -> None:
    """Run jobs, and those that follow from them, on a Ray cluster, one CPU and one thread each.

    The results are those of :func:`~rapport.experiments.jobs.local.run_jobs`. The first failure of a job stops what has
    not begun, lets end what has, and is raised. Interrupted, it cancels what runs. The driver's ``RAPPORT_*``
    environment variables hold in every job; folders they name have to be there on every node, as Rapport itself.

    Args:
        jobs: what to run.
        address: ``HOST:PORT`` of a cluster this machine is a node of, ``ray://HOST:PORT`` of any, or ``auto``.
        console: where progress, and each job that was lost, is told.

    Raises:
        ImportError: Ray is not installed.
        ClusterError: there is no usable cluster at ``address``, or a job was lost with its worker or node more than
            :data:`LOSSES` times.
    """
    with _connected(address), shown(console, count(jobs)) as board:
        _Driver(board, console).run(jobs)


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
        try:
            token.write_text(token.name, encoding="utf-8")
            for node, answer in [(node, _ask(node, token)) for node in _working_nodes()]:
                _judge(folder, node, token, answer)
        finally:
            for path in token.parent.glob(f"{token.name}*"):
                path.unlink(missing_ok=True)


def _ask(node: dict[str, Any], token: Path) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    look: Any = ray.remote(num_cpus=0, max_retries=LOSSES)(_look)
    return look.options(scheduling_strategy=there).remote(str(token), node["NodeID"])


def _look(token: str, node: str) -> str:
    """What is wrong with the folder of ``token`` on this node; empty where nothing is. Leaves an answer beside it."""
    path = Path(token)
    try:
        if path.read_text(encoding="utf-8") != path.name:
            return f"{path} holds something else there"
        path.with_name(f"{path.name}-{node}").touch()
    except OSError as error:
        return str(error)
    return ""


def _judge(folder: Path, node: dict[str, Any], token: Path, answer: Any) -> None:
    import ray

    try:
        wrong = ray.get(answer, timeout=_ANSWER)
    except ray.exceptions.RayError as error:
        wrong = f"no answer ({type(error).__name__})"
    if not wrong and not token.with_name(f"{token.name}-{node['NodeID']}").exists():
        wrong = "what it writes there does not arrive here"
    if wrong:
        name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, node {node['NodeID'][:8]})"
        raise ClusterError(
            f"node {name} does not share the run folder {folder}: {wrong}; mount it on all nodes under the same path, "
            "or put the run in a folder that is"
        )


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
    environment = {"env_vars": {**variables, "OMP_NUM_THREADS": "1"}}
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
    """See that a cluster answers at ``address``: Ray itself tries for minutes, and cannot be stopped from here."""
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


def _knock(address: str, knock: Callable[[], object], refused: tuple[type[Exception], ...]) -> None:
    """Knock until it is opened, where one refusal says little; the last one is raised."""
    for _ in range(_KNOCKS - 1 if address.startswith("ray://") else 0):
        with suppress(*refused):
            knock()
            return
    knock()


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Set when an interrupt came: one that comes while Ray's own code runs can be lost there."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        came.set()
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(frozen=True)
class _Sent:
    """A job that was sent; ``ticket`` tells one sending from all others, ``losses`` counts those before it."""

    named: Named
    ticket: int
    losses: int


class _Notes:
    """What the tasks tell the driver; kept on the head node, of which no loss can be survived anyway."""

    def __init__(self) -> None:
        self.shares: dict[str, float] = {}
        self.begun: set[int] = set()
        self.stopped = False

    def begin(self, ticket: int) -> bool:
        """Whether a job may begin."""
        if not self.stopped:
            self.begun.add(ticket)
        return not self.stopped

    def tell(self, name: str, share: float) -> None:
        """Keep how far a job is."""
        self.shares[name] = share

    def read(self) -> dict[str, float]:
        """How far the jobs are that have told something since the last look."""
        news, self.shares = self.shares, {}
        return news

    def stop(self) -> set[int]:
        """Let nothing begin any more; the tickets of what has."""
        self.stopped = True
        return self.begun


def _call(job: Job, name: str, ticket: int, notes: Any) -> None:
    """Run a job in a task. It returns nothing: the driver keeps that itself, and no node's death can take it."""
    import ray

    if ray.get(notes.begin.remote(ticket)):
        _one_thread()
        tell = _Teller(notes, name)
        tell(0.0)
        job(tell)


@dataclass
class _Teller:
    notes: Any
    name: str
    told: float = field(default=-1e9, init=False)

    def __call__(self, share: float) -> None:
        if time.monotonic() - self.told >= _LOOK:
            self.told = time.monotonic()
            self.notes.tell.remote(self.name, share)


class _Driver:
    """Sends jobs, those that follow when theirs is done, and those that were lost again."""

    def __init__(self, board: Board, console: Console) -> None:
        import ray

        self.board, self.console = board, console
        keep = ray.remote(num_cpus=0, resources={_HEAD: 0.001}, max_restarts=-1, max_task_retries=-1)
        self.notes: Any = keep(_Notes).remote()
        # Ray's own retries would neither be told nor wait.
        self.call = ray.remote(num_cpus=1, max_retries=0)(_call)
        self.tickets = itertools.count()
        self.running: dict[Any, _Sent] = {}

    def run(self, jobs: list[Named]) -> None:
        """Run all jobs to their end."""
        import ray

        with _interrupts() as interrupted:
            try:
                for job in jobs:
                    self._send(job)
                while self.running:
                    finished, _ = ray.wait(list(self.running), timeout=_LOOK)
                    if interrupted.is_set():
                        raise KeyboardInterrupt
                    self._show()
                    for ref in finished:
                        self._take(ref)
            finally:
                self._cancel()

    def _send(self, named: Named, losses: int = 0) -> None:
        ticket = next(self.tickets)
        self.running[self.call.remote(named.job, named.name, ticket, self.notes)] = _Sent(named, ticket, losses)

    def _show(self) -> None:
        import ray

        names = {sent.named.name for sent in self.running.values()}
        for name, share in ray.get(self.notes.read.remote()).items():
            if name in names:
                self.board.show(name, share)

    def _take(self, ref: Any) -> None:
        """Take what came back: a job done, failed or lost."""
        import ray
        from ray import exceptions

        sent = self.running.pop(ref)
        lost = (
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.LocalRayletDiedError,
            exceptions.OutOfMemoryError,
            exceptions.ObjectLostError,
        )
        try:
            ray.get(ref)
        except exceptions.RayTaskError as error:
            self._let_end()
            raise error.cause from error
        except lost as error:
            self._lost(sent, error)
        else:
            self.board.finish(sent.named.name)
            for job in sent.named.then:
                self._send(job)

    def _lost(self, sent: _Sent, error: Exception) -> None:
        name, losses, why = sent.named.name, sent.losses + 1, type(error).__name__
        if losses > LOSSES:
            self._let_end()
            raise ClusterError(
                f"{name}: lost {losses} times with its worker or node, last {why}; see that the nodes stay up and have "
                "the memory it needs, and run again: what is done is kept"
            ) from error
        told = f"  {name}: lost with its worker or node ({why}); sent again, {losses} of {LOSSES}"
        self.console.print(told, style="yellow", highlight=False, markup=False, soft_wrap=True)
        self._send(sent.named, losses)

    def _let_end(self) -> None:
        """Let nothing begin any more, and wait for what has."""
        import ray

        begun = ray.get(self.notes.stop.remote())
        refs = [ref for ref, sent in self.running.items() if sent.ticket in begun]
        if refs:
            ray.wait(refs, num_returns=len(refs))
        for ref in refs:
            del self.running[ref]

    def _cancel(self) -> None:
        import ray

        if not self.running:
            return
        # A CPU that a cancelled job leaves would go to the next before that is cancelled too.
        ray.wait([self.notes.stop.remote()], timeout=5)
        for ref in self.running:
            ray.cancel(ref)
        ray.wait(list(self.running), num_returns=len(self.running), timeout=5)
