"""Large arguments and results, whose buffers travel in shared memory: as by plain pickling, whatever happens."""

from __future__ import annotations

import concurrent.futures
import functools
import gc
import os
import pickle
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobrunner import (
    InlineExecutor,
    JobFuture,
    LocalExecutor,
    PrimitiveJob,
    SerializationError,
    WorkerDiedError,
    anonymous_memory,
)
from jobrunner.executors import freight
from jobrunner.segments import Arena
from tests.core import cargo
from tests.core.cargo import COUNT, SAMPLES, Array, facts, numbers, plain_copy, sample
from tests.core.gates import Gate, await_release, lines, meet
from tests.core.oddities import identity
from tests.core.scripts import Script
from tests.core.shared_memory import failing, held, shm_names

MakeLocal = Callable[..., LocalExecutor]
Run = Callable[..., Script]

NAMES = list(SAMPLES)


# As by plain pickling


@pytest.mark.parametrize("name", NAMES)
def test_an_argument_arrives_as_by_plain_pickling(executor: LocalExecutor, name: str) -> None:
    value = sample(name)
    expected = facts([plain_copy(value)])
    assert executor.submit(cargo.facts_of, value).result() == expected
    assert executor.submit(cargo.facts_of, keyword=value).result() == expected
    assert facts(value) == facts(sample(name)), "the caller's own has changed"


@pytest.mark.parametrize("name", NAMES)
def test_a_result_arrives_as_by_plain_pickling(executor: LocalExecutor, name: str) -> None:
    assert facts(executor.submit(sample, name).result()) == facts(plain_copy(sample(name)))


@pytest.mark.parametrize("name", NAMES)
def test_what_a_job_passes_on_arrives_as_by_plain_pickling_twice(executor: LocalExecutor, name: str) -> None:
    value = sample(name)
    assert facts(executor.submit(identity, value).result()) == facts(plain_copy(plain_copy(value)))


@pytest.mark.parametrize("chunksize", [1, 3, None])
def test_items_of_a_map_and_their_results_arrive_as_by_plain_pickling(
    executor: LocalExecutor, chunksize: int | None
) -> None:
    values = [sample(name) for name in NAMES]
    for name, value, found in zip(
        NAMES, values, executor.map(cargo.facts_of, values, chunksize=chunksize), strict=True
    ):
        assert found == facts([plain_copy(value)]), name
    for name, found in zip(NAMES, executor.map(sample, NAMES, chunksize=chunksize), strict=True):
        assert facts(found) == facts(plain_copy(sample(name))), name


def test_every_executor_takes_and_returns_large_data_alike(engine: concurrent.futures.Executor) -> None:
    for name in NAMES:
        value = sample(name)
        taken, made = PrimitiveJob(cargo.facts_of, value), PrimitiveJob(sample, name)
        taken.submit(engine)
        made.submit(engine)
        assert taken.result() == facts([plain_copy(value)]), name
        assert facts(made.result()) == facts(plain_copy(value)), name


def test_a_large_result_arrives_in_a_job_that_depends_on_it(engine: concurrent.futures.Executor) -> None:
    for name in NAMES:
        job = PrimitiveJob(sample, name)
        job.submit(engine)
        # Before it was looked at, and after.
        expected = facts(plain_copy(sample(name)))
        for _ in range(2):
            then = PrimitiveJob(cargo.facts_of_result, job)
            then.submit(engine)
            assert then.result() in (expected, facts(plain_copy(plain_copy(sample(name))))), name
            job.result()


@pytest.mark.parametrize("name", NAMES)
def test_a_finished_job_is_pickled_with_its_large_result(executor: LocalExecutor, name: str) -> None:
    job = PrimitiveJob(sample, name)
    job.submit(executor)
    copies = [pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(job, 5)), 5)) for _ in range(2)]
    expected = facts(plain_copy(sample(name)))
    assert [facts(copy.result()) for copy in copies] == [expected, expected]
    assert facts(job.result()) == expected


def test_initargs_arrive_as_by_plain_pickling(make_local: MakeLocal) -> None:
    values = [sample(name) for name in NAMES]
    executor = make_local(initializer=cargo.note_facts, initargs=values)
    for name, value, noted in zip(NAMES, values, executor.submit(cargo.noted_facts).result(), strict=True):
        assert noted == facts(plain_copy(value)), name


def test_a_closure_a_partial_and_a_method_bring_their_arrays(executor: LocalExecutor) -> None:
    one, two = numbers(1), numbers(2)
    assert executor.submit(lambda: float(one.sum())).result() == one.sum()
    assert executor.submit(lambda bound=two: float(bound.sum())).result() == two.sum()
    assert executor.submit(functools.partial(cargo.total, data=two)).result() == two.sum()
    assert executor.submit(one.sum).result() == one.sum()
    assert executor.submit(lambda key: {id(one): "one"}.get(id(key), "other"), one).result() == "one"


def test_frames_and_series_arrive_as_by_plain_pickling(executor: LocalExecutor) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": numbers(1), "b": np.arange(COUNT), "text": [str(n) for n in range(COUNT)]})
    for value in (frame, frame["a"], frame[["a", "b"]], frame.iloc[::2]):
        returned = executor.submit(identity, value).result()
        assert type(returned) is type(value)
        assert returned.equals(value)
    returned = executor.submit(identity, frame).result()
    returned.loc[0, "a"] = -1.0
    assert frame.loc[0, "a"] == 1e6


@pytest.mark.parametrize("where", ["argument", "result"])
def test_what_can_not_be_rebuilt_fails_and_the_next_job_works(executor: LocalExecutor, where: str) -> None:
    value = [numbers(), cargo.FailsInWorker() if where == "argument" else 0]
    job = executor.submit(identity, value) if where == "argument" else executor.submit(cargo.make_unloadable_array)
    with pytest.raises(pickle.PicklingError):
        job.result()
    assert executor.submit(cargo.total, numbers()).result() == numbers().sum()


# Nobody sees what another writes


def test_a_change_after_submit_is_not_seen(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1)
    blocker = PrimitiveJob(meet, gate.path, 1)
    blocker.submit(executor)
    gate.await_arrival()
    array, blob, data = numbers(), bytearray(b"x" * 200_000), [numbers(1)]
    queued = executor.submit(cargo.facts_of, array, cargo.Blob(blob), data)
    held_back = executor.submit(lambda *args: cargo.facts_of(*args[:-1]), array, cargo.Blob(blob), data, blocker)
    expected = facts([array, cargo.Blob(bytearray(blob)), data])
    array[:], blob[:], data[0][:] = -1, b"y" * 200_000, -1
    data.append(numbers(2))
    gate.release()
    assert queued.result() == expected
    assert held_back.result() == expected


def test_a_change_after_submit_is_not_seen_by_another_attempt(
    make_local: MakeLocal, gate: Gate, tmp_path: Path
) -> None:
    executor = make_local(1, retries=3)
    array = numbers()
    job = executor.submit(cargo.overwrite_and_die, array, gate.path, str(tmp_path / "starts"), 3)
    array[:] = -7
    for _ in range(3):
        gate.await_arrival()
        gate.release()
    assert job.result() == numbers().sum()
    assert job.report().attempts == 3
    assert (array == -7).all()


def test_after_submit_nothing_holds_the_callers_own_memory(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1)
    first = PrimitiveJob(meet, gate.path, 1)
    first.submit(executor)
    data = bytearray(b"x" * 200_000)
    job = executor.submit(cargo.length_and, cargo.Lends(data), first)
    data.extend(b"y")  # a BufferError, if somebody has it
    gate.await_arrival()
    gate.release()
    assert job.result() == 200_000


def test_what_a_job_writes_nobody_else_sees(make_local: MakeLocal) -> None:
    executor = make_local(2)
    array = numbers()
    jobs = [executor.submit(cargo.overwrite, array) for _ in range(6)]
    assert {job.result() for job in jobs} == {array.sum()}
    assert (array == numbers()).all()
    # Chunks are jobs: items of different chunks see nothing of each other.
    assert set(executor.map(cargo.overwrite, [array] * 6, chunksize=1)) == {array.sum()}
    assert (array == numbers()).all()


def test_in_line_and_in_threads_a_job_writes_to_a_copy() -> None:
    array = numbers()
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        for engine in (InlineExecutor(), threads):
            job = PrimitiveJob(cargo.overwrite, array)
            job.submit(engine)
            assert job.result() == array.sum()
    assert (array == numbers()).all()


def test_a_result_is_the_callers_to_write_to(executor: LocalExecutor) -> None:
    job = executor.submit(numbers, 1)
    mine = job.result()
    mine[:] = -1
    others = [executor.submit(numbers, seed).result() for seed in range(8)]
    assert (mine == -1).all()
    assert job.result() is mine
    assert [other[0] for other in others] == [1e6 * seed for seed in range(8)]


def test_an_argument_that_a_job_has_kept_stays_as_it_was(make_local: MakeLocal) -> None:
    executor = make_local(1)
    sums = [executor.submit(cargo.keep, numbers(seed)).result() for seed in range(5)]
    for seed in range(100, 110):
        assert executor.submit(cargo.overwrite, numbers(seed)).result() == numbers(seed).sum()
    assert executor.submit(cargo.totals_kept).result() == sums


def test_a_part_of_an_argument_that_a_job_has_kept_stays_as_it_was(make_local: MakeLocal) -> None:
    executor = make_local(1)
    for seed in range(3):
        executor.submit(cargo.keep_part, numbers(seed)).result()
    for seed in range(100, 110):
        executor.submit(cargo.total, numbers(seed)).result()
    assert executor.submit(cargo.totals_kept).result() == [float(numbers(seed)[7:9].sum()) for seed in range(3)]


def test_what_the_child_of_a_job_has_inherited_stays_as_it_was(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1)
    job = executor.submit(cargo.fork_and_sum_later, numbers(1), gate.path)
    gate.await_arrival()
    others = [executor.submit(cargo.overwrite, numbers(seed)) for seed in range(5)]
    gate.release()
    assert job.result() == 0
    assert [other.result() for other in others] == [numbers(seed).sum() for seed in range(5)]


def test_a_fork_of_the_caller_keeps_results_and_uses_large_data_itself(script: Run) -> None:
    script("""
import os, sys
import numpy as np
from jobrunner import LocalExecutor
from tests.core.cargo import numbers, overwrite
if __name__ == "__main__":
    executor = LocalExecutor(1, spare_workers=0)
    results = [executor.submit(numbers, seed).result() for seed in range(3)]
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.read(go[0], 1)
            assert all((results[seed] == numbers(seed)).all() for seed in range(3))
            with LocalExecutor(1, spare_workers=0) as own:
                assert own.submit(overwrite, results[0]).result() == numbers(0).sum()
            assert executor.submit(overwrite, results[1]).result() == numbers(1).sum()
            executor.shutdown()
            code = 0
        finally:
            os._exit(code)
    results.clear()
    for seed in range(50, 60):
        assert (executor.submit(numbers, seed).result() == numbers(seed)).all()
    os.write(go[1], b".")
    assert os.waitpid(pid, 0)[1] == 0
    executor.shutdown()
""").check()


def _stress(executor: LocalExecutor, seed: int, rounds: int, wrong: list[str], kill: bool) -> None:
    """Send and fetch arrays of many sizes, keep some results for long, and look that none ever changes."""
    source = random.Random(seed)
    kept: list[tuple[Array, float]] = []
    pending: list[tuple[JobFuture[Any], float, int]] = []
    for number in range(rounds):
        value = seed * 1000.0 + number
        size = source.choice((10, 16_000, 17_000, 40_000, 150_000))
        job = executor.submit(cargo.check_and_return, np.full(size, value), value, kill and source.random() < 0.02)
        pending.append((job, value, size))
        while len(pending) > source.randrange(6):
            job, value, size = pending.pop(source.randrange(len(pending)))
            error = job.exception()
            if error is not None:
                if not isinstance(error, WorkerDiedError):
                    wrong.append(repr(error))
                continue
            result = job.result()
            if result.shape != (size,) or not (result == value + 0.5).all():
                wrong.append(f"result {value}: {result}")
            if source.random() < 0.3:
                kept.append((result, value + 0.5))
            if source.random() < 0.3:
                result[:] = value + 0.5
        if len(kept) > 30:
            kept.pop(source.randrange(len(kept)))
        array, value = source.choice(kept or [(np.zeros(1), 0.0)])
        if not (array == value).all():
            wrong.append(f"kept {value}: {array}")
    wrong += [f"kept {value}: {array}" for array, value in kept if not (array == value).all()]


@pytest.mark.parametrize("kill", [False, True])
def test_in_a_storm_of_large_data_none_is_ever_overwritten(make_local: MakeLocal, kill: bool) -> None:
    executor = make_local(2, spare_workers=1)
    wrong: list[str] = []
    threads = [
        threading.Thread(target=_stress, args=(executor, seed, 80 if kill else 150, wrong, kill)) for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# Shortages


@pytest.mark.parametrize("kind", ["no memfd", "refused memfd", "no segments", "no shared memory"])
def test_without_shared_memory_data_travel_in_the_channel(
    make_local: MakeLocal, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    refused = OSError(28, "no space left")
    if kind == "no memfd":
        monkeypatch.delattr(os, "memfd_create")
    elif kind == "no segments":
        monkeypatch.setattr(Arena, "pack", lambda *_, **__: None)
    else:
        monkeypatch.setattr(os, "memfd_create", failing(refused))
        if kind == "no shared memory":
            monkeypatch.setattr(anonymous_memory, "_open_unnamed", failing(refused))
    names_before = shm_names()
    executor = make_local(1, initializer=cargo.break_shared_memory, initargs=(kind,), retries=2)
    for name in NAMES:
        value = sample(name)
        assert executor.submit(cargo.facts_of, value).result() == facts([plain_copy(value)]), name
        assert facts(executor.submit(sample, name).result()) == facts(plain_copy(value)), name
    assert executor.submit(cargo.overwrite, numbers()).result() == numbers().sum()
    assert executor.stats()["restarts"] == 0
    assert shm_names() == names_before


def test_out_of_descriptors_in_the_caller_each_job_is_right_or_fails_clearly_and_the_pool_goes_on(
    script: Run, tmp_path: Path
) -> None:
    path = tmp_path / "told"
    # Not checked for silence: loky's thread complains of the descriptors on stderr.
    script(
        f"path = {str(path)!r}"
        """
import os, resource
from jobrunner import LocalExecutor, SerializationError, share
from tests.core.cargo import numbers, total
if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
    executor = LocalExecutor(1, spare_workers=0)
    assert executor.submit(numbers).result().sum() == total(numbers())
    for free in (0, 1, 2, 3, 4):
        held = []
        try:
            while True: held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError: pass
        for _ in range(free): os.close(held.pop())
        for seed in range(4):
            assert executor.submit(total, numbers(seed)).result(30) == total(numbers(seed))
            assert executor.submit(total, share(numbers(seed))).result(30) == total(numbers(seed))
            try:
                assert executor.submit(numbers, seed).result(30).sum() == total(numbers(seed))
            except SerializationError as error:
                assert "descriptor" in str(error) or "open files" in str(error), error
        for fd in held: os.close(fd)
        assert executor.submit(numbers, 9).result(30).sum() == total(numbers(9))
    assert executor.stats()["restarts"] == 0, executor.stats()
    executor.shutdown()
    open(path, "w").write("well")
"""
    ).finish()
    assert path.read_text() == "well"


@pytest.mark.parametrize("free", [0, 1, 2, 3])
def test_out_of_descriptors_in_a_worker_each_job_is_right_or_fails_clearly_and_the_pool_goes_on(
    make_local: MakeLocal, free: int
) -> None:
    executor = make_local(1, initializer=cargo.lower_descriptor_limit, initargs=(120,))
    executor.submit(cargo.total, numbers()).result()
    executor.submit(cargo.exhaust_descriptors, free).result()
    for seed in range(3):
        for job, expected in (
            (executor.submit(cargo.total, numbers(seed)), numbers(seed).sum()),
            (executor.submit(numbers, seed), None),
        ):
            error = job.exception()
            if error is None:
                assert expected is None or job.result() == expected
            else:
                assert isinstance(error, pickle.PicklingError)
                assert "descriptor" in str(error) or "open files" in str(error)
    executor.submit(cargo.free_descriptors).result()
    assert executor.submit(cargo.total, numbers(7)).result() == numbers(7).sum()
    assert (executor.submit(numbers, 7).result() == numbers(7)).all()


def test_more_results_than_descriptors_are_kept(make_local: MakeLocal) -> None:
    executor = make_local(2)
    results = [job.result() for job in [executor.submit(numbers, seed) for seed in range(600)]]
    assert len(held()) < 400  # of results and arguments
    assert [result[1] for result in results] == [numbers(seed)[1] for seed in range(600)]


def test_many_large_jobs_wait_in_the_queue(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1)
    list(executor.map(abs, range(30), chunksize=1))  # jobs are known to be tiny now, and are prefetched
    blocker = executor.submit(await_release, gate.path)
    jobs = [executor.submit(cargo.total, numbers(seed)) for seed in range(500)]
    gate.release()
    blocker.result()
    assert [job.result() for job in jobs] == [numbers(seed).sum() for seed in range(500)]
    assert executor.stats()["restarts"] == 0


def test_one_job_has_many_large_buffers(executor: LocalExecutor) -> None:
    arrays = [numbers(seed) for seed in range(400)]
    assert executor.submit(cargo.facts_of, arrays).result() == facts([arrays])
    returned = executor.submit(identity, arrays).result()
    assert facts(returned) == facts(arrays)


# Nothing is left


def test_nothing_is_left_after_many_transfers(script: Run) -> None:
    script("""
import sys
from tests.core.cargo import transfers_leave_nothing
if __name__ == "__main__":
    transfers_leave_nothing(150)
""").check()


def test_after_a_shutdown_results_stay_and_nothing_else(make_local: MakeLocal) -> None:
    gc.collect()
    before = held()
    executor = make_local(1)
    result = executor.submit(numbers, 3).result()
    for seed in range(10):
        executor.submit(cargo.total, numbers(seed)).result()
    executor.shutdown()
    assert (result == numbers(3)).all()
    result[:] = 1
    del result
    gc.collect()
    assert held() == before
    assert shm_names() == []


@pytest.mark.parametrize("victim", ["worker", "caller"])
def test_what_is_killed_leaves_nothing(script: Run, victim: str) -> None:
    before = set(os.listdir("/dev/shm"))
    run = script(
        """
import os, signal, sys
from jobrunner import LocalExecutor, WorkerDiedError, share
from tests.core.cargo import numbers, total, with_pid
from tests.core.shared_memory import held
if __name__ == "__main__":
    with LocalExecutor(1, spare_workers=0) as executor:
        table = share(numbers(1))
        result, pid = executor.submit(with_pid, numbers(2), table).result()
        if sys.argv[1] == "caller":
            print(pid, flush=True)
            signal.pause()
        job = executor.submit(os.kill, pid, signal.SIGKILL)
        assert isinstance(job.exception(), WorkerDiedError)
        assert (result == numbers(2)).all()
        assert executor.submit(total, table).result() == numbers(1).sum()
        del table, result
    assert held() == [], held()
""",
        victim,
    )
    if victim == "caller":
        run.line()
        run.process.kill()
        run.finish()
        run.assert_nothing_left(10)
    else:
        run.check()
    after = {name for name in os.listdir("/dev/shm") if "jobrunner" in name}
    assert after <= before


def test_a_cancelled_or_failed_job_gives_its_memory_back(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(1)
    blocker = executor.submit(meet, gate.path)
    gate.await_arrival()
    pool = executor._holder.pool
    jobs = [executor.submit(cargo.total, numbers(seed)) for seed in range(20)]
    for job in jobs:
        assert job.cancel()
    gate.release()
    blocker.result()
    with pytest.raises(ZeroDivisionError):
        executor.submit(cargo.divide_by_zero, numbers()).result()
    executor.submit(abs, 1).result()
    arena = pool.freight._arena
    assert not arena._used
    assert arena.free_bytes <= freight._KEEP_BYTES


def test_a_result_larger_than_memory_that_is_kept_is_given_back(make_local: MakeLocal) -> None:
    executor = make_local(1)
    for _ in range(3):
        large = executor.submit(np.ones, 20_000_000).result()  # 160 MB
        assert large.sum() == 20_000_000
        del large


@pytest.mark.parametrize("lost", [2, 4])
def test_items_of_a_map_whose_results_cannot_be_taken_in_fail_alone_and_are_run_once(
    make_local: MakeLocal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lost: int
) -> None:
    take_in, taken = freight.Freight.take_in, []

    def refuse(own: freight.Freight, *frame: Any) -> Any:
        found = take_in(own, *frame)
        taken.append(found)
        return SerializationError("no room for it") if len(taken) == lost else found

    monkeypatch.setattr(freight.Freight, "take_in", refuse)
    started = tmp_path / "started"
    executor = make_local(1, spare_workers=0)
    # Each item is sent by itself, for it takes longer than results are kept back.
    results = list(executor.map(cargo.noted_numbers, range(4), [str(started)] * 4, chunksize=4, return_exceptions=True))
    assert len(taken) == 4
    for number, result in enumerate(results):
        if number == lost - 1:
            assert isinstance(result, SerializationError)
        else:
            assert np.array_equal(result, numbers(number))
    assert lines(started) == ["0", "1", "2", "3"]
    assert executor.stats()["restarts"] == 0
