"""Storms of cancels, deaths and shots from outside: nothing lost, nothing run twice, no wrong job ended, nothing left.

Jobs write a note into a FIFO when their argument is loaded and when their function starts.  The notes tell the test
where a job is, and they are its witness of how often each job was started, and in which process.
"""

from __future__ import annotations

import concurrent.futures
import os
import random
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobrunner import JobCancelledError, JobFuture, JobStatus, LocalExecutor, TimeLimitExceeded, WorkerDiedError
from jobrunner.executors.services import services
from tests.core.process_table import environment_of, live_with_variable, parent_of
from tests.core.storm_jobs import LOADING, STARTED, SlowToLoad, work, work_or_leave

# Nothing here takes half as long; a storm that hangs says so instead of timing out.
_HANG_S = 90.0
# So many jobs are submitted ahead of the slowest of those who cancel or harvest.
_WINDOW = 400

_Result = tuple[int, object]


class _Notes:
    """What the jobs have noted, as it comes.

    Attributes:
        changed: notified when there is more; guards the rest.
        pids: for each kind of note and each job, the processes that wrote it, in order.
        last: the job that each process has started or begun to load last.
        count: how many notes there are.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._fd = os.open(path, os.O_RDWR)
        self.changed = threading.Condition()
        self.pids: dict[tuple[str, int], list[int]] = defaultdict(list)
        self.last: dict[int, int] = {}
        self.count = 0
        self._reader = threading.Thread(target=self._read, name="notes")
        self._reader.start()

    def _read(self) -> None:
        rest = b""
        while True:
            lines = (rest + os.read(self._fd, 1 << 16)).split(b"\n")
            rest = lines.pop()
            with self.changed:
                for line in lines:
                    if not line:
                        return
                    what, number, pid = line.decode().split()
                    self.pids[what, int(number)].append(int(pid))
                    self.last[int(pid)] = int(number)
                    self.count += 1
                self.changed.notify_all()

    def close(self) -> None:
        """Take in what was written, and no more."""
        if self._reader.is_alive():
            os.write(self._fd, b"\n")
            self._reader.join()
            os.close(self._fd)

    def starts(self, number: int) -> int:
        """How often a job's function was started."""
        return len(self.pids.get((STARTED, number), ()))

    def loads(self, number: int) -> int:
        """How often a job's argument was loaded."""
        return len(self.pids.get((LOADING, number), ()))


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[_Notes]:
    made = _Notes(tmp_path / "notes")
    yield made
    made.close()


def _await_all(futures: list[JobFuture[_Result]], executor: LocalExecutor, story: str) -> None:
    late = concurrent.futures.wait(futures, _HANG_S).not_done
    states = Counter(future.status().name for future in futures if not future.done())
    assert not late, f"{story}: {len(late)} jobs have no end: {states}; {executor!r}"


def _assert_works_on(executor: LocalExecutor, story: str) -> None:
    assert [executor.submit(pow, number, 2).result(_HANG_S) for number in range(20)] == [n * n for n in range(20)], (
        story
    )
    stats = executor.stats()
    assert (stats["queued"], stats["running"]) == (0, 0), f"{story}: {stats}"


# --- cancels ---


class _CancelStorm:
    """Jobs, and threads that cancel some of them, each at the moment that was drawn for it.

    The moments: as soon as it is submitted; when some more were (it is then queued, prefetched, or at work); when its
    argument is being loaded; when its function has started; when it is over.
    """

    def __init__(self, executor: LocalExecutor, notes: _Notes, jobs: int, cancels: int, seed: int) -> None:
        self._executor = executor
        self._limited = executor.with_options(time_limit=_HANG_S)
        self._notes = notes
        self._jobs = jobs
        self._random = random.Random(seed)
        victims = sorted(self._random.sample(range(jobs), cancels))
        moments = self._random.choices(
            ("submitted", "later", LOADING, STARTED, "over"), (0.38, 0.32, 0.015, 0.015, 0.27), k=cancels
        )
        self.moments = dict(zip(victims, moments, strict=True))
        self.futures: list[JobFuture[_Result]] = []
        #: what cancel said, in the order of asking, of each job that was cancelled
        self.answers: dict[int, bool] = {}
        #: jobs whose status, after they had noted that they are being loaded or have started, said otherwise
        self.untrue: list[str] = []
        # How many jobs are submitted, and where the cancelling threads are; guarded by the condition of the notes.
        self._submitted = 0
        self._turns: dict[int, int] = {}

    def run(self) -> None:
        """Have it over with; every future is final afterwards, unless one hangs."""
        kinds = (("submitted", "later"), ("submitted", "later"), (LOADING, STARTED), (LOADING, STARTED), ("over",))
        lists: list[list[int]] = [[] for _ in kinds]
        for number, moment in self.moments.items():
            lists[self._random.choice([index for index, kind in enumerate(kinds) if moment in kind])].append(number)
        self._turns = {index: numbers[0] for index, numbers in enumerate(lists) if numbers}
        with concurrent.futures.ThreadPoolExecutor(len(kinds)) as threads:
            cancelling = [threads.submit(self._cancel_all, index, numbers) for index, numbers in enumerate(lists)]
            self._submit_all()
            for thread in cancelling:
                thread.result()

    def _submit_all(self) -> None:
        changed = self._notes.changed
        for number in range(self._jobs):
            if number % 8 == 0:
                with changed:
                    self._submitted = number
                    changed.notify_all()
                    assert changed.wait_for(
                        lambda: self._submitted - min(self._turns.values(), default=self._jobs) < _WINDOW, _HANG_S
                    )
            engine = self._limited if number % 10 == 0 else self._executor
            self.futures.append(engine.submit(work, self._notes.path, number, *self._how(number)))
        with changed:
            self._submitted = self._jobs
            changed.notify_all()

    def _how(self, number: int) -> tuple[float, object]:
        """How long a job takes, and its argument."""
        moment = self.moments.get(number)
        seconds = self._random.choice((0.0, 0.0, 0.0, 0.0002, 0.0005, 0.002))
        if moment == STARTED:
            seconds = self._random.choice((0.0, 0.001, 0.005, 0.05))
        if moment == LOADING or self._random.random() < 0.05:
            loading_s = self._random.choice((0.001, 0.005, 0.05)) if moment == LOADING else 0.0003
            return seconds, SlowToLoad(self._notes.path, number, loading_s)
        return seconds, number

    def _cancel_all(self, index: int, numbers: list[int]) -> None:
        mine = random.Random(numbers[0] if numbers else 0)
        changed = self._notes.changed
        try:
            for number in numbers:
                with changed:
                    self._turns[index] = number
                    changed.notify_all()
                self._await_moment(number, mine)
                self.answers[number] = self.futures[number].cancel()
        finally:
            with changed:
                del self._turns[index]
                changed.notify_all()

    def _await_moment(self, number: int, mine: random.Random) -> None:
        changed, moment = self._notes.changed, self.moments[number]
        behind = mine.randrange(200) if moment == "later" else 0
        with changed:
            assert changed.wait_for(lambda: self._submitted > min(number + behind, self._jobs - 1), _HANG_S)
        future = self.futures[number]
        if moment == "over":
            concurrent.futures.wait([future], _HANG_S)
        elif moment in (LOADING, STARTED):
            with changed:
                assert changed.wait_for(lambda: (moment, number) in self._notes.pids, _HANG_S)
            status = future.status()
            true = {JobStatus.RUNNING, JobStatus.DONE} | ({JobStatus.VALIDATING} if moment == LOADING else set())
            if status not in true:
                self.untrue.append(f"job {number}: {moment}, but {status.name}")


def _assert_cancel_storm_held(storm: _CancelStorm, executor: LocalExecutor, notes: _Notes, story: str) -> None:
    assert not storm.untrue, f"{story}: {storm.untrue}"
    cancelled = {number for number, answer in storm.answers.items() if answer}
    for number, future in enumerate(storm.futures):
        where = f"{story}, job {number}, to be cancelled: {storm.moments.get(number)}"
        status, starts, loads = future.status(), notes.starts(number), notes.loads(number)
        assert starts <= 1, f"{where}: started {starts} times"
        assert loads <= 1, f"{where}: loaded {loads} times"
        if number in cancelled:
            assert status is JobStatus.CANCELLED, f"{where}: cancel said True, and it is {status}"
            with pytest.raises(JobCancelledError):
                future.result()
            assert storm.moments[number] != "over", f"{where}: it was over, and cancel said True"
        else:
            assert status is JobStatus.DONE, f"{where}: {status}, {future.exception()!r}"
            assert future.result() == (number * number, number), where
            assert starts == 1, f"{where}: DONE, and started {starts} times"
            assert future.report().attempts == 1, where
    stats = executor.stats()
    numbers = (stats["done"], stats["failed"], stats["cancelled"])
    assert numbers == (len(storm.futures) - len(cancelled), 0, len(cancelled)), f"{story}: {stats}"


@pytest.mark.parametrize("seed", [1])
def test_a_storm_of_cancels_at_random_moments_loses_doubles_and_ends_nothing_else(
    make_local: Callable[..., LocalExecutor], notes: _Notes, seed: int
) -> None:
    executor = make_local(2, spare_workers=1)
    storm = _CancelStorm(executor, notes, 10_000, 3_000, seed)
    storm.run()
    story = f"seed {seed}"
    _await_all(storm.futures, executor, story)
    notes.close()
    _assert_cancel_storm_held(storm, executor, notes, story)
    # It was a storm: every moment was hit, and workers were ended in the midst of it.
    hits = Counter(storm.moments[number] for number, answer in storm.answers.items() if answer)
    assert all(hits[moment] >= 5 for moment in ("submitted", "later", LOADING, STARTED)), f"{story}: {hits}"
    assert executor.stats()["restarts"] >= 10, f"{story}: {executor.stats()}"
    _assert_works_on(executor, story)


def test_cancels_of_running_jobs_never_hit_the_one_that_follows(
    make_local: Callable[..., LocalExecutor], notes: _Notes
) -> None:
    """Each cancel comes when its job is about to end, and the next is about to start on the same worker."""
    executor = make_local(1, spare_workers=1)
    cancelled = 0
    for number in range(0, 100, 2):
        victim = executor.submit(work, notes.path, number, 0.0003)
        follower = executor.submit(work, notes.path, number + 1, 0.0)
        with notes.changed:
            assert notes.changed.wait_for(lambda: notes.starts(number), _HANG_S)  # noqa: B023 - called here only
        cancelled += victim.cancel()
        assert follower.result() == ((number + 1) ** 2, None)
        assert follower.report().attempts == 1
    notes.close()
    assert {number: notes.starts(number) for number in range(100)} == dict.fromkeys(range(100), 1)
    assert executor.stats()["cancelled"] == cancelled


# --- deaths ---


def test_deaths_and_time_limits_among_tiny_jobs_fail_their_own_jobs_only(
    make_local: Callable[..., LocalExecutor], notes: _Notes
) -> None:
    executor = make_local(2, spare_workers=1)
    limited = executor.with_options(time_limit=0.05)
    leaves = {number for number in range(1500) if number % 97 == 13}
    stays = {number for number in range(1500) if number % 197 == 31}
    futures: list[JobFuture[object]] = [
        limited.submit(work, notes.path, number, 60.0)
        if number in stays
        else executor.submit(work_or_leave, notes.path, number, number in leaves)
        for number in range(1500)
    ]
    for number, future in enumerate(futures):
        error = future.exception(_HANG_S)
        if number in leaves:
            assert isinstance(error, WorkerDiedError)
            assert error.exit_code == 5
        elif number in stays:
            assert isinstance(error, TimeLimitExceeded)
        else:
            assert future.result() == number
    notes.close()
    assert {number: notes.starts(number) for number in range(1500)} == dict.fromkeys(range(1500), 1)


# --- shots from outside ---


def _workers() -> list[int]:
    """The live workers of this test's executors, those included that are starting."""
    return [
        pid
        for pid in live_with_variable("JOBRUNNER_LANE", services().spawner.tag)
        if parent_of(pid) == os.getpid() and "JOBRUNNER_TEST_SHARED" not in environment_of(pid)
    ]


class _ShotStorm:
    """Jobs, as long as shots are fired at random workers, at random moments.

    A shot may hit a worker that is starting.  Three of those in a row, nothing having come of any worker between them,
    would rightly be taken for workers that can't start; so something is done between two shots.
    """

    def __init__(self, executor: LocalExecutor, notes: _Notes, shots: int, seed: int) -> None:
        self._executor = executor
        self._retried = executor.with_options(retries=3)
        self._notes = notes
        self._shots = shots
        self._random = random.Random(seed)
        self._over = False
        self.futures: list[JobFuture[_Result]] = []
        self.retries: list[int] = []
        #: the processes that were shot
        self.shot: set[int] = set()

    def run(self) -> None:
        """Submit and harvest until all shots are fired; every future is final afterwards, unless one hangs."""
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            shooting = threads.submit(self._shoot)
            harvested = 0
            while not self._over and not shooting.done():
                while len(self.futures) - harvested < _WINDOW:
                    self._submit(len(self.futures))
                oldest = self.futures[harvested]
                late = concurrent.futures.wait([oldest], _HANG_S).not_done
                assert not late, f"job {harvested} has no end: {oldest.status()}, {self._executor!r}"
                harvested += 1
            shooting.result()

    def _submit(self, number: int) -> None:
        seconds = self._random.choice((0.0, 0.0, 0.0002, 0.002, 0.005))
        slow = self._random.random() < 0.1
        argument = SlowToLoad(self._notes.path, number, 0.001) if slow else number
        retried = self._random.random() < 0.3
        self.retries.append(3 if retried else 0)
        engine = self._retried if retried else self._executor
        self.futures.append(engine.submit(work, self._notes.path, number, seconds, argument))

    def _shoot(self) -> None:
        mine = random.Random(self._shots)
        try:
            for _ in range(self._shots):
                done = self._executor.stats()["done"]
                noted = self._notes.count + mine.randrange(100)
                self._await(lambda: self._notes.count > noted and self._executor.stats()["done"] > done)  # noqa: B023
                pid = mine.choice(_workers())
                self.shot.add(pid)
                os.kill(pid, signal.SIGKILL)
        finally:
            self._over = True

    def _await(self, condition: Callable[[], bool]) -> None:
        with self._notes.changed:
            assert self._notes.changed.wait_for(condition, _HANG_S), repr(self._executor)


@pytest.mark.parametrize(("shots", "seed"), [(40, 1), pytest.param(300, 2, marks=pytest.mark.soak)])
def test_workers_that_are_shot_take_with_them_the_jobs_that_they_run_and_no_others(
    make_local: Callable[..., LocalExecutor], notes: _Notes, shots: int, seed: int
) -> None:
    executor = make_local(2, spare_workers=1)
    storm = _ShotStorm(executor, notes, shots, seed)
    storm.run()
    story = f"seed {seed}, {shots} shots"
    _await_all(storm.futures, executor, story)
    notes.close()
    charged: Counter[int] = Counter()
    deaths = 0
    for number, future in enumerate(storm.futures):
        retries, starts, report = storm.retries[number], notes.starts(number), future.report()
        where = f"{story}, job {number} of {retries} retries, started {starts} times"
        error = future.exception()
        assert starts <= report.attempts <= 1 + retries, f"{where}: {report}"
        assert notes.loads(number) <= report.attempts, f"{where}: {report}"
        if error is None:
            assert future.result() == (number * number, number), where
            assert starts >= 1, where
            deaths += report.attempts - 1
        else:
            assert type(error) is WorkerDiedError, f"{where}: {error!r}"
            assert (error.signal, error.pid in storm.shot) == (signal.SIGKILL, True), f"{where}: {error!r}"
            assert report.attempts == 1 + retries, f"{where}: {report}"
            deaths += report.attempts
            assert error.pid is not None
            charged[error.pid] += 1
            noted = [notes.pids.get((what, number), [0])[-1] for what in (LOADING, STARTED)]
            if error.pid in noted:
                assert notes.last[error.pid] == number, f"{where}: its worker was at {notes.last[error.pid]} already"
    assert max(charged.values(), default=0) <= 1, f"{story}: one shot failed several jobs: {charged.most_common(3)}"
    # No job is charged with a shot that hit nobody, or somebody else.
    assert deaths <= len(storm.shot), story
    assert deaths >= shots // 5, f"{story}: {deaths} hits are no storm"
    _assert_works_on(executor, story)
