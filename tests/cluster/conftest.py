"""Clusters that the tests of a file share; of that file alone, since a process is connected with one Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobrunner.cluster.executor import ClusterExecutor
from tests.clusters import DaskCluster, RayCluster, cluster_of, connect
from tests.core.gates import Gate


@pytest.fixture(scope="module", params=["dask", "ray"])
def engine(request: pytest.FixtureRequest) -> str:
    """The engine under test."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def lasting(engine: str) -> Iterator[DaskCluster | RayCluster]:
    """A cluster that tests share, and leave as it was."""
    with cluster_of(engine) as made:
        yield made


@pytest.fixture(scope="module")
def executor(engine: str, lasting: DaskCluster | RayCluster) -> Iterator[ClusterExecutor]:
    """An executor on it."""
    with connect(engine, lasting.address) as made:
        yield made


@pytest.fixture(autouse=True)
def environment_kept() -> Iterator[None]:
    """Variables that a cluster object of Dask's leaves behind (of allocator, threads, hashes) end with the test."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A place where jobs and the test meet."""
    made = Gate(tmp_path / "gate")
    yield made
    made.close()
