"""Places of more than one CPU, and with what only some nodes have."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jobrunner import DaskExecutor, gather, wait
from tests.clusters import DaskCluster, RayCluster, cluster_of, connect, end_tree
from tests.core.gates import Gate, append_line, lines, meet, use_cpu


def ancestors() -> list[int]:
    return [one.pid for one in psutil.Process().parents()]


def threads() -> str | None:
    return os.environ.get("OMP_NUM_THREADS")


def count_present(directory: str) -> int:
    """How many jobs were seen here at a time, while this one was."""
    mine = os.path.join(directory, str(os.getpid()))
    os.mkdir(mine)
    try:
        return max(len(os.listdir(directory)) for _ in range(2000))
    finally:
        os.rmdir(mine)


def note_and_work(path: str, name: str) -> None:
    append_line(path, name)
    use_cpu(0.05)


@pytest.fixture(scope="module")
def wide(engine: str) -> Iterator[DaskCluster | RayCluster]:
    """A cluster of two nodes of two CPUs each."""
    with cluster_of(engine, cpus=2) as made:
        yield made


def _add_node_with_chip(cluster: DaskCluster | RayCluster) -> subprocess.Popen[bytes]:
    if isinstance(cluster, DaskCluster):
        return cluster.add_worker("--resources", "chip=2")
    return cluster.add_node("--resources", '{"chip": 2}')


@pytest.mark.parametrize(("options", "at_once"), [({}, 4), ({"threads": 2}, 2), ({"max_workers": 3}, 3)])
def test_so_many_jobs_run_at_a_time_as_there_are_places_for_and_no_more(
    engine: str,
    wide: DaskCluster | RayCluster,
    gate: Gate,
    tmp_path: Path,
    options: dict[str, int],
    at_once: int,
) -> None:
    with connect(engine, wide.address, **options) as executor:
        assert executor.backend.max_workers == at_once
        assert executor.submit(threads).result(30) == str(options.get("threads", 1))
        jobs = [executor.submit(meet, gate.path) for _ in range(at_once)]
        for _ in range(at_once):
            gate.await_arrival()
        for _ in range(at_once):
            gate.release()
        gather(jobs)
        present = tmp_path / "present"
        present.mkdir()
        seen = gather([executor.submit(count_present, str(present)) for _ in range(20)])
    assert max(seen) <= at_once


def test_jobs_wait_for_a_node_that_has_what_they_take_up(engine: str, wide: DaskCluster | RayCluster) -> None:
    before = psutil.pids()
    with pytest.warns(UserWarning, match=r"no node of the .* has chip=1 now: jobs wait"):
        executor = connect(engine, wide.address, resources={"chip": 1})
    with executor, contextlib.ExitStack() as leaving:
        jobs = [executor.submit(ancestors) for _ in range(5)]
        assert not wait(jobs, timeout=0).done
        leaving.callback(end_tree, _add_node_with_chip(wide))
        found = gather(jobs)
        has_chip = [node for node in executor.nodes.values() if node["resources"].get("chip")]
        assert len(has_chip) == 1
        assert has_chip[0]["pid"] not in before
        assert all(has_chip[0]["pid"] in one for one in found)


def test_a_more_urgent_job_of_more_threads_does_not_wait_for_all_others(
    engine: str, wide: DaskCluster | RayCluster, tmp_path: Path
) -> None:
    order = tmp_path / "order"
    with connect(engine, wide.address) as executor:
        others = [executor.submit(note_and_work, str(order), "other") for _ in range(60)]
        urgent = executor.with_options(threads=2, priority=100).submit(note_and_work, str(order), "urgent")
        gather([*others, urgent])
    assert lines(order).index("urgent") < 45


def test_an_executor_with_much_to_do_lets_another_have_its_turn(engine: str, wide: DaskCluster | RayCluster) -> None:
    with connect(engine, wide.address) as busy, connect(engine, wide.address) as other:
        jobs = [busy.submit(use_cpu, 0.1) for _ in range(1000)]
        jobs[0].result()
        assert other.submit(pow, 2, 3).result(60) == 8
        assert busy.stats()["queued"] > 0
        busy.shutdown(kill_workers=True)


def test_jobs_go_to_workers_that_have_what_they_need(wide: DaskCluster | RayCluster) -> None:
    if not isinstance(wide, DaskCluster):
        pytest.skip("Ray places by CPUs, and memory is the machine's")
    with contextlib.ExitStack() as leaving:
        leaving.callback(end_tree, wide.add_worker("--nthreads", "1", "--memory-limit", "300MiB"))
        wide.await_workers(3)
        executor = leaving.enter_context(DaskExecutor(wide.address))
        assert len(executor.nodes) == 3
        for options in ({"memory_limit": "1GiB"}, {"threads": 2}):
            view = executor.with_options(**options)
            for number in range(6):
                assert view.submit(pow, number, 2).result(30) == number**2
        assert gather([executor.with_options(threads=2).submit(pow, n, 2) for n in range(20)]) == [
            n**2 for n in range(20)
        ]


def test_a_ray_node_whose_actor_has_died_gets_another(wide: DaskCluster | RayCluster) -> None:
    if not isinstance(wide, RayCluster):
        pytest.skip("a Dask worker is the node itself")
    with connect("ray", wide.address, retries=3) as executor:
        for _ in range(2):
            assert executor.submit(pow, 2, 3).result(60) == 8
            for node in executor.nodes.values():
                os.kill(node["pid"], signal.SIGKILL)
        assert gather([executor.submit(pow, n, 2) for n in range(8)], timeout=60) == [n**2 for n in range(8)]


def test_a_ray_node_that_cannot_have_lanes_does_no_harm(wide: DaskCluster | RayCluster, tmp_path: Path) -> None:
    if not isinstance(wide, RayCluster):
        pytest.skip("of Ray's actors")
    (tmp_path / "jobrunner").mkdir()
    (tmp_path / "jobrunner" / "__init__.py").write_text("raise ModuleNotFoundError('none here')\n")
    with connect("ray", wide.address) as executor, contextlib.ExitStack() as leaving:
        leaving.callback(end_tree, wide.add_node(PYTHONPATH=str(tmp_path)))
        import ray

        while len(ray.nodes()) < 3:
            assert executor.submit(use_cpu, 0.2).result(60) > 0
        assert gather([executor.submit(pow, n, 2) for n in range(50)], timeout=60) == [n**2 for n in range(50)]
        assert executor.stats()["restarts"] == 0
