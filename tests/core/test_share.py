"""`share`: the object itself arrives, once in each worker, and goes everywhere when its handle goes."""

from __future__ import annotations

import concurrent.futures
import functools
import gc
import os
import pickle
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobrunner import (
    InlineExecutor,
    JobError,
    LocalExecutor,
    MemoryLimitExceeded,
    PrimitiveJob,
    SerializationError,
    WorkerDiedError,
    share,
)
from jobrunner.sharing import Shared
from tests.core import cargo, sharing_jobs
from tests.core.cargo import SAMPLES, Holder, facts, numbers, plain_copy, sample
from tests.core.gates import Gate, lines, meet
from tests.core.scripts import Script
from tests.core.shared_memory import failing, held
from tests.core.sharing_jobs import Counted
from tests.core.troubles import die_until

MakeLocal = Callable[..., LocalExecutor]
Run = Callable[..., Script]


@pytest.fixture(params=["local", "inline"])
def sharing(request: pytest.FixtureRequest) -> LocalExecutor | InlineExecutor:
    """Each executor that has shared objects."""
    if request.param == "inline":
        return InlineExecutor()
    executor: LocalExecutor = request.getfixturevalue("executor")
    return executor


def _shares_held() -> int:
    gc.collect()
    return sum("jobrunner-share" in name for name in held())


# The object itself arrives


# Not what writes to its buffers when it is rebuilt: those of a shared object are read-only.
@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "rebuilt in place"])
def test_what_is_shared_arrives_as_by_plain_pickling_but_read_only(
    sharing: LocalExecutor | InlineExecutor, name: str
) -> None:
    value = sample(name)
    for job in [sharing.submit(cargo.facts_of, share(value)) for _ in range(2)]:
        assert _writeable_alike(job.result()) == _writeable_alike(facts([plain_copy(value)]))


def _writeable_alike(found: Any) -> Any:
    """The same facts but for what can be written to: of a shared object it is not promised."""
    if isinstance(found, tuple) and len(found) == 4 and all(isinstance(one, bool) for one in found):
        return found[1:]
    if isinstance(found, tuple) and found and found[0] == "Blob":
        return found[:3]
    if isinstance(found, (tuple, list)):
        return [_writeable_alike(one) for one in found]
    return found


def test_it_is_found_wherever_it_is_nested(sharing: LocalExecutor | InlineExecutor) -> None:
    table: Any = share({"answer": [42]})
    nest = (Holder("held", table), {"key": [table]}, functools.partial(dict.copy, table), lambda: table)
    assert sharing.submit(sharing_jobs.found_in, nest).result() == ({"answer": [42]},) * 4
    assert sharing.submit(sharing_jobs.same, table, table, [table][0]).result()
    assert sharing.submit(lambda: table["answer"]).result() == [42]
    assert sharing.submit(functools.partial(dict.get, table, "answer")).result() == [42]
    array: Any = share(numbers())
    assert sharing.submit(sharing_jobs.keyword_total, table=array).result() == numbers().sum()
    job = PrimitiveJob(sharing_jobs.keyword_total, table=array)
    job.submit(sharing)
    assert job.result() == numbers().sum()


@pytest.mark.parametrize("chunksize", [1, None])
def test_it_is_found_in_the_function_and_the_items_of_a_map(
    sharing: LocalExecutor | InlineExecutor, chunksize: int | None
) -> None:
    table: Any = share(numbers(count=100_000))
    by_partial = sharing.map(functools.partial(sharing_jobs.scaled, table), range(20), chunksize=chunksize)
    by_item = sharing.map(sharing_jobs.scaled, [table] * 20, range(20), chunksize=chunksize)
    by_closure = sharing.map(lambda factor: factor * float(table.sum()), range(20), chunksize=chunksize)
    expected = [factor * numbers(count=100_000).sum() for factor in range(20)]
    assert list(by_partial) == list(by_item) == list(by_closure) == expected


def test_it_arrives_beside_a_job_that_is_waited_for(executor: LocalExecutor) -> None:
    table: Any = share(numbers())
    first = PrimitiveJob(sharing_jobs.scaled, table, 2.0)
    first.submit(executor)
    then = executor.submit(lambda job, data: job.result() + data[1], first, table)
    assert then.result() == 2 * numbers().sum() + 1


def test_each_worker_unpickles_it_once_at_most(make_local: MakeLocal, gate: Gate, tmp_path: Path) -> None:
    executor = make_local(2)
    path = tmp_path / "loads"
    table = share(Counted(str(path), numbers()))
    jobs = [executor.submit(sharing_jobs.meet_with, gate.path, table) for _ in range(2)]
    pids = {*gate.await_arrival(2)}
    gate.release(2)
    assert {job.result() for job in jobs} == pids
    more = [executor.submit(sharing_jobs.pid_with, table, [table]) for _ in range(30)]
    assert {job.result() for job in more} <= pids
    assert set(executor.map(functools.partial(sharing_jobs.pid_with, table), range(100))) <= pids
    assert sorted(lines(path)) == sorted(map(str, pids))


def test_in_this_process_it_is_unpickled_once(tmp_path: Path) -> None:
    path = tmp_path / "loads"
    table = share(Counted(str(path)))
    for _ in range(3):
        InlineExecutor().submit(sharing_jobs.pid_with, table).result()
    assert len(lines(path)) == 1


def test_a_shared_array_can_not_be_written_to(sharing: LocalExecutor | InlineExecutor) -> None:
    array = numbers()
    table = share(array)
    assert "read-only" in sharing.submit(sharing_jobs.try_to_write, table).result()
    assert "read-only" in sharing.submit(sharing_jobs.try_to_write, table).result()
    array[0] = 7.0  # the caller's own can


def test_later_changes_of_the_object_are_not_seen(sharing: LocalExecutor | InlineExecutor) -> None:
    array, things = numbers(), [1, 2]
    table: Any = share((array, things))
    array[:] = -1
    things.append(3)
    assert sharing.submit(lambda both: (float(both[0].sum()), both[1]), table).result() == (numbers().sum(), [1, 2])


def test_a_job_within_a_job_can_share(executor: LocalExecutor) -> None:
    def outer() -> float:
        table: Any = share(numbers())
        job = PrimitiveJob(cargo.total, table)
        job.submit()
        return job.result()

    assert executor.submit(outer).result() == numbers().sum()


# Where it does not go


def test_what_can_not_be_pickled_can_not_be_shared() -> None:
    with pytest.raises(SerializationError, match="lock"):
        share(threading.Lock())


def test_a_handle_by_itself_can_not_be_pickled(executor: LocalExecutor) -> None:
    table = share([1])
    with pytest.raises(TypeError, match="among the arguments"):
        pickle.dumps(table)
    with pytest.raises(SerializationError, match="among the arguments"):
        share([table])
    assert executor.submit(sum, table).result() == 1


def test_initargs_take_no_shared_object() -> None:
    table = share(numbers())
    with pytest.raises(JobError, match="initializer"):
        LocalExecutor(1, initializer=cargo.total, initargs=(table,))
    with pytest.raises(JobError, match="initializer"):
        LocalExecutor(1, initializer=functools.partial(cargo.total, table))


def test_a_foreign_executor_refuses_it_at_submit() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        job = PrimitiveJob(cargo.total, share(numbers()))
        with pytest.raises(JobError, match="shared_objects"):
            job.submit(threads)


def test_one_that_can_not_be_rebuilt_fails_its_jobs_only(executor: LocalExecutor) -> None:
    table = share(sharing_jobs.NeverLoads())
    for _ in range(2):
        with pytest.raises(SerializationError, match="can't be loaded"):
            executor.submit(sharing_jobs.pid_with, table).result()
    good = share([1, 2])
    assert executor.submit(sum, good).result() == 3


# It goes when nobody needs it


def test_when_the_handle_goes_its_memory_goes_here_and_in_the_workers(make_local: MakeLocal) -> None:
    executor = make_local(1)
    table = share(Holder("watched", numbers()))
    executor.submit(sharing_jobs.watch, "table", table).result()
    assert executor.submit(sharing_jobs.is_there, "table").result()
    assert _shares_held() == 1
    del table
    assert _shares_held() == 0
    # What is told to the worker comes before the next job, or the one after it.
    assert not all(executor.submit(sharing_jobs.is_there, "table").result() for _ in range(1000))
    assert executor.submit(sharing_jobs.maps_of_shares).result() == 0


def test_one_that_no_job_asked_for_goes_too(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1)
    blocker = executor.submit(meet, gate.path)
    gate.await_arrival()
    table = share(numbers())
    job = executor.submit(cargo.total, table)
    job.cancel()
    del table
    gate.release()
    blocker.result()
    executor.submit(abs, 1).result()
    assert any(executor.submit(sharing_jobs.maps_of_shares).result() == 0 for _ in range(1000))
    del job
    assert _shares_held() == 0


def test_a_queued_job_keeps_it(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1)
    blocker = executor.submit(meet, gate.path)
    gate.await_arrival()
    waiting = PrimitiveJob(meet, gate.path, 1)
    waiting.submit(executor)
    table: Any = share(numbers())
    job = executor.submit(cargo.total, table)
    held_back = executor.submit(lambda one, two: cargo.total(one) + two.result(), table, waiting)
    mapped = executor.map(functools.partial(sharing_jobs.scaled, table), [1.0, 2.0])
    del table
    gc.collect()
    gate.release(2)
    blocker.result()
    assert job.result() == numbers().sum()
    assert held_back.result() == numbers().sum() + 1
    assert list(mapped) == [numbers().sum(), 2 * numbers().sum()]
    del mapped, job, held_back
    executor.submit(abs, 1).result()
    assert _shares_held() == 0


def test_a_finished_job_does_not_keep_it(executor: LocalExecutor) -> None:
    table = share(numbers())
    job = executor.submit(cargo.total, table)
    job.result()
    gone = weakref.ref(table)
    del table
    gc.collect()
    assert gone() is None
    assert _shares_held() == 0


def test_a_handle_does_not_keep_the_executors_that_used_it() -> None:
    table = share([1, 2])
    gone = []
    for _ in range(2):
        with LocalExecutor(1, spare_workers=0) as executor:
            assert executor.submit(sum, table).result() == 3
            gone.append(weakref.ref(executor._holder.pool))
        del executor
    gc.collect()
    assert [one() for one in gone] == [None, None]


def test_an_executor_that_was_shut_down_is_no_concern_of_the_handles() -> None:
    table = share(numbers())
    with LocalExecutor(1, spare_workers=0) as executor:
        executor.submit(cargo.total, table).result()
    with LocalExecutor(1, spare_workers=0) as executor:
        assert executor.submit(cargo.total, table).result() == numbers().sum()
    del table
    assert _shares_held() == 0


def test_two_executors_use_one_handle(make_local: MakeLocal, tmp_path: Path) -> None:
    path = tmp_path / "loads"
    table = share(Counted(str(path), numbers()))
    pids = {make_local(1).submit(sharing_jobs.pid_with, table).result() for _ in range(2)}
    assert sorted(lines(path)) == sorted(map(str, pids))
    assert len(pids) == 2


# Trouble


def test_a_new_worker_gets_it_anew(make_local: MakeLocal, tmp_path: Path) -> None:
    executor = make_local(1)
    path = tmp_path / "loads"
    table = share(Counted(str(path), numbers()))
    first = executor.submit(sharing_jobs.pid_with, table).result()
    with pytest.raises(WorkerDiedError):
        executor.submit(sharing_jobs.die_with, table).result()
    second = executor.submit(sharing_jobs.pid_with, table).result()
    assert lines(path) == [str(first), str(second)]
    starts = str(tmp_path / "starts")
    retried = make_local(1, retries=2).submit(lambda data: (die_until(starts, 2), cargo.total(data.data)), table)
    assert retried.result() == (2, numbers().sum())


def test_jobs_with_limits_have_it(make_local: MakeLocal) -> None:
    executor = make_local(1, time_limit=60, memory_limit="1GiB", max_jobs_per_worker=2)
    table = share(numbers())
    assert [executor.submit(cargo.total, table).result() for _ in range(5)] == [numbers().sum()] * 5


def test_a_memory_limit_does_not_count_it_and_counts_the_job(make_local: MakeLocal) -> None:
    executor = make_local(1, memory_limit="200MiB")
    table = share(np.ones(300 << 17))  # 300 MiB
    for _ in range(2):
        job = executor.submit(cargo.total_slowly, table)
        assert job.result() == 300 << 17
    with pytest.raises(MemoryLimitExceeded):
        executor.submit(cargo.allocate_slowly, table, 300 << 20).result()
    assert executor.submit(cargo.total_slowly, table).result() == 300 << 17


@pytest.mark.parametrize("count", [100, 1000])
def test_a_job_may_have_many(make_local: MakeLocal, count: int) -> None:
    executor = make_local(1)
    tables: list[Any] = [share(number) for number in range(count)]
    assert executor.submit(sum, tables).result() == sum(range(count))
    assert executor.stats()["restarts"] == 0


def test_small_ones_need_no_descriptors() -> None:
    before = len(os.listdir("/proc/self/fd"))
    tables = [share(number) for number in range(100)]
    assert len(os.listdir("/proc/self/fd")) < before + 50
    del tables


def test_without_shared_memory_it_travels_in_the_channel(
    make_local: MakeLocal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobrunner.sharing._in_shared_memory", lambda _: None)
    executor = make_local(1)
    table: Any = share(numbers())
    assert table.descriptor is None
    assert executor.submit(cargo.total, table).result() == numbers().sum()
    assert "read-only" in executor.submit(sharing_jobs.try_to_write, table).result()
    assert InlineExecutor().submit(cargo.total, table).result() == numbers().sum()


def test_out_of_memory_for_sharing_it_travels_in_the_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "memfd_create", failing(OSError(24, "too many open files")))
    monkeypatch.setattr("jobrunner.anonymous_memory._open_unnamed", failing(OSError(24, "too many open files")))
    table: Any = share(numbers())
    monkeypatch.undo()
    assert isinstance(table, Shared)
    assert table.descriptor is None


def test_out_of_descriptors_in_a_worker_it_is_had_again_when_there_are_some(make_local: MakeLocal) -> None:
    executor = make_local(1, initializer=cargo.lower_descriptor_limit, initargs=(120,))
    executor.submit(cargo.total, numbers()).result()
    executor.submit(cargo.exhaust_descriptors, 0).result()
    table = share(numbers())
    error = executor.submit(cargo.total, table).exception()
    assert error is None or isinstance(error, SerializationError)
    executor.submit(cargo.free_descriptors).result()
    assert executor.submit(cargo.total, table).result() == numbers().sum()


def test_a_fork_of_the_caller_uses_the_handle_itself(script: Run) -> None:
    script("""
import os
from jobrunner import LocalExecutor, share
from tests.core.cargo import numbers, total
if __name__ == "__main__":
    executor = LocalExecutor(1, spare_workers=0)
    table = share(numbers())
    assert executor.submit(total, table).result() == numbers().sum()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert executor.submit(total, table).result() == numbers().sum()
            assert executor.submit(total, share(numbers(1))).result() == numbers(1).sum()
            executor.shutdown()
            del table
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    other = share(numbers(2))
    assert executor.submit(total, table).result() == numbers().sum()
    assert executor.submit(total, other).result() == numbers(2).sum()
    executor.shutdown()
""").check()


def test_sharing_and_letting_go_again_and_again_takes_no_more_memory(make_local: MakeLocal) -> None:
    executor = make_local(1)

    def use(times: int) -> int:
        for seed in range(times):
            assert executor.submit(cargo.total, share(numbers(seed, 200_000))).result() == numbers(seed, 200_000).sum()
        return int(executor.submit(sharing_jobs.maps_of_shares).result())

    use(40)
    assert _shares_held() == 0
    assert use(40) <= 2


@pytest.mark.parametrize("array", [
    np.arange(40_000).view("M8[s]"), np.arange(40_000).view("m8[ms]").reshape(200, 200).T, np.arange(80_000.0)[::2],
    np.zeros(20_000, [("when", "M8[s]"), ("what", "f8")]), np.arange(40_000.0).reshape(200, 200)[:, ::2].T[::-1],
], ids=["dates", "times in columns", "strided", "structured", "mixed"])  # fmt: skip
def test_a_large_array_cannot_be_written_to_whatever_it_is_of(array: Any) -> None:
    with LocalExecutor(max_workers=1) as executor:
        handle = share({"in": array})
        shape, writeable, same = executor.submit(_look_at, handle, array).result()
    assert (shape, writeable, same) == (array.shape, False, True)


def _look_at(shared: dict[str, Any], array: Any) -> tuple[tuple[int, ...], bool, bool]:
    found = shared["in"]
    return found.shape, found.flags.writeable, found.dtype == array.dtype and bool((found == array).all())
