"""Memory limits: the job alone is ended, near its limit; and a budget, above which no job with a limit starts."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobrunner import InlineExecutor, LocalExecutor, MemoryLimitExceeded, WorkerDiedError
from jobrunner.executors import memory_watch
from jobrunner.executors.memory_watch import MemoryWatch, Watched
from jobrunner.executors.records import Job
from jobrunner.memory import format_bytes, machine_memory, parse_bytes
from jobrunner.options import JobOptions
from tests.core.gates import Gate, append_line, arrive, await_release, meet
from tests.core.process_table import await_death

numpy = pytest.importorskip("numpy")

MakeLocal = Callable[..., LocalExecutor]
_MIB = 1 << 20


def take(megabytes: int) -> int:
    """Take so much memory, and give it back."""
    return len(b"x" * (megabytes * _MIB))


def take_for_ever() -> None:
    """Take memory as fast as the machine gives it."""
    kept = []
    while True:
        kept.append(numpy.ones(8 * _MIB, dtype=numpy.uint8))


def take_in_children(gate: str) -> None:
    """Have children that each stay far below the limit, but not together."""
    code = "import sys; kept = b'x' * (80 << 20); sys.stdin.read()"
    children = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) for _ in range(4)]
    for child in children:
        append_line(f"{gate}/pids", child.pid)
    for child in children:
        child.wait()


def share_with_forks(gate: str) -> int:
    """Have four forks read the same 200 MiB: a gigabyte if each is counted for itself."""
    kept = b"x" * (200 * _MIB)
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            arrive(gate) if sum(kept[::4096]) else None
            await_release(gate)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    return len(kept)


def test_a_job_above_its_limit_is_ended_and_told_so(make_local: MakeLocal) -> None:
    executor = make_local(1)
    job = executor.with_options(memory_limit="200MiB", name="hog").submit(take_for_ever)
    error = job.exception()
    assert isinstance(error, MemoryLimitExceeded)
    assert isinstance(error, (WorkerDiedError, MemoryError))
    assert error.limit == 200 * _MIB
    assert error.peak is not None
    # The measure: within 300 MB of the limit, at some gigabytes a second.
    assert 200 * _MIB < error.peak < 200 * _MIB + 300e6
    assert error.job_id == job.job_id
    report = job.report()
    assert error.report == report
    assert report.peak_rss_bytes is not None
    assert 200 * _MIB < report.peak_rss_bytes < 200 * _MIB + 300e6
    assert "above its limit of 200 MiB" in (report.cause or "")
    assert "take_for_ever" in (report.stack or "")
    assert report.oom_likely is False
    assert report.exit_signal == 9
    assert await_death(report.pid or 0)
    assert "200 MiB" in str(error)
    assert "hog" in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.peak, copy.limit, copy.job_id) == (error.peak, error.limit, error.job_id)
    assert executor.submit(take, 300).result() == 300 * _MIB  # the limit was that job's


def test_only_the_job_above_its_limit_fails(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(2)
    beside = executor.submit(meet, gate.path, "kept")
    gate.await_arrival()
    limited = executor.with_options(memory_limit="100MiB")
    hogs = [limited.submit(take_for_ever) for _ in range(3)]
    behind = [limited.submit(pow, 2, number) for number in range(20)]
    assert all(isinstance(job.exception(), MemoryLimitExceeded) for job in hogs)
    assert [job.result() for job in behind] == [2**number for number in range(20)]
    gate.release()
    assert beside.result() == "kept"


def test_memory_is_that_of_all_the_jobs_processes(make_local: MakeLocal, gate: Gate) -> None:
    job = make_local(1, memory_limit="200MiB").submit(take_in_children, gate.path)
    assert isinstance(job.exception(), MemoryLimitExceeded)
    for pid in Path(gate.path, "pids").read_text().split():
        assert await_death(int(pid), 0)


def test_pages_that_processes_share_are_counted_once(make_local: MakeLocal, gate: Gate) -> None:
    job = make_local(1, memory_limit="450MiB").submit(share_with_forks, gate.path)
    gate.await_arrival(4)
    gate.release(4)
    assert job.result() == 200 * _MIB


def test_a_job_below_its_limit_is_left_alone(make_local: MakeLocal) -> None:
    executor = make_local(1, memory_limit="300MiB")
    for _ in range(5):
        assert executor.submit(take, 200).result() == 200 * _MIB


def test_a_job_above_its_limit_is_tried_again_only_if_that_is_named(make_local: MakeLocal, tmp_path: Path) -> None:
    def take_at_first(file: Path) -> str:
        if not file.exists():
            file.touch()
            take_for_ever()
        return "done"

    executor = make_local(1, memory_limit="100MiB", retries=1)
    assert isinstance(executor.submit(take_at_first, tmp_path / "a").exception(), MemoryLimitExceeded)
    job = executor.with_options(retry_on=MemoryLimitExceeded).submit(take_at_first, tmp_path / "b")
    assert job.result() == "done"
    assert job.report().attempts == 2


def test_in_a_map_too_the_item_alone_fails(make_local: MakeLocal) -> None:
    results = list(make_local(1, memory_limit="150MiB").map(take, [1, 400, 2, 3], return_exceptions=True))
    assert [results[0], results[2], results[3]] == [_MIB, 2 * _MIB, 3 * _MIB]
    assert isinstance(results[1], MemoryLimitExceeded)


_KEPT: list[bytes] = []


def keep(megabytes: int) -> int:
    """Leave so much memory in use."""
    _KEPT.append(b"x" * (megabytes * _MIB))
    return os.getpid()


def test_what_jobs_before_have_left_in_the_worker_is_not_counted(make_local: MakeLocal) -> None:
    executor = make_local(1)
    pid = executor.submit(keep, 300).result()
    limited = executor.with_options(memory_limit="200MiB")
    job = limited.submit(take, 100)
    assert job.result() == 100 * _MIB
    assert job.report().pid == pid
    assert 100 * _MIB < (job.report().peak_rss_bytes or 0) < 200 * _MIB
    error = limited.submit(take_for_ever).exception()
    assert isinstance(error, MemoryLimitExceeded)
    assert 200 * _MIB < (error.peak or 0) < 500 * _MIB


# --- the budget ---


def test_jobs_start_only_while_their_limits_fit_the_budget(
    make_local: MakeLocal, make_gate: Callable[[], Gate]
) -> None:
    executor = make_local(3, memory_budget="500MiB")
    gates = [make_gate() for _ in range(4)]
    large = executor.with_options(memory_limit="300MiB")
    jobs = [large.submit(meet, gate.path, number) for number, gate in enumerate(gates[:3])]
    gates[0].await_arrival()
    jobs.append(executor.with_options(memory_limit="100MiB", priority=1).submit(meet, gates[3].path, 3))
    gates[3].await_arrival()
    assert executor.stats()["running"] == 2  # with a core to spare: 300 + 100 + 300 would be too much
    assert executor.stats()["queued"] == 2
    gates[0].release()
    assert jobs[0].result() == 0
    gates[1].await_arrival()
    assert executor.stats()["running"] == 2
    for gate in gates[1:]:
        gate.release()
    assert [job.result() for job in jobs] == [0, 1, 2, 3]


def test_what_waits_behind_a_job_that_does_not_fit_starts_when_that_is_cancelled(
    make_local: MakeLocal, gate: Gate
) -> None:
    executor = make_local(2, memory_budget="500MiB")
    first, second = [executor.with_options(memory_limit="300MiB").submit(meet, gate.path) for _ in range(2)]
    behind = executor.submit(pow, 2, 5)
    gate.await_arrival()
    assert second.cancel()
    assert behind.result(timeout=60) == 32
    gate.release()
    first.result()


def test_the_budget_is_free_again_after_an_end_of_any_kind(make_local: MakeLocal, gate: Gate) -> None:
    executor = make_local(2, memory_budget="200MiB", memory_limit="150MiB")
    for end in (lambda: os._exit(1), take_for_ever, lambda: 1 / 0, lambda: 5):
        executor.submit(end).exception()
    running = executor.submit(meet, gate.path)
    gate.await_arrival()
    running.cancel()
    limited = executor.with_options(time_limit=0.2)
    limited.submit(meet, gate.path).exception()
    assert executor.submit(pow, 2, 5).result(timeout=60) == 32


# --- bad input ---


@pytest.mark.parametrize("value", [0, -1, "0", "-2GiB", "much", "2 GiBs", "", float("nan"), float("inf"), 10**400])
@pytest.mark.parametrize("option", ["memory_limit", "memory_budget"])
def test_what_is_no_limit_is_refused_at_once_with_what_is_allowed(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{option} must be above 0 bytes and at most {machine_memory()} ") as caught:
        LocalExecutor(1, **{option: value})
    if value != 10**400:
        assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [True, [], b"2GiB", object()])
def test_what_is_no_number_is_refused_as_such(value: Any) -> None:
    with pytest.raises(TypeError, match="memory_limit must be a number of bytes, or text such as '2GiB'"):
        LocalExecutor(1, memory_limit=value)
    with pytest.raises(TypeError):
        InlineExecutor(memory_limit=value)


def test_a_limit_above_the_machine_or_the_budget_is_refused(executor: LocalExecutor) -> None:
    with pytest.raises(ValueError, match="what this machine has"):
        executor.with_options(memory_limit=machine_memory() + 1)
    with pytest.raises(ValueError, match="memory_budget"):
        executor.with_options(memory_limit=machine_memory())
    with pytest.raises(ValueError, match=r"at most 1000000 .*memory_budget.*not 2000000"):
        LocalExecutor(1, memory_limit="2MB", memory_budget="1MB")
    assert executor.with_options(memory_limit=int(0.9 * machine_memory())).backend.options["memory_limit"] > 0


@pytest.mark.parametrize(("text", "count"), [
    ("1", 1), ("1024 B", 1024), ("1kB", 1000), ("1 KiB", 1024), ("2GiB", 2 << 30), ("1.5 gb", 1_500_000_000),
    ("3m", 3 << 20), (".5G", 1 << 29), ("1TiB", 1 << 40),
])  # fmt: skip
def test_amounts_of_memory_are_written_as_usual(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5 TiB")])
def test_amounts_of_memory_are_told_shortly(count: int, text: str) -> None:
    assert format_bytes(count) == text


# --- the watch ---


class _Kernel:
    """Memory as a test sets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.resident: dict[int, int] = {}
        self.proportional: dict[int, int] = {}
        self.confirmed = 0
        monkeypatch.setattr(memory_watch, "tree_of", lambda pid: [pid])
        monkeypatch.setattr(memory_watch, "resident_bytes", lambda pids: sum(self.resident[pid] for pid in pids))
        monkeypatch.setattr(memory_watch, "proportional_bytes", self._proportional)

    def _proportional(self, pids: list[int]) -> int:
        self.confirmed += 1
        return sum(self.proportional[pid] for pid in pids)


_JOB = Job(1, JobOptions(), 0)


def _look(jobs: list[Watched]) -> tuple[float, list[int], list[int]]:
    used: list[int] = []
    exceeded: list[int] = []
    watch = MemoryWatch(lambda: jobs, lambda _, count: used.append(count), lambda job: exceeded.append(job.order))
    try:
        return watch._look() - time.monotonic(), used, exceeded
    finally:
        watch.close()


def test_a_job_is_looked_at_the_later_the_more_headroom_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = _Kernel(monkeypatch)
    intervals = []
    for resident in (0, 500, 900, 999):
        kernel.resident[1] = resident * 10**6
        intervals.append(_look([Watched(_JOB, 1, 1, 10**9, 0, True)])[0])
    assert intervals == sorted(intervals, reverse=True)
    # A job that grows by 2 GB/s is seen before it is 300 MB above its limit.
    assert all(
        2e9 * interval < 1e9 - resident * 1e6 + 300e6
        for interval, resident in zip(intervals, (0, 500, 900, 999), strict=True)
    )
    assert kernel.confirmed == 0  # reading proportional memory costs milliseconds


def test_shared_pages_are_no_reason_to_end_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = _Kernel(monkeypatch)
    kernel.resident[1], kernel.proportional[1] = 2 * 10**9, 6 * 10**8
    assert _look([Watched(_JOB, 1, 1, 10**9, 0, True)])[1:] == ([6 * 10**8], [])
    kernel.proportional[1] = 11 * 10**8
    assert _look([Watched(_JOB, 1, 1, 10**9, 0, True)])[1:] == ([11 * 10**8], [1])


def test_a_job_that_has_not_begun_is_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = _Kernel(monkeypatch)
    kernel.resident[1] = kernel.proportional[1] = 2 * 10**9
    assert _look([Watched(_JOB, 1, 1, 10**9, 0, False)])[1:] == ([], [])
