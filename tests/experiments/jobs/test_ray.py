"""Jobs on a real Ray cluster: separate nodes, one of which is killed while it works."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rapport.experiments.jobs import ray as ray_pool
from rapport.experiments.jobs.local import Job, run_jobs
from rapport.experiments.jobs.ray import ClusterError, check_shared, run_on_ray
from rapport.experiments.results.store import write_atomically

SMALL = {"object_store_memory": 100 * 2**20, "include_dashboard": False}


@dataclass(frozen=True)
class Work:
    """Draws a number, adds that of the job before; logs where it began and ended."""

    folder: Path
    name: str
    seed: int
    needs: str | None = None
    pause: float = 0.05
    stuck: str | None = None
    """The node on which it takes ten seconds."""

    def __call__(self, progress):
        path = self.folder / f"{self.name}.json"
        if path.exists():
            return
        pid = self.folder / f"{self.name}.pid"
        pid.write_text(str(os.getpid()))
        try:
            self.log("began")
            before = 0.0 if self.needs is None else json.loads((self.folder / f"{self.needs}.json").read_text())
            for step in range(8):
                progress(step / 8)
                time.sleep(1.25 if here() == self.stuck else self.pause)
            write_atomically(path, json.dumps(before + np.random.default_rng(self.seed).normal()))
            self.log("ended")
        finally:
            pid.unlink()

    def log(self, what):
        with (self.folder / f"{self.name}.log").open("a") as file:
            file.write(f"{what} {here()}\n")


@dataclass(frozen=True)
class Fail:
    def __call__(self, progress):
        raise KeyError("the job's own")


@dataclass(frozen=True)
class Die:
    """Takes its worker with it, the first ``times`` times."""

    folder: Path
    times: int

    def __call__(self, progress):
        deaths = len(list(self.folder.glob("death*")))
        if deaths < self.times:
            (self.folder / f"death{deaths}").touch()
            os._exit(1)
        (self.folder / "alive").touch()


@dataclass(frozen=True)
class Tell:
    folder: Path

    def __call__(self, progress):
        import torch

        told = [os.environ["RAPPORT_CACHE_DIR"], os.environ["OMP_NUM_THREADS"], torch.get_num_threads()]
        (self.folder / "told").write_text(json.dumps(told))


def here():
    ray = sys.modules.get("ray")
    return ray.get_runtime_context().get_node_id() if ray is not None and ray.is_initialized() else "here"


def alive(pid):
    """Whether a job is still at work; one whose worker was killed has not taken its file away."""
    try:
        os.kill(int(pid.read_text()), 0)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


def twelve(folder, pause=0.05, stuck=None):
    first = [Work(folder, f"a{i}", i, None, pause) for i in range(6)]
    later = [Work(folder, f"b{i}", 10 + i, f"a{i}", pause, stuck) for i in range(6)]
    return [Job(a.name, a, (Job(b.name, b),)) for a, b in zip(first, later, strict=True)]


def logs(folder):
    return {path.stem: path.read_text().splitlines() for path in folder.glob("*.log")}


def results(folder):
    return {path.name: path.read_text() for path in folder.glob("*.json")}


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    # Workers cannot import this module: they get its classes by value.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with socket.create_server(("127.0.0.1", 0)) as free:
        door = free.getsockname()[1]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "ray_client_server_port": door, **SMALL})
    cluster.door = f"ray://127.0.0.1:{door}"
    try:
        cluster.add_node(num_cpus=1, **SMALL)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def ray_on(cluster, jobs, address=None):
    told = io.StringIO()
    run_on_ray(jobs, address or cluster.address, Console(file=told, width=200))
    return told.getvalue()


def run_and_kill(cluster, folder, node):
    """Runs twelve jobs and kills a node while it is at one of them: what was told, and the logs at that moment."""
    at_kill, over = {}, threading.Event()

    def kill():
        # A worker outlives its node by up to a second: the job it is at must not end by then, so it takes long there.
        while not over.is_set():
            seen = logs(folder)
            ended = any(f"ended {node.node_id}" in lines for lines in seen.values())
            if ended and any(lines[-1:] == [f"began {node.node_id}"] for name, lines in seen.items() if name[0] == "b"):
                cluster.remove_node(node, allow_graceful=False)
                at_kill.update(seen)
                return
            time.sleep(0.02)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    told = ray_on(cluster, twelve(folder, pause=0.12, stuck=node.node_id))
    over.set()
    killer.join()
    return told, at_kill


@pytest.mark.slow
def test_a_node_dies_and_nothing_is_lost_or_done_twice(cluster, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    for attempt in range(3):  # on a busy machine all may be done before the node is where it is to be killed
        folder = tmp_path / f"shared{attempt}"
        folder.mkdir()
        node = cluster.add_node(num_cpus=1, **SMALL)
        told, at_kill = run_and_kill(cluster, folder, node)
        if at_kill:
            break
        cluster.remove_node(node)
    assert at_kill

    log = logs(folder)
    assert set(log) == {f"{letter}{i}" for letter in "ab" for i in range(6)}
    for name, lines in log.items():
        assert [line.split()[0] for line in lines].count("ended") == 1, (name, lines)
        assert lines[-1].startswith("ended"), (name, lines)
    for name, lines in at_kill.items():
        if lines[-1].startswith("ended"):
            assert log[name] == lines
    again = [name for name, lines in log.items() if len(lines) == 3]
    assert again
    for name in again:
        assert log[name][0] == f"began {node.node_id}"
        assert f"{name}: lost with its worker or node" in told
    assert "[12/12]" in told

    run_jobs(twelve(alone, pause=0.0), 1, Console(file=io.StringIO()))
    assert results(folder) == results(alone)

    ray_on(cluster, twelve(folder))
    assert logs(folder) == log


@pytest.mark.slow
def test_a_failure_is_raised_what_began_ends_and_nothing_else_begins(cluster, tmp_path):
    failing = Job("fails", Fail(), (Job("never", Work(tmp_path, "never", 0)),))
    with pytest.raises(KeyError) as caught:
        ray_on(cluster, [failing, *(Job(f"later {i}", Work(tmp_path, f"later{i}", i)) for i in range(4))])
    assert caught.value.args == ("the job's own",)
    assert all(lines[-1].startswith("ended") for lines in logs(tmp_path).values())
    assert len(logs(tmp_path)) < 4
    assert "never" not in logs(tmp_path)


@pytest.mark.slow
def test_a_job_that_takes_its_worker_with_it_is_sent_again(cluster, tmp_path):
    told = ray_on(cluster, [Job("dies", Die(tmp_path, times=2))])
    assert "dies: lost with its worker or node (WorkerCrashedError); sent again, 2 of 3" in told
    assert (tmp_path / "alive").exists()


@pytest.mark.slow
def test_but_not_for_ever(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_pool, "LOSSES", 1)
    with pytest.raises(ClusterError, match="dies: lost 2 times"):
        ray_on(cluster, [Job("dies", Die(tmp_path, times=9))])
    assert len(list(tmp_path.glob("death*"))) == 2


@pytest.mark.slow
def test_an_interrupt_cancels_what_runs(cluster, tmp_path):
    def interrupt():
        while not logs(tmp_path):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        ray_on(cluster, twelve(tmp_path, pause=5.0))
    while any(alive(pid) for pid in tmp_path.glob("*.pid")):
        time.sleep(0.1)
    assert len(logs(tmp_path)) == 1
    assert not results(tmp_path)
    assert not sys.modules["ray"].is_initialized()


@pytest.mark.slow
@pytest.mark.parametrize("address", ["address", "door"])
def test_a_job_has_the_drivers_variables_and_one_thread(cluster, tmp_path, monkeypatch, address):
    monkeypatch.setenv("RAPPORT_CACHE_DIR", str(tmp_path / "cache"))
    ray_on(cluster, [Job("tells", Tell(tmp_path))], getattr(cluster, address))
    assert json.loads((tmp_path / "told").read_text()) == [str(tmp_path / "cache"), "1", 1]


@pytest.mark.slow
@pytest.mark.parametrize("refusals", [2, 3])
def test_a_door_is_knocked_at_again(cluster, tmp_path, monkeypatch, refusals):
    """A stillborn server is a ConnectionAbortedError in this process, and a crash of the one that looks first."""
    import ray

    join, look, refused = ray.init, ray_pool.subprocess.run, []

    def refusing(real, error):
        def call(*args, **kwargs):
            if len(refused) < refusals:
                refused.append(error)
                raise error
            return real(*args, **kwargs)

        return call

    stillborn = ConnectionAbortedError("Initialization failure from server: Starting Ray client server failed")
    monkeypatch.setattr(ray, "init", refusing(join, stillborn))
    if refusals < ray_pool._KNOCKS:
        ray_on(cluster, [Job("work", Work(tmp_path, "work", 0))], cluster.door)
        assert len(results(tmp_path)) == 1
    else:
        with pytest.raises(ClusterError, match="does not take this run: Initialization failure"):
            ray_on(cluster, [], cluster.door)
    assert len(refused) == refusals
    refused.clear()
    monkeypatch.setattr(ray, "init", join)
    crash = subprocess.CalledProcessError(1, "python", stderr="Traceback\nZombieProcess: it is a zombie")
    monkeypatch.setattr(ray_pool.subprocess, "run", refusing(look, crash))
    if refusals < ray_pool._KNOCKS:
        check_shared(tmp_path, cluster.door)
    else:
        with pytest.raises(ClusterError, match=r"no Ray cluster to be used at .*: ZombieProcess: it is a zombie"):
            check_shared(tmp_path, cluster.door)
    assert len(refused) == refusals


@pytest.mark.slow
def test_a_nodes_refusal_is_one(cluster, monkeypatch):
    import ray

    asked = []
    monkeypatch.setattr(ray, "init", lambda *args, **_: asked.append(args) or (_ for _ in ()).throw(RuntimeError("no")))
    with pytest.raises(ClusterError, match="does not take this run: no"):
        ray_on(cluster, [])
    assert len(asked) == 1


@pytest.mark.slow
def test_a_folder_is_shared_or_the_node_that_does_not_see_it_is_named(cluster, tmp_path, monkeypatch):
    check_shared(tmp_path, cluster.address)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: None)  # what is written here is not seen there
    with pytest.raises(ClusterError, match=rf"node {socket.gethostname()} .*does not share the run folder {tmp_path}"):
        check_shared(tmp_path, cluster.address)


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "127.0.0.1", "local", "http://127.0.0.1:1"])
def test_no_cluster_at_the_address(address):
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, not listening: nobody answers there
        named = address.format(free.getsockname()[1])
        with pytest.raises(ClusterError, match=f"no Ray cluster at '{named}'.*ray start"):
            run_on_ray([], named, Console(file=io.StringIO()))


def test_something_else_at_the_address(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setattr(ray_pool, "_ANSWER", 1.5)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ClusterError, match=rf"no Ray cluster answered at '127.0.0.1:{port}' within 1.5 s"):
            run_on_ray([], f"127.0.0.1:{port}", Console(file=io.StringIO()))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"rapport-gym\[ray\]"):
        run_on_ray([], "auto", Console(file=io.StringIO()))
