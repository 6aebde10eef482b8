"""What is lost when a node, the head of a cluster, or the caller is lost: on real clusters, whose processes die."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobrunner import ClusterLostError, ExecutorShutdownError, JobStatus, WorkerDiedError, share, wait
from jobrunner.cluster.executor import ClusterExecutor
from jobrunner.executors.future import JobFuture
from tests.clusters import DaskCluster, RayCluster, cluster_of, connect
from tests.core.gates import Gate, append_line, arrive_and_stay, lines, meet
from tests.core.process_table import await_none, describe, is_alive
from tests.core.scripts import Script

Cluster = DaskCluster | RayCluster

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture
def cluster(engine: str) -> Iterator[Cluster]:
    """A cluster that a test may break."""
    with cluster_of(engine) as made:
        yield made


def work(starts: str, number: int, seconds: float) -> int:
    """Keep a core busy for so long, having noted the start."""
    append_line(starts, f"{number}")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return number * number


def stay_with_children(gate: str) -> None:
    """Arrive and stay, with two children that do so too, one of them in a session of its own."""
    for own_session in (False, True):
        if os.fork() == 0:
            if own_session:
                os.setsid()
            arrive_and_stay(gate)
    arrive_and_stay(gate)


def _lane_pids(executor: ClusterExecutor, jobs: list[JobFuture[Any]]) -> list[int]:
    return [pid for job in jobs if (pid := job.report().pid) is not None]


def _node_of(executor: ClusterExecutor, job: JobFuture[Any]) -> tuple[str, dict[str, Any]]:
    """The node that a job is at, or was."""
    record: Any = job.record
    return record.node, dict(executor.nodes[record.node])


def _on_lesser_node(executor: ClusterExecutor, cluster: Cluster, jobs: list[JobFuture[Any]]) -> JobFuture[Any] | None:
    """One of the jobs that is, or was, at a node without which the cluster goes on."""
    return next((job for job in jobs if not cluster.is_head(_node_of(executor, job)[1])), None)


def _running(jobs: list[JobFuture[Any]], count: int) -> list[JobFuture[Any]]:
    """The jobs that run, once there are so many."""
    while True:
        found = [job for job in jobs if job.running()]
        if len(found) >= count:
            return found
        wait(jobs, timeout=0.02)


@pytest.mark.slow
def test_a_batch_of_500_jobs_ends_complete_though_a_node_is_killed(
    engine: str, cluster: Cluster, tmp_path: Path
) -> None:
    starts = str(tmp_path / "starts")
    with connect(engine, cluster.address, retries=2) as executor:
        jobs = [executor.submit(work, starts, number, 0.02) for number in range(500)]
        wait(jobs[:100], timeout=60)
        while (victim := _on_lesser_node(executor, cluster, [job for job in jobs if job.running()])) is None:
            wait(jobs, timeout=0.02)
        name, node = _node_of(executor, victim)
        cluster.kill_node(node)
        assert [job.result(timeout=100) for job in jobs] == [number * number for number in range(500)]
        rerun = [job.report() for job in jobs if job.report().attempts > 1]
        assert rerun
        for report in rerun:
            assert report.cause is not None
            assert f"node {name}" in report.cause
            assert "was lost" in report.cause
        # None was begun more often than its report says.
        begun = lines(tmp_path / "starts")
        for number, job in enumerate(jobs):
            assert begun.count(str(number)) <= job.report().attempts
        assert executor.stats()["restarts"] == 1


def test_without_retries_only_the_running_jobs_of_a_killed_node_fail(engine: str, cluster: Cluster, gate: Gate) -> None:
    with connect(engine, cluster.address) as executor:
        held = [executor.submit(meet, gate.path, number) for number in range(2)]
        gate.await_arrival(2)
        waiting = [executor.submit(pow, 2, number) for number in range(10)]
        _running(held, 2)
        lost = _on_lesser_node(executor, cluster, held)
        assert lost is not None
        (other,) = (job for job in held if job is not lost)
        pid = lost.report().pid
        assert pid is not None
        name, node = _node_of(executor, lost)
        cluster.kill_node(node)
        with pytest.raises(WorkerDiedError, match=f"node {name}.* was lost") as told:
            lost.result(timeout=60)
        assert not isinstance(told.value, ClusterLostError)
        assert lost.report().host
        gate.release(2)
        assert other.result(timeout=60) == held.index(other)
        assert [job.result(timeout=60) for job in waiting] == [2**number for number in range(10)]
        # What ran at the lost node goes with it.
        assert not await_none(lambda: [pid] if is_alive(pid) else [], 10.0)


def test_without_retries_a_killed_node_costs_a_batch_no_more_than_what_ran_there(
    engine: str, cluster: Cluster, tmp_path: Path
) -> None:
    with connect(engine, cluster.address) as executor:
        jobs = [executor.submit(work, str(tmp_path / "starts"), number, 0.02) for number in range(500)]
        wait(jobs[:100], timeout=60)
        while (victim := _on_lesser_node(executor, cluster, [job for job in jobs if job.running()])) is None:
            wait(jobs, timeout=0.02)
        name, node = _node_of(executor, victim)
        cluster.kill_node(node)
        failed = {number: job for number, job in enumerate(jobs) if job.exception(timeout=100) is not None}
        # The node has one place.
        assert len(failed) <= 1
        for job in failed.values():
            with pytest.raises(WorkerDiedError, match=f"node {name}.* was lost"):
                job.result()
        done = {number: job.result() for number, job in enumerate(jobs) if number not in failed}
        assert done == {number: number * number for number in done}
        begun = lines(tmp_path / "starts")
        assert all(begun.count(str(number)) <= 1 for number in range(500))


def test_a_shared_object_outlives_the_node_that_had_it(engine: str, cluster: Cluster) -> None:
    with connect(engine, cluster.address, retries=1) as executor:
        handle = share(b"x" * 3_000_000)
        first = None
        while first is None:
            done = [executor.submit(len, handle) for _ in range(4)]
            assert [job.result(timeout=60) for job in done] == [3_000_000] * 4
            first = _on_lesser_node(executor, cluster, done)
        cluster.kill_node(_node_of(executor, first)[1])
        jobs = [executor.submit(len, handle) for _ in range(4)]
        assert [job.result(timeout=60) for job in jobs] == [3_000_000] * 4
        assert executor.submit(pow, 2, 3).result(timeout=60) == 8
        assert len(executor.nodes) == 1


CALLER = """
import sys
from tests.clusters import connect
from tests.cluster.test_losses import stay_with_children

if __name__ == "__main__":
    executor = connect(sys.argv[1], sys.argv[2])
    jobs = [executor.submit(stay_with_children, sys.argv[3]) for _ in range(2)]
    jobs[0].result()
"""


def test_jobs_end_when_their_caller_is_killed(engine: str, cluster: Cluster, gate: Gate, tmp_path: Path) -> None:
    script = Script(tmp_path, CALLER, engine, cluster.address, gate.path)
    pids = gate.await_arrival(6)
    os.kill(script.process.pid, signal.SIGKILL)
    script.process.wait()
    left = await_none(lambda: [pid for pid in pids if is_alive(pid)], 10.0)
    told = describe(left)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, told
    script.assert_nothing_left()
    # The cluster is as it was.
    with connect(engine, cluster.address) as executor:
        assert executor.submit(pow, 2, 5).result(timeout=60) == 32


def test_every_waiting_call_gets_an_error_when_the_head_is_killed(engine: str, cluster: Cluster, gate: Gate) -> None:
    executor = connect(engine, cluster.address)
    running: list[JobFuture[Any]] = [executor.submit(arrive_and_stay, gate.path) for _ in range(2)]
    pids = gate.await_arrival(2)
    queued = executor.submit(pow, 2, 5)
    cluster.kill_head()
    for job in [*running, queued]:
        with pytest.raises(ClusterLostError, match="can't be reached any more"):
            job.result(timeout=30)
        assert job.status() is JobStatus.ERROR
    with pytest.raises(ExecutorShutdownError, match="make a new executor once it is back"):
        executor.submit(pow, 2, 5)
    assert running[0].cancel() is False
    left = await_none(lambda: [pid for pid in pids if is_alive(pid)], 20.0)
    assert not left, describe(left)
    if isinstance(cluster, RayCluster):
        # Ray ends a process that goes on being connected with a head that is gone, after a minute.
        ray = pytest.importorskip("ray")
        while ray.is_initialized():
            wait(running, timeout=0.02)
    executor.shutdown()
    cluster.restart_head()
    with connect(engine, cluster.address) as again:
        assert again.submit(pow, 2, 5).result(timeout=60) == 32


def test_a_shutdown_does_not_wait_for_ever_for_a_scheduler_that_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    with cluster_of("dask") as cluster:
        assert isinstance(cluster, DaskCluster)
        executor = connect("dask", cluster.address)
        assert executor.submit(pow, 2, 5).result(timeout=60) == 32
        cluster.scheduler.send_signal(signal.SIGSTOP)
        monkeypatch.setattr("jobrunner.cluster.dask._SILENCE_S", 1.0)
        ending = threading.Thread(target=executor.shutdown)
        ending.start()
        try:
            ending.join(30)
            assert not ending.is_alive()
        finally:
            cluster.scheduler.send_signal(signal.SIGCONT)
            ending.join()
