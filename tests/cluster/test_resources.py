"""Places of more than one CPU, and with what only some nodes have."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jobrunner import gather, wait
from tests.clusters import DaskCluster, RayCluster, cluster_of, connect, end_tree
from tests.core.gates import Gate, meet


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
