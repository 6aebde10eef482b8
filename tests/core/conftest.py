"""What the core's tests share: executors, gates, scripts, and the proof that each test leaves no process behind."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import loky
import pytest

from jobrunner import InlineExecutor, LocalExecutor, wait
from jobrunner.executors.services import services
from tests.clusters import cluster_of, connect
from tests.core.gates import Gate
from tests.core.process_table import await_none, describe, environment_of, live_with_variable, parent_of
from tests.core.scripts import Script

_SHARED = "JOBRUNNER_TEST_SHARED"

#: The executors over which the behaviour suite runs.
ENGINES = ("local", "inline", "threads", "processes", "loky", "dask", "ray")


def _left_behind() -> list[int]:
    """Live processes of lanes of this process, but for the workers of the executor that all tests share."""
    return [
        pid
        for pid in live_with_variable("JOBRUNNER_LANE", services().spawner.tag)
        if not (_SHARED in environment_of(pid) and parent_of(pid) == os.getpid())
    ]


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Each test ends the processes that it has started."""
    yield
    left = await_none(_left_behind, 10.0)
    assert not left, f"the test has left processes behind: {describe(left)}"


class _Shared:
    """A LocalExecutor of two workers, made when first asked for, and again where a test has broken it."""

    def __init__(self) -> None:
        self._executor: LocalExecutor | None = None

    def get(self) -> LocalExecutor:
        if self._executor is None or self._executor.is_shut_down:
            self._executor = LocalExecutor(max_workers=2, spare_workers=0, idle_timeout=None, env={_SHARED: "1"})
        return self._executor

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(kill_workers=True)
            self._executor = None


@pytest.fixture(scope="session")
def shared() -> Iterator[_Shared]:
    """The executor that tests share for which a used one is good enough."""
    made = _Shared()
    yield made
    made.close()


@pytest.fixture
def executor(shared: _Shared) -> Iterator[LocalExecutor]:
    """The shared LocalExecutor; a test gives it back idle."""
    executor = shared.get()
    yield executor
    # What was cancelled just now may not be over yet: another job's round trip is time enough for some steps of it.
    for _ in range(1000):
        stats = executor.stats()
        if executor.is_shut_down or (stats["queued"], stats["running"]) == (0, 0):
            return
        wait([executor.submit(abs, -1)], timeout=10)
    shared.close()
    pytest.fail(f"the test has left jobs behind: {stats}")


@pytest.fixture
def make_local() -> Iterator[Callable[..., LocalExecutor]]:
    """Makes LocalExecutors, which are ended with the test."""
    made: list[LocalExecutor] = []

    def make(max_workers: int = 1, *, spare_workers: int = 0, **options: Any) -> LocalExecutor:
        made.append(LocalExecutor(max_workers, spare_workers=spare_workers, **options))
        return made[-1]

    yield make
    for executor in made:
        executor.shutdown(wait=False, cancel_futures=True, kill_workers=True)
    for executor in made:
        executor.shutdown()


@pytest.fixture(scope="session")
def _processes() -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        yield executor


@pytest.fixture(scope="module")
def _dask() -> Iterator[concurrent.futures.Executor]:
    with cluster_of("dask") as cluster, connect("dask", cluster.address) as executor:
        yield executor


@pytest.fixture(scope="module")
def _ray() -> Iterator[concurrent.futures.Executor]:
    with cluster_of("ray") as cluster, connect("ray", cluster.address) as executor:
        yield executor


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    """The name of the executor under test."""
    name: str = request.param
    return name


@pytest.fixture
def engine(engine_name: str, request: pytest.FixtureRequest) -> Iterator[concurrent.futures.Executor]:
    """Each executor that a job may be submitted to, ours and foreign ones."""
    if engine_name == "local":
        yield request.getfixturevalue("executor")
    elif engine_name == "inline":
        yield InlineExecutor()
    elif engine_name == "threads":
        with concurrent.futures.ThreadPoolExecutor(2) as threads:
            yield threads
    elif engine_name in ("processes", "dask", "ray"):
        yield request.getfixturevalue(f"_{engine_name}")
    else:
        yield loky.get_reusable_executor(max_workers=2, timeout=300)


@pytest.fixture
def make_gate(tmp_path: Path) -> Iterator[Callable[[], Gate]]:
    """Makes gates, which are removed with the test."""
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate(tmp_path / f"gate-{len(made)}"))
        return made[-1]

    yield make
    for gate in made:
        gate.close()


@pytest.fixture
def gate(make_gate: Callable[[], Gate]) -> Gate:
    """A place where jobs and the test meet."""
    return make_gate()


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[..., Script]]:
    """Runs programs in processes of their own; what is left of them at the test's end is killed, and an error."""
    made: list[Script] = []

    def run(source: str, *arguments: object, **options: Any) -> Script:
        directory = tmp_path / f"script-{len(made)}"
        directory.mkdir()
        made.append(Script(directory, source, *arguments, **options))
        return made[-1]

    yield run
    for one in made:
        one.kill_all()
        one.process.communicate()
