"""joblib's tasks as jobs: results, limits, deaths, cancelling, options."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

joblib = pytest.importorskip("joblib")

from joblib import Parallel, delayed, parallel_config  # noqa: E402

import jobrunner  # noqa: E402
from jobrunner import (  # noqa: E402
    InlineExecutor,
    LocalExecutor,
    MemoryLimitExceeded,
    SerializationError,
    TimeLimitExceeded,
    WorkerDiedError,
)
from jobrunner.joblib.backend import JobrunnerBackend  # noqa: E402
from jobrunner.joblib.pools import POOLS  # noqa: E402
from tests.core.gates import Gate, append_line, arrive_and_stay, lines, meet  # noqa: E402
from tests.core.process_table import await_death, is_alive  # noqa: E402

jobrunner.register_joblib()


def square(x: int) -> int:
    return x * x


def die_at(x: int, at: int, starts: str, gate: str | None = None) -> int:
    append_line(starts, x)
    if x == at:
        if gate is not None and lines(Path(starts)).count(str(x)) > 1:
            meet(gate)
        os._exit(3)
    return x


def nested(x: int) -> tuple[int, list[int], str]:
    inner = Parallel(n_jobs=2)
    results = inner(delayed(square)(y) for y in range(x))
    return os.getpid(), results, type(inner._backend).__name__


def nested_processes(x: int) -> list[int]:
    found: list[int] = Parallel(n_jobs=2, backend="jobrunner")(delayed(os.getpid)() for _ in range(x))
    return found


def writeable(array: Any) -> tuple[bool, float]:
    return bool(array.flags.writeable), float(array.sum())


def grow(nbytes: int) -> int:
    return len(bytearray(os.urandom(1 << 20) * (nbytes >> 20)))


@pytest.fixture
def backend() -> Iterator[None]:
    with parallel_config(backend="jobrunner", n_jobs=2):
        yield


@pytest.mark.parametrize("n_jobs", [2, 3, -1, None])
def test_results_come_in_order_for_any_number_of_workers(n_jobs: int | None) -> None:
    with parallel_config(backend="jobrunner"):
        assert Parallel(n_jobs=n_jobs)(delayed(square)(x) for x in range(200)) == [x * x for x in range(200)]


def test_without_n_jobs_all_cpus_are_used() -> None:
    with parallel_config(backend="jobrunner"):
        assert joblib.effective_n_jobs(None) == joblib.cpu_count()
    assert JobrunnerBackend().effective_n_jobs(-1) == joblib.cpu_count()
    with pytest.raises(ValueError, match="n_jobs == 0"):
        JobrunnerBackend().effective_n_jobs(0)


_LOKY_WITHIN = """
import os
import joblib
import jobrunner


def within():
    joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(pow)(2, x) for x in range(4))
    return os.getpid()


if __name__ == "__main__":
    {register}
    with jobrunner.LocalExecutor(1, spare_workers=0) as executor:
        print(executor.submit(within).result())
"""


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="semaphores have no names to be seen")
@pytest.mark.parametrize("register", ["pass", "jobrunner.register_joblib()"], ids=["alone", "registered"])
def test_loky_within_a_task_leaves_nothing_in_shared_memory(register: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(_LOKY_WITHIN.format(register=register))
    ran = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stderr == ""
    pid = ran.stdout.strip()
    assert [name for name in os.listdir("/dev/shm") if pid in name.replace("-", "_").split("_")] == []


def test_one_worker_is_a_worker_too(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    with parallel_config(backend="jobrunner", n_jobs=1, time_limit=60):
        (pid,) = set(Parallel()(delayed(os.getpid)() for _ in range(20)))
        assert pid != os.getpid()
        with pytest.raises(WorkerDiedError, match="exit code 3"):
            Parallel()(delayed(os._exit)(3) for _ in range(3))
        with Parallel() as parallel:
            assert {*parallel(delayed(os.getpid)() for _ in range(2))} != {os.getpid()}
    with pytest.raises(multiprocessing.TimeoutError):
        Parallel(backend="jobrunner", n_jobs=1, timeout=0.1)(delayed(arrive_and_stay)(gate.path) for _ in range(2))
    with LocalExecutor(max_workers=1) as executor, parallel_config(backend="jobrunner", executor=executor):
        assert joblib.effective_n_jobs(-1) == 1
        assert Parallel()(delayed(os.getpid)() for _ in range(2)) == [executor.submit(os.getpid).result()] * 2
    # A machine with one CPU.
    monkeypatch.setattr("jobrunner.joblib.backend.cpu_count", lambda: 1)
    with parallel_config(backend="jobrunner"):
        assert joblib.effective_n_jobs(-1) == 1
        assert os.getpid() not in Parallel()(delayed(os.getpid)() for _ in range(3))
        assert os.getpid() not in Parallel(n_jobs=-1)(delayed(os.getpid)() for _ in range(3))


def test_one_worker_is_sent_as_much_as_one_is(capsys: pytest.CaptureFixture[str]) -> None:
    drawn: list[int] = []

    def tasks() -> Iterator[Any]:
        for x in range(9):
            drawn.append(x)
            yield delayed(square)(x)

    parallel = Parallel(
        backend="jobrunner", n_jobs=1, retries=1, verbose=1, pre_dispatch="n_jobs", return_as="generator"
    )
    results = parallel(tasks())
    assert next(results) == 0
    assert list(results) == [x * x for x in range(1, 9)]
    assert "with 1 concurrent workers" in capsys.readouterr().err


def test_n_jobs_1_that_asks_for_nothing_runs_in_the_caller_as_with_any_backend() -> None:
    with parallel_config(backend="jobrunner"):
        assert Parallel(n_jobs=1)(delayed(os.getpid)() for _ in range(2)) == [os.getpid()] * 2
    with pytest.raises(TypeError, match="has no option tiem_limit"):
        Parallel(backend="jobrunner", n_jobs=1, tiem_limit=1)(delayed(square)(x) for x in range(2))


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_results_can_be_drawn_as_they_come(backend: None, return_as: str) -> None:
    results = Parallel(return_as=return_as)(delayed(square)(x) for x in range(50))
    assert sorted(results) == [x * x for x in range(50)]


def test_calls_under_one_config_are_calls_of_their_own(backend: None, gate: Gate) -> None:
    squares = [x * x for x in range(40)]
    with parallel_config(backend=JobrunnerBackend(), n_jobs=2):
        results = Parallel(return_as="generator")(delayed(square)(x) for x in range(40))
        others = Parallel(return_as="generator")(delayed(square)(x) for x in range(40))
        assert next(results) == 0
        assert Parallel(batch_size=3)(delayed(square)(x) for x in range(40)) == squares
        assert list(zip(results, others, strict=False)) == list(zip(squares[1:], squares, strict=False))
    # The end of one, or its failure, is not the others'.
    results = Parallel(return_as="generator")(delayed(meet)(gate.path, x) for x in range(2))
    gate.await_arrival(2)
    with pytest.raises(WorkerDiedError):
        Parallel(env={"WORKERS": "others"})(delayed(os._exit)(3) for _ in range(2))
    gate.release(2)
    assert list(results) == [0, 1]


def test_a_generator_that_is_dropped_ends_what_runs(backend: None, gate: Gate) -> None:
    results = Parallel(return_as="generator", pre_dispatch="all")(delayed(arrive_and_stay)(gate.path) for _ in range(2))
    pids = gate.await_arrival(2)
    with pytest.warns(UserWarning, match="have been cancelled"):
        del results
    assert all(await_death(pid) for pid in pids)


def test_joblibs_own_timeout_ends_the_process(backend: None, gate: Gate) -> None:
    Parallel()(delayed(square)(x) for x in range(4))  # the workers are there
    with pytest.raises(multiprocessing.TimeoutError):
        Parallel(timeout=2)(delayed(arrive_and_stay)(gate.path) for _ in range(2))
    assert all(await_death(pid) for pid in gate.await_arrival(2))


def test_a_task_that_ends_its_process_is_named_and_the_next_call_works(backend: None, tmp_path: Path) -> None:
    starts = str(tmp_path / "starts")
    with pytest.raises(WorkerDiedError, match="exit code 3") as caught:
        Parallel(batch_size=1)(delayed(die_at)(x, 3, starts) for x in range(6))
    assert caught.value.report is not None
    assert caught.value.report.name == "die_at"
    assert Parallel()(delayed(square)(x) for x in range(3)) == [0, 1, 4]


def test_in_a_batch_of_several_the_death_of_one_is_its_own(backend: None, gate: Gate, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    results = Parallel(batch_size=4, return_as="generator", pre_dispatch="all")(
        delayed(die_at)(x, 6, str(starts), gate.path) for x in range(8)
    )
    # joblib raises an error as soon as it knows of it: not before these are taken.
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    gate.release()
    with pytest.raises(WorkerDiedError) as caught:
        list(results)
    assert caught.value.report is not None
    assert caught.value.report.name == "die_at"
    assert lines(starts).count("6") == 2, "in its batch, and by itself"


@pytest.mark.parametrize("limits", [{"time_limit": 60}, {"memory_limit": "1GB"}, {"retries": 1}])
def test_with_limits_each_task_is_a_job_and_none_is_run_twice(limits: dict[str, Any], tmp_path: Path) -> None:
    parallel = Parallel(backend="jobrunner", n_jobs=2, **limits)
    assert parallel(delayed(square)(x) for x in range(300)) == [x * x for x in range(300)]
    assert parallel.n_dispatched_batches == 300
    with LocalExecutor(max_workers=2, **limits) as executor:
        found = Parallel(backend="jobrunner", n_jobs=2, batch_size=5, executor=executor)(
            delayed(square)(x) for x in range(20)
        )
        assert found == [x * x for x in range(20)]
        assert executor.stats()["done"] == 20


def test_a_task_of_a_batch_that_runs_too_long_is_named(gate: Gate, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    tasks = [delayed(append_line)(str(starts), x) for x in range(3)]
    parallel = Parallel(
        backend="jobrunner", n_jobs=2, time_limit=1, batch_size=4, pre_dispatch="all", return_as="generator"
    )
    with pytest.raises(TimeLimitExceeded) as caught:
        list(parallel([*tasks, delayed(arrive_and_stay)(gate.path)]))
    assert caught.value.report is not None
    assert caught.value.report.name == "arrive_and_stay"
    assert sorted(lines(starts)) == ["0", "1", "2"]


def test_limits_are_each_tasks(gate: Gate) -> None:
    with parallel_config(backend="jobrunner", n_jobs=2, time_limit=0.3), pytest.raises(TimeLimitExceeded):
        Parallel()(delayed(meet)(gate.path) for _ in range(2))
    with parallel_config(backend="jobrunner", n_jobs=2, memory_limit="300MB"), pytest.raises(MemoryLimitExceeded):
        Parallel()(delayed(grow)(1 << 30) for _ in range(2))


def test_retries_and_other_options_are_the_executors(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    with (
        parallel_config(backend="jobrunner", n_jobs=2, retries=2, env={"MARK": "here"}),
        pytest.raises(WorkerDiedError),
    ):
        Parallel(batch_size=1)(delayed(die_at)(x, 0, str(starts)) for x in range(2))
    assert lines(starts).count("0") == 3
    with parallel_config(backend="jobrunner", n_jobs=2, env={"MARK": "here"}):
        assert Parallel()(delayed(os.getenv)("MARK") for _ in range(2)) == ["here", "here"]


def test_an_error_of_a_task_is_raised_as_it_is_and_the_rest_is_cancelled(backend: None, gate: Gate) -> None:
    def fail() -> None:
        raise ZeroDivisionError("one")

    tasks = [delayed(arrive_and_stay)(gate.path), delayed(fail)()]
    with pytest.raises(ZeroDivisionError, match="one"):
        Parallel()(tasks)
    (pid,) = gate.await_arrival()
    assert await_death(pid)


def test_one_calls_failure_leaves_another_calls_tasks_alone(gate: Gate) -> None:
    found: list[Any] = []
    with LocalExecutor(max_workers=4) as executor:

        def other() -> None:
            with parallel_config(backend="jobrunner", n_jobs=2, executor=executor):
                found.extend(Parallel()(delayed(meet)(gate.path, x) for x in range(2)))

        thread = threading.Thread(target=other)
        thread.start()
        pids = gate.await_arrival(2)
        with parallel_config(backend="jobrunner", n_jobs=2, executor=executor), pytest.raises(WorkerDiedError):
            Parallel()(delayed(os._exit)(1) for _ in range(2))
        assert all(is_alive(pid) for pid in pids)
        gate.release(2)
        thread.join()
    assert found == [0, 1]


def test_nested_calls_use_threads_and_no_more_processes(backend: None) -> None:
    found = Parallel()(delayed(nested)(x) for x in (2, 3))
    assert [results for _, results, _ in found] == [[0, 1], [0, 1, 4]]
    assert {kind for _, _, kind in found} == {"ThreadingBackend"}
    inner = Parallel()(delayed(nested_processes)(x) for x in (3, 3))
    assert all(len(set(pids)) == 1 for pids in inner)


def test_a_task_may_name_the_backend_whatever_it_has_imported(backend: None) -> None:
    def nested_by_value(x: int) -> list[int]:
        from joblib import Parallel, delayed, parallel_config

        with parallel_config(backend="jobrunner", n_jobs=2):
            return [*Parallel(n_jobs=2, backend="jobrunner")(delayed(pow)(y, 2) for y in range(x)), *Parallel()([])]

    nested_by_value.__module__ = "__main__"
    with LocalExecutor(max_workers=1) as executor, parallel_config(backend="jobrunner", executor=executor):
        assert Parallel()(delayed(nested_by_value)(x) for x in (2, 3)) == [[0, 1], [0, 1, 4]]


def test_large_arrays_arrive_read_only_as_joblibs_do(backend: None) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.ones(1 << 18)
    assert Parallel()(delayed(writeable)(array) for _ in range(4)) == [(False, float(1 << 18))] * 4
    assert Parallel()(delayed(writeable)(array[:100]) for _ in range(4)) == [(True, 100.0)] * 4
    assert Parallel(max_nbytes=None)(delayed(writeable)(array) for _ in range(2)) == [(True, float(1 << 18))] * 2
    with pytest.raises(ValueError, match="mmap_mode='r\\+' would have tasks write"):
        Parallel(mmap_mode="r+")(delayed(writeable)(array) for _ in range(2))


def test_an_executor_that_is_there_can_be_used() -> None:
    with LocalExecutor(max_workers=2) as executor:
        with parallel_config(backend="jobrunner", executor=executor, time_limit=60):
            assert joblib.effective_n_jobs(-1) == 2
            assert Parallel(n_jobs=-1)(delayed(square)(x) for x in range(20)) == [x * x for x in range(20)]
        assert executor.stats()["done"] >= 1
    with parallel_config(backend="jobrunner", executor=InlineExecutor(), n_jobs=2):
        assert Parallel()(delayed(square)(x) for x in range(5)) == [0, 1, 4, 9, 16]
        # Each is over before the next is submitted.
        assert len(Parallel(batch_size=1)(delayed(square)(x) for x in range(500))) == 500
    with (
        parallel_config(backend="jobrunner", executor=executor, n_jobs=2),
        pytest.raises(jobrunner.ExecutorShutdownError),
    ):
        Parallel()(delayed(square)(x) for x in range(5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temp_folder": "/tmp"}, "takes no temp_folder: arrays go to the workers in shared memory"),
        ({"timeout": 3}, "takes no timeout: say Parallel"),
        ({"idle_worker_timeout": 3}, "say idle_timeout"),
        ({"max_pending": 3}, "pre_dispatch"),
        ({"context": "spawn"}, "takes no context: workers are started as jobrunner does"),
        ({"tiem_limit": 3}, "has no option tiem_limit"),
        ({"executor": 3}, "executor must be a LocalExecutor"),
        ({"executor": InlineExecutor(), "env": {}}, "env: with executor="),
    ],
)
def test_what_has_no_meaning_here_is_refused_with_what_to_use_instead(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message), parallel_config(backend="jobrunner", n_jobs=2, **options):
        Parallel()(delayed(square)(x) for x in range(2))


def test_an_executor_whose_queue_is_bounded_is_refused_before_anything_is_submitted() -> None:
    with LocalExecutor(max_workers=2, max_pending=2) as executor:
        for one in executor, executor.with_options(time_limit=60):
            with (
                pytest.raises(TypeError, match=r"no executor that has max_pending: .* say Parallel\(pre_dispatch=…\)"),
                parallel_config(backend="jobrunner", n_jobs=4, executor=one),
            ):
                Parallel(batch_size=1)(delayed(square)(x) for x in range(40))
        assert executor.stats()["done"] == 0


@pytest.mark.parametrize("preload", [(), ("colorsys",)], ids=["nothing of the user's", "a module of the user's"])
def test_what_every_task_needs_is_imported_before_its_limit_begins(tmp_path: Path, preload: tuple[str, ...]) -> None:
    marks = tmp_path / "marks"
    path, needed = str(marks), {"joblib", "jobrunner.joblib.backend", *preload}

    def mark() -> None:
        # By value: else its own module would import joblib.
        import sys

        with open(path, "a") as file:
            print(*(needed - {*sys.modules} or ["nothing"]), file=file)

    with parallel_config(backend="jobrunner", n_jobs=2, time_limit=60, initializer=mark, preload=preload):
        assert Parallel()(delayed(square)(x) for x in range(2)) == [0, 1]
    assert {*lines(marks)} == {"nothing"}, "what was missing when the first task could begin"


def test_preload_that_is_no_sequence_is_refused() -> None:
    with pytest.raises(TypeError, match="preload must be a sequence"):
        Parallel(backend="jobrunner", n_jobs=2, preload="colorsys")(delayed(square)(x) for x in range(2))


def test_inner_max_num_threads_of_parallel_itself_is_refused_with_what_to_use_instead() -> None:
    with pytest.raises(TypeError, match=r"say threads=…, or parallel_config\(backend='jobrunner', inner_max_num_"):
        Parallel(backend="jobrunner", n_jobs=2, inner_max_num_threads=2)(delayed(square)(x) for x in range(2))


def test_the_options_that_are_told_are_those_that_can_be_given() -> None:
    with pytest.raises(TypeError, match="has no option tiem_limit") as caught:
        JobrunnerBackend(tiem_limit=3)
    told = str(caught.value).split("(it has ")[1].rstrip(")").split(", ")
    assert "time_limit" in told
    for name in told:
        options: dict[str, Any] = {name: InlineExecutor() if name == "executor" else 1}
        JobrunnerBackend(**options)
    assert not {"of_this_machine", "max_workers", "max_pending"} & {*told}


def test_calls_that_a_wrong_option_ended_keep_no_executors() -> None:
    pools = type(POOLS)()
    for n_jobs in range(2, 7):
        with pytest.raises(ValueError, match="time_limit"):
            pools.enter(n_jobs, {"time_limit": -1})
    made = [pool.executor for pool in pools._pools]
    _, leave = pools.enter(7, {})
    leave()
    assert [executor.is_shut_down for executor in made] == [True, True, True, False, False]
    for pool in pools._pools:
        pool.executor.shutdown()


def test_what_cannot_be_sent_is_named(backend: None) -> None:
    with pytest.raises(SerializationError, match=r"argument 0 .* of 'square'"):
        Parallel()(delayed(square)(x) for x in [threading.Lock(), 1])


def test_joblib_missing_names_the_extra() -> None:
    program = (
        "import sys\nsys.modules['joblib'] = None\nimport jobrunner\n"
        "try:\n    jobrunner.register_joblib()\nexcept ImportError as error:\n    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "pip install 'jobrunner[joblib]'" in ran.stdout, ran.stderr


def test_short_tasks_are_sent_several_at_a_time(backend: None) -> None:
    parallel = Parallel()
    assert parallel(delayed(square)(x) for x in range(5000)) == [x * x for x in range(5000)]
    assert parallel.n_dispatched_batches < 2500


def test_in_a_fork_executors_are_made_anew(backend: None) -> None:
    assert Parallel()(delayed(square)(x) for x in range(3)) == [0, 1, 4]
    reader, writer = os.pipe()
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if Parallel()(delayed(square)(x) for x in range(3)) == [0, 1, 4]:
                os.write(writer, b"good")
                code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        assert answer.read() == b"good", time.monotonic() - begun
    assert os.waitpid(pid, 0)[1] == 0


def boom(number: int) -> int:
    raise ValueError(number)


@pytest.mark.filterwarnings(
    "ignore:.*tasks have been successfully executed:UserWarning", "ignore:.*tasks which were still:UserWarning"
)
@pytest.mark.parametrize("how", ["failed", "left"])
def test_what_ends_one_call_of_a_parallel_ends_not_the_next(how: str) -> None:
    """Left to joblib, what is told of cancelled tasks between two calls, and what had waited, are the second call's."""
    parallel = Parallel(n_jobs=2, backend="jobrunner", return_as="generator" if how == "left" else "list")
    for _ in range(40):
        if how == "failed":
            with pytest.raises(ValueError):
                parallel(delayed(boom)(number) for number in range(8))
        else:
            results = parallel(delayed(square)(number) for number in range(8))
            next(results)
            results.close()
        assert list(parallel(delayed(square)(number) for number in range(6))) == [0, 1, 4, 9, 16, 25]


@pytest.mark.parametrize(("options", "words"), [
    ({"mmap_mode": "bogus"}, "mmap_mode must be 'r', 'c' or None"),
    ({"mmap_mode": "r+"}, "would have tasks write"),
])  # fmt: skip
def test_a_mode_of_maps_that_there_is_not_is_told(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Parallel(n_jobs=2, backend="jobrunner", **options)(delayed(square)(number) for number in range(2))


def test_no_inner_threads_at_all_are_refused() -> None:
    with (
        parallel_config(backend="jobrunner", n_jobs=2, inner_max_num_threads=0),
        pytest.raises(ValueError, match="inner_max_num_threads must be at least 1, not 0"),
    ):
        Parallel()(delayed(square)(number) for number in range(2))
