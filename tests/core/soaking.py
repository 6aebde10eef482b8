"""Programs that use an executor for long, and check that it takes no more in the end than in the beginning.

They are run in interpreters of their own (see `test_soak`), since what a test runner keeps would be counted too.  What
a process holds is read from /proc.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from jobrunner import JobFuture, LocalExecutor, WorkerDiedError
from jobrunner.executors.services import services
from tests.core.process_table import describe, live_with_variable, parent_of

_MIB = 1 << 20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Memory that a process may take more of without leaking: fragments, caches, and the like.
_SLACK_BYTES = 20 * _MIB
# Jobs that are pending at a time.
_WINDOW = 4000
_HANG_S = 60.0
_LEAVING_S = 10.0


# --- jobs ---


def same(number: int) -> int:
    return number


def stay(arrived: str) -> NoReturn:
    """Say that the job runs, and stay."""
    fd = os.open(arrived, os.O_WRONLY)
    os.write(fd, b".")
    while True:
        signal.pause()


def say(number: int) -> int:
    print("job", number)
    print("error", number, file=sys.stderr)
    return number


# --- what a process holds ---


def resident_bytes(pid: int | str = "self") -> int:
    """The resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def workers() -> list[int]:
    """The live workers of this process."""
    return [
        pid for pid in live_with_variable("JOBRUNNER_LANE", services().spawner.tag) if parent_of(pid) == os.getpid()
    ]


def holdings() -> dict[str, Any]:
    """What this process has open, running and mapped, by kind."""
    gc.collect()
    descriptors = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # that of the listing itself
        # Sockets and pipes have numbers of their own.
        descriptors.append(target.partition(":[")[0])
    mapped = [line.split(maxsplit=5)[5] for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line]
    return {
        "descriptors": sorted(descriptors),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "kernel threads": _kernel_threads(),
        "shared memory": sorted(path for path in mapped if path.startswith(("/memfd:", "/dev/shm", "/dev/zero"))),
        "names in /dev/shm": _names_in_shared_memory(),
        "children": _children(),
    }


def _names_in_shared_memory() -> list[str]:
    # loky's semaphores have the pid of their maker in their names.
    return sorted(name for name in os.listdir("/dev/shm") if f"-{os.getpid()}-" in name)


def _await_unlinking() -> None:
    """Wait until loky's names are gone: the spawner unlinks them when a worker serves, a spare one too."""
    deadline = time.monotonic() + _LEAVING_S
    while _names_in_shared_memory() and time.monotonic() < deadline:
        os.sched_yield()


def _holdings_after_shutdown() -> dict[str, Any]:
    """What this process holds when no executor is left, and what was told to end has ended."""
    for thread in threading.enumerate():
        if thread.name == "QueueFeederThread":
            thread.join(_HANG_S)  # loky tells that of a worker that is gone to end, and does not wait for it
    # A thread that has been joined has left the interpreter, and may be in the kernel's list for a moment more.
    deadline = time.monotonic() + _LEAVING_S
    while _kernel_threads() > threading.active_count() and time.monotonic() < deadline:
        os.sched_yield()
    return holdings()


def _kernel_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _children() -> int:
    """How many children this process has, those included that are dead and not reaped."""
    return sum(parent_of(int(name)) == os.getpid() for name in os.listdir("/proc") if name.isdigit())


def _assert_same(before: dict[str, Any], after: dict[str, Any], when: str) -> None:
    changed = {kind: (before[kind], after[kind]) for kind in before if before[kind] != after[kind]}
    assert not changed, f"{when}, it holds something else than before: {changed}; children: {describe(workers())}"


def _assert_flat(what: str, before: int, after: int) -> None:
    grown = after - before
    assert grown < _SLACK_BYTES, f"{what} has grown by {grown / _MIB:.1f} MiB, from {before / _MIB:.1f} MiB"


def leaves_nothing(use: Callable[[LocalExecutor, int], None], times: int) -> None:
    """Run `use` with an executor a few times, and with another so often: the process holds the same after both.

    The first time warms up what a process has once: the spawner, the threads for callbacks, imports.
    """
    seen = []
    for count in (max(1, times // 10), times):
        with LocalExecutor(2) as executor:
            executor.submit(same, 0).result()
            use(executor, count)
        del executor
        seen.append((_holdings_after_shutdown(), resident_bytes()))
    _assert_same(seen[0][0], seen[1][0], "after the shutdown")
    assert not workers(), describe(workers())
    _assert_flat("the caller", seen[0][1], seen[1][1])


# --- the soaks ---


def submit_and_check(executor: LocalExecutor, jobs: int, job: Callable[[int], int] = same) -> None:
    """Submit so many jobs one by one, some thousand pending at a time, and check every result."""
    pending: deque[tuple[int, JobFuture[int]]] = deque()
    for number in range(jobs):
        pending.append((number, executor.submit(job, number)))
        if len(pending) == _WINDOW:
            for _ in range(_WINDOW // 2):
                expected, future = pending.popleft()
                assert future.result() == expected
    while pending:
        expected, future = pending.popleft()
        assert future.result() == expected


def tiny_jobs(jobs: int, first: int) -> None:
    """A great many tiny jobs; what `first` of them have warmed up grows no further."""

    def use(executor: LocalExecutor) -> None:
        submit_and_check(executor, first)
        # Who waits for a lone job listens to its lane, and makes a pair of sockets for that once.
        for _ in range(100):
            executor.submit(same, 1).result()
        pids = workers()
        _await_unlinking()
        before, caller_bytes = holdings(), resident_bytes()
        worker_bytes = {pid: resident_bytes(pid) for pid in pids}
        submit_and_check(executor, jobs)
        _assert_same(before, holdings(), f"after {jobs} jobs")
        assert workers() == pids, "a worker was replaced"
        _assert_flat("the caller", caller_bytes, resident_bytes())
        for pid in pids:
            _assert_flat(f"worker {pid}", worker_bytes[pid], resident_bytes(pid))
        assert executor.stats()["done"] == 1 + first + 100 + jobs
        jobs_left = sum(isinstance(thing, JobFuture) for thing in gc.get_objects())
        assert jobs_left == 0, f"{jobs_left} futures are kept by somebody"

    with LocalExecutor(2, idle_timeout=None) as executor:
        submit_and_check(executor, 1)
    before = _holdings_after_shutdown()
    with LocalExecutor(2, idle_timeout=None) as executor:
        executor.submit(same, 0).result()
        use(executor)
    del executor
    _assert_same(before, _holdings_after_shutdown(), "after the shutdown")


def deaths_and_cancels(times: int) -> None:
    """So many jobs that end their worker, and so many running jobs that are cancelled, among others."""
    directory = Path(os.getcwd())
    os.mkfifo(directory / "arrived")
    arrived = os.open(directory / "arrived", os.O_RDWR)

    def use(executor: LocalExecutor, count: int) -> None:
        for _ in range(count):
            dying = executor.submit(os._exit, 3)
            other = executor.submit(same, 1)
            assert isinstance(dying.exception(_HANG_S), WorkerDiedError)
            assert other.result(_HANG_S) == 1
        for _ in range(count):
            staying = executor.submit(stay, str(directory / "arrived"))
            other = executor.submit(same, 1)
            os.read(arrived, 1)
            assert staying.cancel()
            assert other.result(_HANG_S) == 1
        stats = executor.stats()
        assert (stats["failed"], stats["cancelled"], stats["restarts"]) == (count, count, 2 * count), stats

    leaves_nothing(use, times)


def captured(jobs: int) -> None:
    """Jobs that print, and whose output is captured."""

    def use(executor: LocalExecutor, count: int) -> None:
        capturing = executor.with_options(capture_output=True)
        futures = [capturing.submit(say, number) for number in range(count)]
        for number, future in enumerate(futures):
            assert future.result(_HANG_S) == number
            report = future.report()
            assert report.stdout_tail == f"job {number}\n", report.stdout_tail
            assert report.stderr_tail == f"error {number}\n", report.stderr_tail

    leaves_nothing(use, jobs)


def limited(jobs: int) -> None:
    """Jobs whose memory is watched."""

    def use(executor: LocalExecutor, count: int) -> None:
        submit_and_check(executor.with_options(memory_limit="1GiB"), count)

    leaves_nothing(use, jobs)
