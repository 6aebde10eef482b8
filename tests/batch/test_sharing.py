"""Several processes on one store share the work: each point is run once, and whoever dies is replaced."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobrunner import Batch, InlineExecutor, StoreError, sweep
from jobrunner.batch.ledger import Entry, EntryBox, _Writer, request_cancel
from jobrunner.batch.outcomes import Outcome
from jobrunner.batch.registry import Registration, Resumption, recover
from jobrunner.batch.run import Activity, StopRequest, run_works
from jobrunner.batch.work import Claimed, Revoked, Work
from jobrunner.storage.connection import connect
from jobrunner.storage.owners import RUNS, SILENT_S, Owner, this_process
from tests.batch.survival_batch import Killing, assert_each_done_once, query
from tests.command_line import ROOT, CommandLine, command_line

__all__ = ["command_line"]


@pytest.fixture
def killing(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Killing:
    return Killing(command_line, monkeypatch.setenv)


# --- processes ---


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_on_one_store_run_each_point_once_and_all_wait_for_the_whole(
    killing: Killing, processes: int
) -> None:
    batch = ["survive.py:walk", "-p", "x=0:499:1", "--seed", "8"]
    started = [killing.start(f"process{number}", *batch) for number in range(processes)]
    for process in started:
        _, stderr = process.communicate(timeout=100)
        # 0 is told only by who has seen the whole batch done.
        assert process.returncode == 0, stderr
    assert Counter(int(words[1]) for words in killing.called()) == Counter(range(500))
    assert_each_done_once(killing.store, 500)
    assert query(killing.store, "SELECT count(*) FROM runner WHERE ended_at IS NOT NULL") == [(processes,)]


class Gates:
    """The jobs `survive.held` of a batch: which run, and letting them end."""

    def __init__(self, directory: Path, points: int) -> None:
        self._directory = directory
        for x in range(points):
            os.mkfifo(directory / f"gate{x}")
        os.mkfifo(directory / "running")
        # Opened for both, it stays open between two writers, and opening does not wait for one.
        self._running = os.fdopen(os.open(directory / "running", os.O_RDWR))

    def wait_for_running(self, count: int) -> set[int]:
        """The next jobs that have begun."""
        return {int(self._running.readline()) for _ in range(count)}

    def release(self, *jobs: int) -> None:
        for x in jobs:
            with open(self._directory / f"gate{x}", "w"):
                pass

    def release_as_they_come(self, count: int) -> None:
        for _ in range(count):
            self.release(*self.wait_for_running(1))

    def close(self) -> None:
        self._running.close()


@pytest.fixture
def gates(killing: Killing) -> Iterator[Gates]:
    made = Gates(killing.directory, 8)
    yield made
    made.close()


HELD = ["survive.py:held", "-p", "x=0:7:1", "--seed", "8"]


def test_who_has_nothing_left_to_do_waits_for_the_points_of_the_others(killing: Killing, gates: Gates) -> None:
    first = killing.start("first", *HELD)
    assert gates.wait_for_running(2) == {0, 1}
    second = killing.start("second", *HELD)
    taken = gates.wait_for_running(2)
    assert not taken & {0, 1}
    gates.release(*taken)
    # The first goes on holding 0 and 1, and what it took ahead of them; the second does the rest.
    while query(killing.store, "SELECT count(*) FROM point WHERE status = 'pending'") != [(0,)]:
        pass
    assert second.poll() is None
    gates.release(0, 1)
    gates.release_as_they_come(4)
    for process in (first, second):
        _, stderr = process.communicate(timeout=100)
        assert process.returncode == 0, stderr
    assert Counter(int(words[1]) for words in killing.called()) == Counter(range(8))
    assert_each_done_once(killing.store, 8)


def test_the_points_of_a_process_that_was_killed_are_taken_over_by_one_that_runs(
    killing: Killing, gates: Gates
) -> None:
    first = killing.start("first", *HELD)
    assert gates.wait_for_running(2) == {0, 1}
    second = killing.start("second", *HELD)
    taken = gates.wait_for_running(2)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    gates.release(*taken)
    gates.release_as_they_come(6)
    _, stderr = second.communicate(timeout=100)
    assert second.returncode == 0, stderr
    assert_each_done_once(killing.store, 8)
    # Run again was what the first had begun, and nothing else.
    assert Counter(int(words[1]) for words in killing.called()) == Counter([*range(8), 0, 1])
    assert {words[0] for words in killing.called() if int(words[1]) > 1} == {"second"}


STARTER = """
import json, sys
from jobrunner import Batch, InlineExecutor, sweep

sys.path.insert(0, sys.argv[1])
import survive

print("ready", flush=True)
for line in sys.stdin:
    batch = Batch(survive.walk, sweep(x=list(range(20))), name="walks", store=line.rstrip())
    summary = batch.run(InlineExecutor())
    print(json.dumps([summary.done, summary.skipped, summary.total, batch.record().seed]), flush=True)
"""


def test_eight_processes_that_begin_a_store_at_the_same_instant_make_one_batch_with_one_seed(killing: Killing) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", STARTER, str(killing.directory)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", process.communicate()[1]
        for attempt in range(5):
            store = killing.directory / f"instant{attempt}.db"
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(f"{store}\n")
                process.stdin.flush()
            answers = []
            for process in processes:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert line, process.communicate()[1]
                answers.append(json.loads(line))
            assert_each_done_once(store, 20)
            assert sum(done for done, *_ in answers) == 20
            assert {done + skipped for done, skipped, *_ in answers} == {20}
            assert len({seed for *_, seed in answers}) == 1
            assert query(store, "SELECT count(*), max(name) FROM batch") == [(1, "walks")]
            assert query(store, "SELECT count(*) FROM runner") == [(8,)]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert Counter(int(words[1]) for words in killing.called()) == Counter(dict.fromkeys(range(20), 5))


# --- leases ---


def double(x: int) -> int:
    return 2 * x


class Runner:
    """One that runs a batch of the store, step by step, on the calling thread."""

    def __init__(self, store: Path, points: int = 4) -> None:
        self.store = store
        self.batch = Batch(double, sweep(x=list(range(points))), name="doubles", store=store)
        self.registration: Registration = self.batch._register(Resumption(), 1, lambda written, total: None)
        self.connection = connect(store, write=True)
        self.told: list[Any] = []
        self.writer = _Writer(
            self.connection,
            store,
            self.registration.batch.id,
            self.registration.runner,
            self.told.append,
            lambda parameters, replicate: None,
            EntryBox(),
        )

    def claim(self, count: int, *, beat: bool = False) -> list[Work]:
        self.told.clear()
        self.writer.asked = count
        self.writer.write(beat)
        return [work for event in self.told if isinstance(event, Claimed) for work in event.works]

    def record(self, work: Work, result: str, status: str = "done") -> None:
        columns = {"recorded_at": time.time(), "format": "json", "result": result}
        self.writer.box.add(Entry(work.id, status, columns))
        self.writer.write(beat=False)

    def dies(self) -> None:
        """As the end of its process looks from here, but that it can still write: a lease that is lost."""
        RUNS.end(self.store, self.registration.runner)

    def pretend(self, **changes: Any) -> None:
        """Be another process in the store."""
        assignments = ", ".join(f"{name} = ?" for name in changes)
        self.connection.execute(
            f"UPDATE runner SET {assignments} WHERE id = ?",  # noqa: S608 - columns
            (*changes.values(), self.registration.runner),
        )

    def recover(self) -> int:
        return recover(self.connection, self.store, self.registration.batch.id)

    def close(self) -> None:
        self.connection.close()
        RUNS.end(self.store, self.registration.runner)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Callable[[], Runner]]:
    made: list[Runner] = []

    def make() -> Runner:
        made.append(Runner(tmp_path / "jobrunner.db"))
        return made[-1]

    yield make
    for each in made:
        each.close()


def table(runner: Runner) -> list[Any]:
    return [query(runner.store, "SELECT * FROM point"), query(runner.store, "SELECT * FROM outcome")]


@pytest.mark.parametrize("status", ["done", "failed", "retried"])
def test_an_outcome_that_comes_after_the_lease_was_lost_changes_nothing(
    runner: Callable[[], Runner], status: str
) -> None:
    late, heir = runner(), runner()
    claimed = late.claim(2)
    late.dies()
    assert heir.recover() == 1
    before = table(heir)
    late.record(claimed[0], '"late"', status)  # the point is free
    assert table(heir) == before
    inherited = heir.claim(2)
    assert [work.id for work in inherited] == [work.id for work in claimed]
    before = table(heir)
    late.record(claimed[0], '"late"', status)  # the heir has it
    assert table(heir) == before
    heir.record(inherited[0], "0")
    before = table(heir)
    late.record(claimed[0], '"late"', status)  # it is DONE
    assert table(heir) == before
    assert query(heir.store, "SELECT result FROM outcome") == [("0",)]


def test_no_point_is_claimed_by_two(runner: Callable[[], Runner]) -> None:
    first, second = runner(), runner()
    assert len(first.claim(3)) == 3
    assert [work.place for work in second.claim(3)] == [3]
    assert not any(isinstance(event, Claimed) for event in first.told[1:])
    # All are taken: no answer, as the other may give some back; and none is left once it is done.
    assert second.claim(3, beat=True) == []
    assert not any(isinstance(event, Claimed) for event in second.told)


def test_a_process_of_the_same_pid_that_started_at_another_time_holds_no_lease(
    runner: Callable[[], Runner],
) -> None:
    reused, other = runner(), runner()
    reused.claim(2)
    reused.pretend(pid_started="1")
    assert other.recover() == 1
    assert len(other.claim(4)) == 4


def test_a_live_process_keeps_its_lease_however_long_it_was_silent(runner: Callable[[], Runner]) -> None:
    asleep, other = runner(), runner()
    parent = os.getppid()
    started = dataclasses.replace(this_process(), pid=parent, started=_started(parent))
    assert started.alive()
    asleep.claim(2)
    asleep.pretend(pid=parent, pid_started=started.started, seen_at=0.0)
    assert other.recover() == 2
    assert len(other.claim(4)) == 2


def _started(pid: int) -> str:
    from jobrunner.storage.owners import _started as started

    found = started(pid)
    assert found is not None
    return found


def test_a_process_that_has_ended_is_not_alive_also_as_a_zombie() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = dataclasses.replace(this_process(), pid=process.pid, started=_started(process.pid))
    assert owner.alive()
    assert not dataclasses.replace(owner, started="1").alive()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not owner.alive()  # a zombie
    process.communicate()
    assert not owner.alive()


def test_a_process_on_another_machine_is_dead_when_it_was_silent_for_long(runner: Callable[[], Runner]) -> None:
    far, near = runner(), runner()
    far.claim(2)
    far.pretend(machine="another", host="elsewhere", seen_at=time.time() - SILENT_S / 2)
    assert not Owner("elsewhere", "another", os.getpid(), "1").visible()
    assert near.recover() == 2
    assert len(near.claim(1)) == 1
    far.pretend(seen_at=time.time() - SILENT_S - 1)
    assert near.recover() == 1
    assert len(near.claim(4)) == 3


def test_who_was_taken_for_dead_and_comes_back_holds_leases_that_can_be_freed(runner: Callable[[], Runner]) -> None:
    far, near = runner(), runner()
    far.claim(1)
    far.pretend(machine="another", seen_at=time.time() - SILENT_S - 1)
    assert near.recover() == 1
    assert len(far.claim(2)) == 2
    assert near.recover() == 2  # it is there again
    far.pretend(seen_at=time.time() - SILENT_S - 1)
    assert near.recover() == 1
    assert len(near.claim(4)) == 4


def test_a_thread_that_registers_does_not_take_another_for_dead(tmp_path: Path) -> None:
    store = tmp_path / "jobrunner.db"
    barrier = threading.Barrier(4)
    summaries = []

    def run() -> None:
        barrier.wait()
        batch = Batch(double, sweep(x=list(range(200))), name="doubles", store=store)
        summaries.append(batch.run(InlineExecutor()))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(summary.done for summary in summaries) == 200
    assert_each_done_once(store, 200)


# --- what a run leaves behind in its own process ---


def test_a_run_that_failed_by_its_store_is_taken_up_again_by_the_same_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Batch(double, sweep(x=list(range(50))), name="doubles", store=tmp_path / "jobrunner.db")
    written = Counter[str]()
    record = _Writer.record

    def failing(self: _Writer, entry: Entry) -> None:
        written["entries"] += 1
        if written["entries"] > 3:
            raise sqlite3.OperationalError("disk I/O error")
        record(self, entry)

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="the disk has failed"):
        patch.setattr(_Writer, "record", failing)
        # The disk stays as it is: what was claimed can't be given back.
        patch.setattr("jobrunner.batch.ledger._Release.begin", lambda release: None)
        batch.run(InlineExecutor())
    assert query(batch.store, "SELECT count(*) > 0 FROM point WHERE status = 'leased'") == [(1,)]
    summary = batch.run(InlineExecutor())
    assert (summary.done + summary.skipped, summary.total) == (50, 50)
    assert_each_done_once(batch.store, 50)


def test_a_run_whose_writer_fails_by_anything_at_all_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(double, sweep(x=list(range(50))), name="doubles", store=tmp_path / "jobrunner.db")

    def failing(self: _Writer, entry: Entry) -> None:
        raise OverflowError("too large for SQLite")

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="too large for SQLite"):
        patch.setattr(_Writer, "record", failing)
        batch.run(InlineExecutor())
    assert batch.run(InlineExecutor()).done == 50


def test_a_run_that_fails_before_its_first_point_leaves_the_batch_to_others(tmp_path: Path) -> None:
    batch = Batch(double, sweep(x=[1, 2]), name="doubles", store=tmp_path / "jobrunner.db")
    batch.run(InlineExecutor())

    def refuse(message: str) -> None:
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="begun anew"):
        batch.run(InlineExecutor(), fresh=True, on_message=refuse)
    messages: list[str] = []
    batch.run(InlineExecutor(), fresh=True, on_message=messages.append)
    assert messages == ["begun anew; what there was is now batch 'doubles~2'"]
    with contextlib.closing(sqlite3.connect(batch.store)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM batch ORDER BY id")]
    assert names == ["doubles~1", "doubles~2", "doubles"]


# --- cancelled, and set free ---


def test_a_point_that_was_cancelled_and_set_free_is_run_by_the_process_that_had_it() -> None:
    work = Work(7, 0, {"x": -3}, 0, None)
    stop = StopRequest()
    # Taken up, cancelled before it is asked for again, and taken up again: then no more.
    answers: Iterator[list[Claimed | Revoked]] = iter(
        [[Claimed([work]), Revoked(frozenset({7}), stop=False)], [Claimed([work])], [Claimed([])]]
    )
    recorded: list[Any] = []

    class Source:
        def ask(self, count: int) -> None:
            for event in next(answers):
                stop.events.put(event)

        def prepare(self, value: Any) -> Any:
            return value

        def record(self, work: Work, outcome: Outcome, prepared: Any) -> None:
            recorded.append(outcome.value)

        def say(self, activity: Activity) -> None:
            pass

    run_works(double, InlineExecutor(), Source(), stop=stop)
    assert recorded[-1] == -6
    assert next(answers, None) is None


def test_a_point_that_is_cancelled_again_is_told_again(runner: Callable[[], Runner]) -> None:
    first, other = runner(), runner()

    def cancelled() -> list[frozenset[int]]:
        request_cancel(other.connection, other.store, other.registration.batch.id, [0])
        first.told.clear()
        first.writer.write(beat=True)
        first.writer.look_at_others()
        return [event.ids for event in first.told if isinstance(event, Revoked)]

    (work,) = first.claim(1)
    assert cancelled() == [frozenset({work.id})]
    runner()  # another process that begins sets free what was cancelled
    assert [again.id for again in first.claim(1)] == [work.id]
    assert cancelled() == [frozenset({work.id})]
