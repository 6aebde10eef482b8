"""Thousands of random cancels on tiny jobs: nothing lost, nothing run twice, no wrong job killed, no process left."""

from __future__ import annotations

import concurrent.futures
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from jobrunner import JobCancelledError, JobFuture, JobStatus, LocalExecutor, WorkerDiedError
from tests.core.gates import append_line, lines, use_cpu


def _note(starts: str, ends: str, number: int, seconds: float) -> int:
    append_line(starts, number)
    use_cpu(seconds)
    append_line(ends, number)
    return number


def _storm(executor: LocalExecutor, directory: Path, jobs: int, seed: int, limit: float | None) -> None:
    random_numbers = random.Random(seed)
    starts, ends = directory / "starts", directory / "ends"
    futures: list[JobFuture[int]] = []
    view = executor if limit is None else executor.with_options(time_limit=limit)
    for number in range(jobs):
        length = random_numbers.choice([0.0, 0.0, 0.0, 0.0001, 0.002])
        engine = view if number % 10 == 0 else executor
        futures.append(engine.submit(_note, str(starts), str(ends), number, length))

    def cancel_some(thread: int) -> list[tuple[int, bool]]:
        mine = random.Random(f"{seed}-{thread}")
        answers = []
        # From the end too: those in front run meanwhile.
        for _ in range(jobs // 6):
            number = mine.randrange(jobs)
            answers.append((number, futures[number].cancel()))
        return answers

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        answers = [answer for some in threads.map(cancel_some, range(4)) for answer in some]
    concurrent.futures.wait(futures)

    started, ended = Counter(map(int, lines(starts))), Counter(map(int, lines(ends)))
    assert {number for number, count in started.items() if count > 1} == set(), "some jobs were started twice"
    cancelled = {number for number, future in enumerate(futures) if future.cancelled()}
    done = {number for number, future in enumerate(futures) if future.status() is JobStatus.DONE}
    assert cancelled | done == set(range(jobs)), [
        repr(futures[number].exception()) for number in set(range(jobs)) - cancelled - done
    ]
    assert all(futures[number].result() == number for number in done)
    assert done <= set(ended), "a job is said to have run that has not"
    # Who was told True is cancelled; who is cancelled was asked for by somebody who was told True.
    assert {number for number, answer in answers if answer} == cancelled
    for number in cancelled:
        with pytest.raises(JobCancelledError):
            futures[number].result()
        assert futures[number].report().status is JobStatus.CANCELLED
    stats = executor.stats()
    assert (stats["queued"], stats["running"]) == (0, 0)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_storm_of_cancels_loses_nothing_and_runs_nothing_twice(
    make_local: Callable[..., LocalExecutor], tmp_path: Path, seed: int
) -> None:
    executor = make_local(2, spare_workers=1)
    _storm(executor, tmp_path, 3000, seed, None)
    stats = executor.stats()
    assert stats["done"] + stats["cancelled"] == 3000
    assert stats["failed"] == 0


def test_cancels_of_running_jobs_never_hit_the_one_that_follows(
    make_local: Callable[..., LocalExecutor], tmp_path: Path
) -> None:
    """Each cancel comes when its job is about to end, and the next is about to start on the same worker."""
    executor = make_local(1, spare_workers=1)
    starts, ends = str(tmp_path / "starts"), str(tmp_path / "ends")
    cancelled = 0
    for number in range(60):
        victim = executor.submit(_note, starts, ends, 2 * number, 0.0002)
        follower = executor.submit(_note, starts, ends, 2 * number + 1, 0.0)
        while not victim.done() and not victim.running():
            pass
        cancelled += victim.cancel()
        assert follower.result() == 2 * number + 1
        assert follower.report().attempts == 1
    assert max(Counter(lines(tmp_path / "starts")).values()) == 1
    assert executor.stats()["cancelled"] == cancelled


def test_deaths_among_tiny_jobs_fail_their_own_jobs_only(
    make_local: Callable[..., LocalExecutor], tmp_path: Path
) -> None:
    executor = make_local(2, spare_workers=1)
    starts = tmp_path / "starts"

    def run(starts: str, number: int) -> int:
        import os

        append_line(starts, number)
        if number % 97 == 13:
            os._exit(5)
        return number

    futures = [executor.submit(run, str(starts), number) for number in range(1500)]
    for number, future in enumerate(futures):
        if number % 97 == 13:
            error = future.exception()
            assert isinstance(error, WorkerDiedError)
            assert error.exit_code == 5
        else:
            assert future.result() == number
    assert Counter(map(int, lines(starts))) == Counter(range(1500))
