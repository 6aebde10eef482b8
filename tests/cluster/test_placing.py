"""Which jobs are sent where, and what of them is lost with a node: on nodes of which the test says where leases go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobrunner import JobError, WorkerDiedError, gather, wait
from jobrunner.cluster import leases, ledger, queues
from jobrunner.cluster.job import State
from jobrunner.cluster.keeper import Keeper
from jobrunner.executors.future import JobFuture
from tests.cluster.engines import NearbyExecutor
from tests.core.gates import Gate, append_line, arrive, await_release, lines, meet

GIB = 1 << 30


def work(starts: str, number: int, gate: str | None = None) -> int:
    """Note the start, and wait at a gate if there is one."""
    append_line(starts, number)
    if gate is not None:
        arrive(gate)
        await_release(gate)
    return number


def _state(job: JobFuture[Any]) -> State:
    record: Any = job.record
    state: State = record.state
    return state


def _node(job: JobFuture[Any]) -> str:
    record: Any = job.record
    name: str = record.node
    return name


def _await_state(jobs: list[JobFuture[Any]], state: State) -> None:
    while not all(_state(job) is state for job in jobs):
        wait(jobs, timeout=0.01)


def _taught(executor: NearbyExecutor, starts: str) -> None:
    """Have the executor take such jobs for short, so that it sends many at a time."""
    gather([executor.submit(work, starts, -1) for _ in range(100)])


def test_what_waits_behind_a_job_that_takes_long_is_not_lost_with_its_node(gate: Gate, tmp_path: Path) -> None:
    starts = str(tmp_path / "starts")
    with NearbyExecutor({"one": GIB}) as executor:
        _taught(executor, starts)
        held = executor.submit(work, starts, 0, gate.path)
        waiting = [executor.submit(work, starts, number) for number in range(1, 30)]
        gate.await_arrival()
        _await_state(waiting, State.QUEUED)
        executor.link.go("one")
        with pytest.raises(WorkerDiedError, match="node one on one was lost"):
            held.result(timeout=60)
        executor.link.come("one")
        assert gather(waiting, timeout=60) == list(range(1, 30))
        assert {job.report().attempts for job in waiting} == {1}
    begun = lines(Path(starts))
    assert all(begun.count(str(number)) == 1 for number in range(30))


def test_what_began_at_a_node_that_is_lost_before_it_has_told_so_counts_as_begun(tmp_path: Path) -> None:
    starts = str(tmp_path / "starts")
    with NearbyExecutor({"one": GIB}, retries=1) as executor:
        _taught(executor, starts)
        executor.link.heard.clear()
        jobs = [executor.submit(work, starts, number) for number in range(9)]
        while len(lines(Path(starts))) < 109:
            wait(jobs, timeout=0.01)
        executor.link.go("one")
        executor.link.heard.set()
        executor.link.come("one")
        assert gather(jobs, timeout=60) == list(range(9))
        begun = lines(Path(starts))
        assert [begun.count(str(number)) for number in range(9)] == [job.report().attempts for job in jobs] == [2] * 9


def test_a_place_where_the_next_job_has_no_room_is_none_of_those_that_may_be_used(gate: Gate) -> None:
    with NearbyExecutor({"small": GIB // 4, "large": 2 * GIB}, max_workers=1) as executor:
        large = executor.with_options(memory_limit="1GiB")
        assert [large.submit(pow, number, 2).result(60) for number in range(3)] == [0, 1, 4]
        assert gather([executor.submit(pow, number, 2) for number in range(20)], timeout=60) == [
            number**2 for number in range(20)
        ]
        both = [view.submit(pow, number, 2) for number in range(10) for view in (executor, large)]
        assert gather(both, timeout=60) == [number**2 for number in range(10) for _ in range(2)]


def test_no_more_run_at_a_time_than_max_workers_though_more_places_are_held(gate: Gate, tmp_path: Path) -> None:
    starts = str(tmp_path / "starts")
    with NearbyExecutor({"small": GIB // 4, "large": 2 * GIB}, max_workers=1) as executor:
        large = executor.with_options(memory_limit="1GiB").submit(work, starts, 0, gate.path)
        others = [executor.submit(work, starts, number, gate.path) for number in range(1, 4)]
        gate.await_arrival()
        assert not wait([large, *others], timeout=0.5).done
        assert len(lines(Path(starts))) == 1
        for _ in range(3):
            gate.release()
            gate.await_arrival()
            assert executor.stats()["running"] <= 1
        gate.release()
        assert gather([large, *others], timeout=60) == [0, 1, 2, 3]


def test_what_is_taken_back_runs_in_the_order_in_which_it_came(gate: Gate, tmp_path: Path) -> None:
    starts = str(tmp_path / "starts")
    with NearbyExecutor({"one": GIB}) as executor:
        _taught(executor, starts)
        held = executor.submit(work, starts, 0, gate.path)
        waiting = [executor.submit(work, starts, number) for number in range(1, 12)]
        gate.await_arrival()
        _await_state(waiting, State.QUEUED)
        gate.release()
        assert gather([held, *waiting], timeout=60) == list(range(12))
    assert lines(Path(starts))[100:] == [str(number) for number in range(12)]


def long_work(starts: str, number: int, gate: str) -> int:
    """The same under another name."""
    return work(starts, number, gate)


def test_nothing_is_sent_behind_a_job_that_is_known_to_take_long(gate: Gate, tmp_path: Path) -> None:
    starts = str(tmp_path / "starts")
    with NearbyExecutor({"one": GIB}) as executor:
        _taught(executor, starts)
        # Nothing is known of it: it is taken for long.
        held = executor.submit(long_work, starts, 0, gate.path)
        waiting = [executor.submit(work, starts, number) for number in range(1, 12)]
        gate.await_arrival()
        while State.NEW in {_state(job) for job in waiting}:
            wait(waiting, timeout=0.01)
        assert {_state(job) for job in waiting} == {State.QUEUED}
        gate.release()
        assert gather([held, *waiting], timeout=60) == list(range(12))


def test_a_shutdown_cancels_what_was_sent_and_has_not_started(gate: Gate, tmp_path: Path) -> None:
    starts = str(tmp_path / "starts")
    with NearbyExecutor({"one": GIB}) as executor:
        _taught(executor, starts)
        held = executor.submit(work, starts, 0, gate.path)
        waiting = [executor.submit(work, starts, number) for number in range(1, 12)]
        gate.await_arrival()
        executor.shutdown(wait=False, cancel_futures=True)
        assert len(wait(waiting, timeout=60).done) == 11
        gate.release()
        assert held.result(timeout=60) == 0
        assert all(job.cancelled() for job in waiting)
    assert lines(Path(starts))[100:] == ["0"]


@pytest.mark.parametrize("max_workers", [None, 1])
def test_a_place_on_a_node_that_never_tells_of_itself_holds_nothing_up(gate: Gate, max_workers: int | None) -> None:
    with NearbyExecutor({"one": GIB}, max_workers=max_workers) as executor:
        held = executor.submit(meet, gate.path, "held")
        gate.await_arrival()
        executor.link.strange.append("other")
        waiting = executor.submit(pow, 2, 3)
        gate.release()
        assert held.result(timeout=60) == "held"
        assert waiting.result(timeout=60) == 8


def test_nothing_is_looked_at_again_and_again_while_a_place_is_idle_and_jobs_wait(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[None] = []
    turn = Keeper._turn

    def counted(self: Keeper) -> None:
        turns.append(None)
        turn(self)

    monkeypatch.setattr(Keeper, "_turn", counted)
    with NearbyExecutor({"small": GIB // 4, "large": 2 * GIB}) as executor:
        large = executor.with_options(memory_limit="1GiB")
        jobs = [large.submit(meet, gate.path, number) for number in range(2)]
        gate.await_arrival()
        wait(jobs, timeout=1.5)
        turns.clear()
        wait(jobs, timeout=1.5)
        assert len(turns) < 50
        gate.release()
        gate.await_arrival()
        gate.release()
        assert gather(jobs, timeout=60) == [0, 1]


@pytest.mark.parametrize("chooses", [True, False])
@pytest.mark.parametrize("max_workers", [None, 2])
def test_a_job_that_waits_for_a_large_node_holds_up_none_that_would_do_with_another(
    gate: Gate, max_workers: int | None, chooses: bool
) -> None:
    nodes = {"small": GIB // 4, "large": 2 * GIB}
    with NearbyExecutor(nodes, chooses=chooses, max_workers=max_workers) as executor:
        large = executor.with_options(memory_limit="1GiB")
        held = [large.submit(meet, gate.path, number) for number in range(2)]
        gate.await_arrival()
        small = [executor.submit(pow, number, 2) for number in range(20)]
        assert gather(small, timeout=60) == [number**2 for number in range(20)]
        assert {_state(job) for job in held} == {State.SENT, State.QUEUED}
        gate.release()
        gate.await_arrival()
        gate.release()
        assert gather(held, timeout=60) == [0, 1]


@pytest.mark.parametrize("chooses", [True, False])
def test_a_job_that_waits_for_a_large_node_is_the_next_however_many_are_behind_it(
    gate: Gate, tmp_path: Path, chooses: bool
) -> None:
    starts = str(tmp_path / "starts")
    nodes = {"small": GIB // 4, "large": 2 * GIB}
    with NearbyExecutor(nodes, chooses=chooses, max_workers=1) as executor:
        held = executor.submit(work, starts, 0, gate.path)
        gate.await_arrival()
        large = executor.with_options(memory_limit="1GiB").submit(work, starts, 1)
        small = [executor.submit(work, starts, number) for number in range(2, 9)]
        assert not wait([large], timeout=0.5).done
        gate.release()
        assert gather([held, large, *small], timeout=60) == list(range(9))
    assert lines(Path(starts))[1] == "1"


@pytest.mark.parametrize("priority", [0, 1])
@pytest.mark.parametrize("max_workers", [None, 4])
def test_a_job_of_more_threads_that_waits_for_a_large_node_holds_up_none_elsewhere(
    gate: Gate, max_workers: int | None, priority: int
) -> None:
    nodes = {"small": GIB // 4, "large": 2 * GIB}
    with NearbyExecutor(nodes, cores=2, chooses=True, max_workers=max_workers) as executor:
        large = executor.with_options(memory_limit="1GiB", threads=2, priority=priority)
        executor.link.taken.add("large")
        waiting = large.submit(pow, 2, 2)
        assert not wait([waiting], timeout=0.2).done
        small = [executor.submit(pow, number, 2) for number in range(20)]
        assert gather(small, timeout=60) == [number**2 for number in range(20)]
        # Later than any turn that others give it.
        assert not wait([waiting], timeout=1.2).done
        small = [executor.submit(pow, number, 2) for number in range(20)]
        assert gather(small, timeout=60) == [number**2 for number in range(20)]
        executor.link.taken.clear()
        executor.link.place()
        assert waiting.result(timeout=60) == 4


@pytest.mark.parametrize("chooses", [True, False])
@pytest.mark.parametrize("max_workers", [None, 1, 2])
def test_jobs_of_other_numbers_of_threads_follow_each_other_without_a_pause(
    max_workers: int | None, chooses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Were a place kept for nobody, the next turn of others would be in an hour.
    for module, name in ((leases, "_TERM_S"), (ledger, "FAIR_S")):
        monkeypatch.setattr(module, name, 3600.0)
    with NearbyExecutor({"one": GIB}, cores=2, chooses=chooses, max_workers=max_workers) as executor:
        wide = executor.with_options(threads=2)
        for number in range(6):
            assert (wide if number % 2 else executor).submit(pow, number, 2).result(timeout=30) == number**2
        jobs = [view.submit(pow, number, 2) for number in range(10) for view in (executor, wide)]
        assert gather(jobs, timeout=60) == [number**2 for number in range(10) for _ in range(2)]


def test_jobs_wait_for_the_one_node_that_is_large_enough_to_come_back(gate: Gate) -> None:
    with NearbyExecutor({"small": GIB // 4, "large": 2 * GIB}, chooses=True, retries=1) as executor:
        large = executor.with_options(memory_limit="1GiB")
        held = large.submit(meet, gate.path, "held")
        waiting = [large.submit(pow, number, 2) for number in range(5)]
        gate.await_arrival()
        executor.link.go("large")
        later = executor.with_options(memory_limit="1GiB").submit(pow, 5, 2)
        assert executor.submit(pow, 2, 3).result(timeout=60) == 8
        assert not wait([held, *waiting, later], timeout=0.2).done
        executor.link.come("large")
        gate.await_arrival()
        gate.release()
        assert held.result(timeout=60) == "held"
        assert gather([*waiting, later], timeout=60) == [number**2 for number in range(6)]


def test_jobs_that_no_node_has_been_large_enough_for_are_refused_when_no_more_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger, "_SETTLED_S", 0.5)
    with NearbyExecutor({}) as executor:
        large = executor.with_options(memory_limit="1GiB").submit(pow, 2, 3)
        larger = executor.with_options(memory_limit="1TiB", threads=1).submit(pow, 2, 3)
        executor.link.come("small", GIB // 4)
        executor.link.come("large", 2 * GIB)
        assert large.result(timeout=60) == 8
        with pytest.raises(JobError, match=r"memory_limit of 1 TiB is more than the 2 GiB of any node"):
            larger.result(timeout=60)
        with pytest.raises(ValueError, match=r"memory_limit must be at most .* largest node, large, has"):
            executor.with_options(memory_limit="1TiB")


def test_what_waits_for_a_node_that_others_have_keeps_its_turn_while_small_ones_run_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "_TERM_S", 0.05)
    with NearbyExecutor({"small": GIB // 4, "large": 2 * GIB}, chooses=True) as executor:
        executor.link.taken.add("large")
        waiting = executor.with_options(memory_limit="1GiB").submit(pow, 2, 2)
        while not (turns := executor.link.waiting()):
            wait([waiting], timeout=0.01)
        (turn,) = turns
        for number in range(40):
            assert executor.submit(pow, number, 2).result(timeout=60) == number**2
            assert not wait([waiting], timeout=0.01).done
            assert turn in executor.link.waiting()
        # Nor do nodes that would not do change that.
        executor.link.come("another", GIB // 4)
        executor.link.go("small")
        assert executor.submit(pow, 2, 3).result(timeout=60) == 8
        assert turn in executor.link.waiting()
        executor.link.taken.clear()
        executor.link.place()
        assert waiting.result(timeout=60) == 4


def test_memory_and_threads_that_no_node_has_together_are_refused() -> None:
    with NearbyExecutor({"wide": GIB}, cores=2) as executor:
        executor.link.come("large", 2 * GIB, cores=1)
        executor.submit(pow, 2, 3).result(timeout=60)  # by then it is known
        assert executor.with_options(memory_limit="2GiB").submit(pow, 2, 3).result(timeout=60) == 8
        with pytest.raises(ValueError, match=r"memory_limit must be at most .* largest node, large, has"):
            executor.with_options(memory_limit="3GiB")
        with pytest.raises(ValueError, match=r"threads=3 is more than the 2 cores of the largest node, wide"):
            executor.with_options(threads=3)
        with pytest.raises(ValueError, match=r"no node has both threads=2 and a memory_limit of 2 GiB"):
            executor.with_options(threads=2, memory_limit="2GiB")


@pytest.mark.parametrize("retries", [0, 1])
def test_nothing_is_sent_to_a_place_that_the_engine_has_taken_away(gate: Gate, tmp_path: Path, retries: int) -> None:
    starts = str(tmp_path / "starts")
    with NearbyExecutor({"one": GIB}, retries=retries) as executor:
        held = executor.submit(work, starts, 0, gate.path)
        gate.await_arrival()
        waiting = executor.submit(work, starts, 1)
        executor.link.taken.add("one")
        executor.link.evict("one")
        if not retries:
            with pytest.raises(WorkerDiedError, match="has taken its place on node one on one away"):
                held.result(timeout=60)
        assert not wait([held, waiting] if retries else [waiting], timeout=0.5).done
        assert lines(Path(starts)) == ["0"]
        executor.link.taken.clear()
        executor.link.place()
        if retries:
            gate.await_arrival()
            gate.release()
            assert held.result(timeout=60) == 0
        assert waiting.result(timeout=60) == 1
        assert waiting.report().attempts == 1
    assert lines(Path(starts)) == ["0"] * (1 + retries) + ["1"]


@pytest.mark.parametrize("max_workers", [None, 2])
@pytest.mark.parametrize(
    ("options", "chooses"),
    [({"threads": 2}, True), ({"memory_limit": "700MiB"}, True), ({"memory_limit": "700MiB"}, False)],
)
def test_no_job_waits_at_a_node_where_another_has_the_room_that_it_needs(
    gate: Gate, tmp_path: Path, options: dict[str, Any], chooses: bool, max_workers: int | None
) -> None:
    starts = str(tmp_path / "starts")
    nodes = {"one": GIB, "two": GIB}
    with NearbyExecutor(nodes, cores=2, chooses=chooses, max_workers=max_workers, **options) as executor:
        held = executor.submit(work, starts, 0, gate.path)
        gate.await_arrival()
        others = [executor.submit(work, starts, number) for number in range(1, 8)]
        assert gather(others, timeout=60) == list(range(1, 8))
        last = [executor.submit(long_work, starts, number, gate.path) for number in range(8, 10)]
        gate.await_arrival()
        while State.NEW in {_state(job) for job in last}:
            wait(last, timeout=0.01)
        assert {_state(job) for job in last} == {State.SENT, State.QUEUED}
        # What waits is not lost with either of them.
        executor.link.go(_node(held))
        with pytest.raises(WorkerDiedError, match="was lost"):
            held.result(timeout=60)
        gate.release()
        gate.await_arrival()
        gate.release()
        assert gather(last, timeout=60) == [8, 9]


def test_what_waits_for_the_cores_of_one_node_holds_up_none_at_another_and_has_its_turn(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "FAIR_S", 0.0)  # others make room at once
    starts = str(tmp_path / "starts")
    with NearbyExecutor({"one": GIB, "two": GIB}, cores=2, chooses=True) as executor:
        held = [executor.submit(long_work, starts, number, gate.path) for number in range(3)]
        gate.await_arrival(3)
        places = [_node(job) for job in held]
        wide = executor.with_options(threads=2).submit(work, starts, 3)
        (alone,) = (job for job in held if places.count(_node(job)) == 1)
        others = [job for job in held if job is not alone]
        assert others[0].cancel()
        # The core that is free beside the one that runs alone is kept.
        for number in range(4, 20):
            assert executor.submit(work, starts, number).result(timeout=60) == number
        assert not wait([wide], timeout=0.5).done
        assert alone.cancel()
        assert wide.result(timeout=60) == 3
        assert others[1].running()
        gate.release()


@pytest.mark.parametrize("chooses", [True, False])
def test_what_waits_for_memory_has_its_turn_however_many_smaller_ones_are_behind_it(
    gate: Gate, tmp_path: Path, chooses: bool
) -> None:
    starts = str(tmp_path / "starts")
    with NearbyExecutor({"one": GIB}, cores=2, chooses=chooses) as executor:
        small = executor.with_options(memory_limit="300MiB")
        held = small.submit(work, starts, 0, gate.path)
        gate.await_arrival()
        large = executor.with_options(memory_limit="800MiB").submit(work, starts, 1)
        behind = [small.submit(work, starts, number) for number in range(2, 12)]
        assert not wait([large, *behind], timeout=0.5).done
        gate.release()
        assert gather([held, large, *behind], timeout=60) == list(range(12))
    assert lines(Path(starts))[:2] == ["0", "1"]
