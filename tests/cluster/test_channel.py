"""What is too large for the way between the caller and a node is told, and costs nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jobrunner import SerializationError
from tests.cluster.engines import NearbyExecutor
from tests.clusters import cluster_of, environment

# The object store has 200 MB, and may use no disk beyond that.
_FULL = {"RAY_local_fs_capacity_threshold": "0.0"}

_PROGRAM = """
import sys
from jobrunner import SerializationError, share
from tests.clusters import connect

LARGE = 600_000_000

def refused(job, what):
    error = job.exception(60)
    assert isinstance(error, SerializationError), repr(error)
    assert what in str(error) and "572.2 MiB" in str(error), error
    assert "files that all nodes have" in job.report().cause

if __name__ == "__main__":
    with connect("ray", sys.argv[1]) as executor:
        nodes = set(executor.nodes)
        large = executor.submit(bytes, LARGE)
        beside = executor.submit(pow, 2, 4)
        refused(large, "the result of job")
        assert beside.result(60) == 16
        refused(executor.submit(len, b"x" * LARGE), "the call of job")
        refused(executor.submit(len, share(b"x" * LARGE)), "a shared argument of job")
        assert executor.submit(pow, 2, 5).result(60) == 32
        assert executor.submit(len, share(b"x" * 1_000_000)).result(60) == 1_000_000
        assert set(executor.nodes) == nodes and executor.stats()["restarts"] == 0
    print("as it should be")
"""


def test_what_ray_has_no_room_for_fails_alone(tmp_path: os.PathLike[str]) -> None:
    with cluster_of("ray", **_FULL) as cluster:
        ran = subprocess.run(
            [sys.executable, "-c", _PROGRAM, cluster.address],
            env={**environment(), **_FULL},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert (ran.returncode, ran.stdout) == (0, "as it should be\n"), ran.stderr


def test_jobs_that_are_too_many_for_one_message_go_in_several_and_the_one_too_large_fails() -> None:
    with NearbyExecutor({"one": 1 << 30}, cores=8) as executor:
        executor.link.room = 120_000
        executor.link.taken = {"one"}
        small = [executor.submit(len, bytes(50_000)) for _ in range(8)]
        large = executor.submit(len, bytes(125_000))  # not so large that it would fail before the others are tried
        executor.link.taken = set()
        executor.link.place()
        assert [job.result() for job in small] == [50_000] * 8
        with pytest.raises(SerializationError, match="the call of job"):
            large.result()
        assert max(executor.link.too_large) > 1
        assert executor.submit(pow, 2, 3).result() == 8
        assert list(executor.nodes) == ["one"]
