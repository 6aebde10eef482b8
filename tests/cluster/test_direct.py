"""Messages to Dask's workers: without the scheduler's help where a worker can be reached, else with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import distributed
import pytest

from jobrunner import DaskExecutor
from jobrunner.cluster import dask
from tests.clusters import DaskCluster, cluster_of


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskCluster]:
    """A Dask cluster that tests share."""
    with cluster_of("dask") as made:
        assert isinstance(made, DaskCluster)
        yield made


def _count(dask_scheduler: Any) -> int:
    """How many messages the scheduler has passed on to workers, from the first call of this on; in the scheduler."""
    handler = dask_scheduler.handlers["broadcast"]
    if hasattr(handler, "count"):
        count: int = handler.count
        return count

    async def counting(*args: Any, **kwargs: Any) -> Any:
        counting.count += 1  # type: ignore[attr-defined]
        return await handler(*args, **kwargs)

    counting.count = 0  # type: ignore[attr-defined]
    dask_scheduler.handlers["broadcast"] = counting
    return 0


@pytest.fixture
def client(cluster: DaskCluster) -> Iterator[Any]:
    """A client of the cluster, which its scheduler passes messages on for."""
    with distributed.Client(cluster.address, set_as_default=False, direct_to_workers=False) as made:
        yield made


def _passed_on(client: Any, executor: DaskExecutor) -> int:
    """How many messages the scheduler has passed on for a job."""
    before: int = client.run_on_scheduler(_count)
    assert executor.submit(pow, 2, 5).result(timeout=60) == 32
    count: int = client.run_on_scheduler(_count)
    return count - before


def test_once_workers_are_reached_the_scheduler_passes_nothing_on(cluster: DaskCluster, client: Any) -> None:
    with DaskExecutor(cluster.address) as executor:
        while _passed_on(client, executor):
            pass  # what was begun by way of the scheduler ends so


def test_a_client_that_is_not_to_talk_with_workers_does_not(client: Any) -> None:
    with DaskExecutor(client) as executor:
        assert min(_passed_on(client, executor) for _ in range(5)) >= 1


def test_workers_behind_a_firewall_are_reached_by_way_of_the_scheduler(
    cluster: DaskCluster, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = distributed.core.ConnectionPool.connect
    tried = []

    async def connect(self: Any, address: str, *args: Any, **kwargs: Any) -> Any:
        if address != cluster.address:
            tried.append(address)
            await asyncio.Event().wait()  # nothing answers, nor is it refused
        return await real(self, address, *args, **kwargs)

    monkeypatch.setattr(distributed.core.ConnectionPool, "connect", connect)
    with DaskExecutor(cluster.address) as executor:
        assert min(_passed_on(client, executor) for _ in range(5)) >= 1
        assert set(tried) == set(executor.nodes)


def test_another_worker_at_the_same_address_of_another_network_is_not_talked_with(
    cluster: DaskCluster, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = dask._DaskLink._try_direct
    asked = []

    async def mistaken(self: Any, node: str, worker: str) -> None:
        await real(self, node, f"not {worker}")
        asked.append(node)

    monkeypatch.setattr(dask._DaskLink, "_try_direct", mistaken)
    with DaskExecutor(cluster.address) as executor:
        while set(asked) != set(executor.nodes):
            assert executor.submit(pow, 2, 5).result(timeout=60) == 32
        assert min(_passed_on(client, executor) for _ in range(5)) >= 1


def test_a_node_that_cannot_be_reached_is_given_up_without_the_others(cluster: DaskCluster, client: Any) -> None:
    with DaskExecutor(cluster.address, retries=3) as executor:
        while _passed_on(client, executor):
            pass
        link: Any = executor._keeper._link
        real, broken = link._client.rpc, sorted(executor.nodes)[0]

        def rpc(address: str) -> Any:
            if address == broken:
                raise RuntimeError("it answers with nonsense")
            return real(address)

        link._client.rpc = rpc
        jobs = [executor.submit(pow, 2, number) for number in range(50)]
        assert [job.result(timeout=60) for job in jobs] == [2**number for number in range(50)]
        # By way of the scheduler it comes back.
        link._client.rpc = real
        while len(executor.nodes) < 2:
            assert executor.submit(pow, 2, 5).result(timeout=60) == 32
