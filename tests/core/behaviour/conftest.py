"""One cluster of each kind for all of the suite: they take their time to start."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator

import pytest

from tests.clusters import cluster_of, connect


@pytest.fixture(scope="package")
def _dask() -> Iterator[concurrent.futures.Executor]:
    with cluster_of("dask") as cluster, connect("dask", cluster.address) as executor:
        yield executor


@pytest.fixture(scope="package")
def _ray() -> Iterator[concurrent.futures.Executor]:
    with cluster_of("ray") as cluster, connect("ray", cluster.address) as executor:
        yield executor
