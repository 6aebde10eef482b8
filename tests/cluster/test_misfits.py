"""A Dask worker of another version that comes when the cluster is in use: it is not used, and holds nothing up."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobrunner import DaskExecutor, WorkerDiedError
from tests.clusters import DaskCluster, cluster_of, end_tree
from tests.core.gates import Gate, meet


class _Noticed(logging.Handler):
    """Set when a worker is found unfit."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.event = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "is not used: Python is" in record.getMessage():
            self.event.set()


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[tuple[DaskCluster, DaskExecutor]]:
    """A cluster of a worker and another that says that its Python is an old one, and an executor that knows so."""
    (tmp_path / "sitecustomize.py").write_text("import platform\nplatform.python_version = lambda: '3.1.4'\n")
    noticed, logger = _Noticed(), logging.getLogger("jobrunner")
    with cluster_of("dask", workers=1) as cluster, contextlib.ExitStack() as leaving:
        assert isinstance(cluster, DaskCluster)
        logger.addHandler(noticed)
        leaving.callback(logger.removeHandler, noticed)
        executor = leaving.enter_context(DaskExecutor(cluster.address))
        root = str(Path(__file__).parents[2])
        leaving.callback(end_tree, cluster.add_worker(PYTHONPATH=f"{tmp_path}:{root}"))
        assert noticed.event.wait(60)
        yield cluster, executor


def test_what_waits_goes_to_a_worker_that_comes(mixed: tuple[DaskCluster, DaskExecutor], gate: Gate) -> None:
    cluster, executor = mixed
    held = executor.submit(meet, gate.path, "held")
    gate.await_arrival()
    waiting = executor.submit(pow, 2, 3)
    worker = cluster.add_worker()
    try:
        assert waiting.result(60) == 8
        assert held.running()
        gate.release()
        assert held.result(60) == "held"
        assert len(executor.nodes) == 2
    finally:
        end_tree(worker)


def test_what_waited_for_a_worker_that_is_lost_goes_to_one_that_comes(
    mixed: tuple[DaskCluster, DaskExecutor], gate: Gate
) -> None:
    cluster, executor = mixed
    held = executor.submit(meet, gate.path, "held")
    gate.await_arrival()
    waiting = executor.submit(pow, 2, 3)
    end_tree(cluster.workers[0])
    with pytest.raises(WorkerDiedError, match="was lost"):
        held.result(60)
    worker = cluster.add_worker()
    try:
        assert waiting.result(60) == 8
    finally:
        end_tree(worker)
