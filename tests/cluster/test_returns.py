"""Dask schedulers and workers that go and are followed by others, or that stand still: what is lost is told as what it
is, and reaches no others."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import pytest

from jobrunner import ClusterLostError, DaskExecutor, ExecutorShutdownError, WorkerDiedError, wait
from jobrunner.cluster import leases
from jobrunner.executors.future import JobFuture
from tests.clusters import DaskCluster, cluster_of, end_tree, free_port
from tests.core.gates import Gate, lines, meet, use_cpu

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

#: Loaded by a worker before it begins: its Python is an old one, and it soon asks whether its caller is there still.
_IMPATIENT_MISFIT = """
import platform

platform.python_version = lambda: "3.1.4"

from jobrunner.cluster import dask_node
from tests.core.gates import append_line

dask_node._WATCH_S, dask_node._FORSAKEN_S, dask_node._LAST_CALL_S = 0.2, 3.0, 10.0
begin_anew = dask_node.NodePlugin.begin_anew


async def told(self):
    append_line({path!r}, "anew")
    await begin_anew(self)


dask_node.NodePlugin.begin_anew = told
"""


#: Loaded by a worker before it begins: the thread of its second lease is late, and it tells when that is to end.
_LATE = """
import itertools

from jobrunner.cluster import dask_node
from tests.core.gates import arrive, meet

plugin = dask_node.NodePlugin
if not hasattr(plugin, "prompt"):  # it is loaded twice
    plugin.prompt = plugin.hold, plugin.transition
hold, transition = plugin.prompt
calls = itertools.count(1)


def hold_late(self, key, lease):
    if next(calls) == 2:
        meet({late!r})
    hold(self, key, lease)


def transition_told(self, key, start, finish, **kwargs):
    transition(self, key, start, finish, **kwargs)
    if start == "executing" and "lease" in key:
        arrive({late!r})


plugin.hold, plugin.transition = hold_late, transition_told
"""


@pytest.fixture(autouse=True)
def left_behind() -> Iterator[None]:
    """What Dask leaves open when a scheduler goes is thrown away while its warnings are not heeded."""
    yield
    gc.collect()


@pytest.fixture
def local() -> Iterator[Any]:
    """A cluster object of this process's, with one place."""
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as made:
        yield made


def _node_of(job: JobFuture[Any]) -> str:
    """The node that a job is at, or was."""
    record: Any = job.record
    name: str = record.node
    return name


def _await_end(executor: DaskExecutor) -> None:
    """Submit jobs, each of which is lost, until no more are taken."""
    while True:
        try:
            job = executor.submit(pow, 2, 3)
        except ExecutorShutdownError:
            return
        with pytest.raises(ClusterLostError):
            job.result(timeout=60)


@pytest.mark.parametrize("target", ["object", "address"])
def test_all_is_lost_with_a_cluster_object_that_is_closed(local: Any, target: str, gate: Gate) -> None:
    executor = DaskExecutor(local if target == "object" else local.scheduler_address, retries=2)
    running = executor.submit(meet, gate.path, "held")
    gate.await_arrival()
    waiting = [executor.submit(pow, 2, number) for number in range(5)]
    local.close()
    for job in [running, *waiting]:
        with pytest.raises(ClusterLostError):
            job.result(timeout=60)
    _await_end(executor)
    executor.shutdown()


@pytest.mark.soak  # what the client leaves behind, at times, is told when the interpreter ends
def test_all_is_lost_with_a_scheduler_that_another_takes_the_place_of(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = Gate(tmp_path / "ready")
    preload = tmp_path / "await_place.py"
    preload.write_text(f"from tests.core.gates import meet\n\nmeet({ready.path!r})\n")
    with contextlib.ExitStack() as leaving:
        leaving.callback(ready.close)
        cluster = leaving.enter_context(cluster_of("dask"))
        assert isinstance(cluster, DaskCluster)
        for worker in cluster.workers:
            leaving.callback(end_tree, worker)
        with DaskExecutor(cluster.address, retries=2) as executor:
            # The other one has only to listen: it is there at once.
            monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__PRELOAD", repr([str(preload)]))
            other = cluster._start_scheduler()
            leaving.callback(end_tree, other)
            ready.await_arrival()
            jobs = [executor.submit(meet, gate.path) for _ in range(2)]
            gate.await_arrival(2)
            jobs += [executor.submit(pow, 2, number) for number in range(30)]
            cluster.kill_head()
            ready.release(2)  # Dask may load it twice
            cluster.scheduler = other
            cluster.workers = [cluster.add_worker() for _ in range(2)]
            for job in jobs:
                with pytest.raises(ClusterLostError):
                    job.result(timeout=60)
            _await_end(executor)
        cluster.await_workers(2)
        with DaskExecutor(cluster.address) as executor:
            assert executor.submit(pow, 2, 5).result(timeout=60) == 32


@pytest.mark.slow
def test_a_worker_that_comes_back_at_the_address_of_one_that_was_killed_keeps_its_jobs(gate: Gate) -> None:
    with cluster_of("dask", workers=1, nanny=True) as cluster:
        assert isinstance(cluster, DaskCluster)
        port = free_port()
        address = f"tcp://127.0.0.1:{port}"
        cluster.workers.append(cluster.add_worker("--worker-port", str(port), "--host", "127.0.0.1"))
        cluster.await_workers(2)
        with DaskExecutor(cluster.address) as executor:
            held = [executor.submit(meet, gate.path, number) for number in range(2)]
            gate.await_arrival(2)
            (lost,) = (job for job in held if _node_of(job) == address)
            (other,) = (job for job in held if job is not lost)
            # For which there is no place but at the worker that comes back.
            waiting = [executor.submit(use_cpu, 0.1) for _ in range(50)]
            killed = executor.nodes[address]["pid"]
            os.kill(killed, signal.SIGKILL)
            with pytest.raises(WorkerDiedError, match=f"node {address}.* was lost") as told:
                lost.result(timeout=60)
            assert not isinstance(told.value, ClusterLostError)
            assert [job.result(timeout=60) for job in waiting] == [0.1] * 50
            assert {_node_of(job) for job in waiting} == {address}
            assert executor.nodes[address]["pid"] != killed
            assert other.running()
            # The one that was killed may have read what lets one through.
            gate.release(2)
            assert other.result(timeout=60) == held.index(other)
            again = [executor.submit(pow, 3, number) for number in range(50)]
            assert [job.result(timeout=60) for job in again] == [3**number for number in range(50)]
            assert executor.stats()["restarts"] == 1


def test_a_worker_that_is_not_used_ends_no_others_lanes(gate: Gate, tmp_path: Path) -> None:
    told = tmp_path / "told"
    preload = tmp_path / "impatient_misfit.py"
    preload.write_text(_IMPATIENT_MISFIT.format(path=str(told)))
    with cluster_of("dask", workers=1) as cluster:
        assert isinstance(cluster, DaskCluster)
        with DaskExecutor(cluster.address) as executor:
            held = executor.submit(meet, gate.path, "held")
            gate.await_arrival()
            cluster.workers.append(cluster.add_worker("--preload", str(preload)))
            # It has asked, was answered, and has asked again; unanswered, it would have ended all lanes.
            while len(lines(told)) < 2:
                assert not wait([held], timeout=0.02).done
            gate.release()
            assert held.result(timeout=60) == "held"
            assert executor.submit(pow, 2, 5).result(timeout=60) == 32
            assert executor.stats()["restarts"] == 0


def test_a_place_that_is_given_back_before_it_is_taken_up_is_free_again(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_TERM_S", 0.5)
    late = Gate(tmp_path / "late")
    preload = tmp_path / "late.py"
    preload.write_text(_LATE.format(late=late.path))
    with contextlib.closing(late), cluster_of("dask", workers=0, cpus=2) as cluster:
        assert isinstance(cluster, DaskCluster)
        cluster.workers.append(cluster.add_worker("--preload", str(preload)))
        with DaskExecutor(cluster.address) as executor:
            jobs = [executor.submit(meet, gate.path, 0)]
            gate.await_arrival()
            jobs.append(executor.submit(meet, gate.path, 1))
            # Its lease has a place, of which nothing is heard; and is given back for another one.
            late.await_arrival(2)
            late.release()
            gate.await_arrival()
            gate.release(2)
            assert [job.result(timeout=60) for job in jobs] == [0, 1]


@pytest.mark.slow
def test_the_job_of_a_worker_that_stands_still_is_run_elsewhere(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "3s")
    with cluster_of("dask") as cluster:
        assert isinstance(cluster, DaskCluster)
        with DaskExecutor(cluster.address, retries=1) as executor:
            job = executor.submit(meet, gate.path, "done")
            gate.await_arrival()
            before = _node_of(job)
            stopped = executor.nodes[before]["pid"]
            os.kill(stopped, signal.SIGSTOP)
            try:
                gate.await_arrival()
                assert _node_of(job) != before
                # What the worker has begun is there still, and may read what lets one through.
                gate.release(2)
                assert job.result(timeout=60) == "done"
                assert job.report().attempts == 2
                assert f"node {before}" in str(job.report().cause)
            finally:
                os.kill(stopped, signal.SIGCONT)
            assert executor.submit(pow, 2, 5).result(timeout=60) == 32
