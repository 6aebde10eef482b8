"""The scheduler's decisions, without processes: a driver that notes what it is told, and a clock that stands still."""

from __future__ import annotations

from typing import Any

import pytest

from jobrunner.executors.records import JOB_MOVES, CancelAnswer, End, Job, JobState, LaneState
from jobrunner.options import JobOptions
from tests.core.fake_driver import Workshop


def test_a_job_is_sent_to_a_ready_lane_and_finished_once() -> None:
    shop = Workshop(cores=1)
    job = shop.submit()
    assert job.state.name == "QUEUED"
    lane = shop.ready()
    assert job.state is JobState.SENT
    assert job.slot is lane
    shop.run_next(lane)
    assert shop.ends == {job.seq: End.OUTCOME}


def test_jobs_are_run_first_come_first_served() -> None:
    shop = Workshop(cores=1)
    jobs = [shop.submit() for _ in range(5)]
    lane = shop.ready()
    for job in jobs:
        assert shop.run_next(lane) is job


def test_larger_priority_goes_first_and_equals_in_order() -> None:
    shop = Workshop(cores=1)
    order = [shop.submit(priority=priority).seq for priority in (0, 1, 0, 2.5, 1, -1)]
    lane = shop.ready()
    ran = [shop.run_next(lane).seq for _ in order]
    assert ran == [order[index] for index in (3, 1, 4, 0, 2, 5)]


def test_a_larger_priority_overtakes_what_was_prefetched() -> None:
    shop = Workshop(cores=1)
    lane = shop.warm_lane()
    first, second, third = (shop.submit() for _ in range(3))
    shop.claim(lane)
    urgent = shop.submit(priority=1)
    ran = []
    while shop.has_work(lane):
        ran.append(shop.run_next(lane))
    assert ran == [first, urgent, second, third]


def test_no_more_lanes_are_started_than_cores_and_none_without_jobs() -> None:
    shop = Workshop(cores=3)
    assert not shop.spawned
    for _ in range(10):
        shop.submit()
    shop.ready()
    assert len(shop.spawned) == 3
    while shop.starting():
        shop.ready()
    assert len(shop.spawned) == 3


def test_jobs_that_come_together_start_their_lanes_together() -> None:
    shop = Workshop(cores=4)
    for _ in range(4):
        shop.submit()
    assert len(shop.starting()) == 4


def test_a_spare_is_kept_beside_the_busy_lanes_and_takes_the_place_of_one_that_is_ended() -> None:
    shop = Workshop(cores=1, spare=1)
    job = shop.submit()
    lane = shop.ready()
    spare = shop.ready()
    other = shop.submit()
    shop.claim(lane)
    assert other.state is JobState.QUEUED  # the core is taken
    assert shop.scheduler.cancel(job, shop.now) is CancelAnswer.ENDING
    assert other.slot is spare  # at once, not when the dead lane is reaped
    shop.bury(lane)
    assert shop.ends == {job.seq: End.CANCELLED}


def test_a_job_is_not_stuck_behind_another_while_a_core_is_free() -> None:
    shop = Workshop(cores=2)
    lane = shop.warm_lane()
    long, other = shop.submit(), shop.submit()
    shop.claim(lane)
    assert long.slot is lane
    for starting in shop.starting():
        shop.ready(starting)
    shop.tick(1.0)
    shop.acknowledge_drops(lane)
    assert other.slot is not None
    assert other.slot is not lane


def test_prefetched_jobs_move_to_a_lane_that_is_idle() -> None:
    shop = Workshop(cores=2)
    for _ in range(2):
        shop.submit()
    first = shop.ready()
    second = shop.ready()
    for lane in (first, second):
        shop.run_next(lane)
    jobs = [shop.submit() for _ in range(6)]
    assert all(job.state is JobState.SENT for job in jobs)
    shop.claim(first)
    while shop.has_work(second):
        shop.run_next(second)
    shop.tick(0.01)
    unfinished = [job for job in jobs if job.state is not JobState.FINAL]
    assert len(unfinished) >= 2
    assert {job.slot for job in unfinished} == {first, second}


def _many_lanes_and_tiny_jobs() -> Workshop:
    """Eight idle lanes on one processor, where jobs have been tiny."""
    shop = Workshop(cores=8, cpus=1)
    for _ in range(8):
        shop.submit()
    for lane in [shop.ready() for _ in range(8)]:
        shop.run_next(lane, seconds=1e-5)
    return shop


def test_tiny_jobs_go_to_no_more_lanes_than_can_be_kept_busy() -> None:
    shop = _many_lanes_and_tiny_jobs()
    jobs = [shop.submit() for _ in range(40)]
    while any(shop.has_work(lane) for lane in shop.lanes()):
        for lane in shop.lanes():
            if shop.has_work(lane):
                shop.run_next(lane, seconds=1e-5)
    assert all(shop.ends[job.seq] is End.OUTCOME for job in jobs)
    assert sum(lane.served > 1 for lane in shop.lanes()) == 2


def test_lanes_that_were_left_idle_are_used_as_soon_as_jobs_turn_out_not_to_be_tiny() -> None:
    shop = _many_lanes_and_tiny_jobs()
    for _ in range(40):
        shop.submit()
    busy = [lane for lane in shop.lanes() if shop.has_work(lane)]
    assert len(busy) == 2
    for lane in busy:
        shop.claim(lane)  # and none of them ends
    due = shop.scheduler.next_tick()
    assert due is not None
    shop.tick(due - shop.now)
    assert all(shop.has_work(lane) for lane in shop.lanes() if lane not in busy)


def test_large_or_long_jobs_are_not_prefetched() -> None:
    shop = Workshop(cores=1)
    lane = shop.warm_lane()
    shop.submit()
    large = shop.submit(frame_bytes=1 << 20)
    assert large.state is JobState.QUEUED
    while shop.has_work(lane):
        shop.run_next(lane, seconds=100.0)
    shop.submit()
    assert shop.submit().state is JobState.QUEUED


def test_a_cancelled_queued_job_is_never_sent() -> None:
    shop = Workshop(cores=1)
    first, second = shop.submit(), shop.submit()
    assert shop.scheduler.cancel(first, shop.now) is CancelAnswer.CANCELLED
    lane = shop.ready()
    assert shop.run_next(lane) is second
    assert shop.ends == {first.seq: End.CANCELLED, second.seq: End.OUTCOME}


def test_a_cancelled_prefetched_job_is_never_claimed_and_the_others_keep_their_order() -> None:
    shop = Workshop(cores=1)
    lane = shop.warm_lane()
    first, second, third, fourth = (shop.submit() for _ in range(4))
    shop.claim(lane)
    assert shop.scheduler.cancel(third, shop.now) is CancelAnswer.CANCELLED
    ran = []
    while shop.has_work(lane):
        ran.append(shop.run_next(lane))
    assert ran == [first, second, fourth]
    assert shop.ends[third.seq] is End.CANCELLED


def test_a_job_whose_outcome_is_on_its_way_cannot_be_cancelled() -> None:
    shop = Workshop(cores=1)
    lane = shop.warm_lane()
    first, second = shop.submit(), shop.submit()
    shop.claim(lane)
    shop.answer(lane)  # sent, and not yet taken in
    shop.claim(lane)
    assert shop.scheduler.cancel(first, shop.now) is CancelAnswer.TOO_LATE
    shop.deliver(lane)
    assert shop.ends == {**shop.warmed, first.seq: End.OUTCOME}
    assert second.state is JobState.SENT


def test_what_a_death_means_is_decided_for_each_job_of_the_lane() -> None:
    shop = Workshop(cores=1)
    lane = shop.warm_lane()
    answered, claimed, waiting = (shop.submit() for _ in range(3))
    shop.claim(lane)
    shop.answer(lane)
    shop.claim(lane)
    shop.die(lane)
    assert shop.ends[answered.seq] is End.OUTCOME
    assert waiting.state is JobState.QUEUED
    shop.bury(lane)
    assert shop.ends[claimed.seq] is End.DIED
    assert waiting.attempts == 0
    assert shop.run_next(shop.ready()) is waiting


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_job_whose_worker_dies_is_tried_again_as_often_as_allowed(retries: int) -> None:
    shop = Workshop(cores=1)
    job = shop.submit(retries=retries)
    for _ in range(retries + 1):
        assert job.state is JobState.QUEUED
        lane = shop.ready()
        shop.claim(lane)
        shop.die(lane)
        shop.bury(lane)
    assert shop.ends == {job.seq: End.DIED}
    assert job.attempts == retries + 1


def test_a_job_that_raised_is_retried_when_its_caller_says_so() -> None:
    shop = Workshop(cores=1)
    job = shop.submit(retries=2, retry_on=(ValueError,))
    lane = shop.ready()
    for retry in (True, False):
        shop.run_next(lane, ok=False)
        assert job.state is JobState.DECIDING
        shop.scheduler.decided(job, retry, shop.now)
    assert shop.ends == {job.seq: End.OUTCOME}
    assert job.attempts == 2


def test_a_job_may_be_cancelled_while_its_retry_is_decided() -> None:
    shop = Workshop(cores=1)
    job = shop.submit(retries=2, retry_on=(ValueError,))
    shop.run_next(shop.ready(), ok=False)
    assert shop.scheduler.cancel(job, shop.now) is CancelAnswer.CANCELLED
    shop.scheduler.decided(job, True, shop.now)
    assert shop.ends == {job.seq: End.CANCELLED}
    assert shop.scheduler.drained()


def test_the_time_limit_counts_from_the_claim() -> None:
    shop = Workshop(cores=1)
    job = shop.submit(time_limit=10)
    shop.tick(100)
    lane = shop.ready()
    shop.tick(100)
    assert job.state.name == "SENT"  # sent, not claimed
    shop.claim(lane)
    shop.tick(9)
    assert job.state.name == "SENT"
    shop.tick(100)
    assert job.state is JobState.ENDING
    shop.bury(lane)
    assert shop.ends == {job.seq: End.TIME_LIMIT}


def test_the_next_tick_is_no_later_than_the_limit() -> None:
    shop = Workshop(cores=1)
    shop.submit(time_limit=10)
    lane = shop.ready()
    shop.claim(lane)
    claimed = shop.now
    while (at := shop.scheduler.next_tick()) is not None and shop.live(lane):
        assert at <= claimed + 10
        shop.tick(max(0.0, at - shop.now))
    assert shop.now <= claimed + 10 + 1e-6


def test_an_outcome_that_comes_after_the_limit_is_not_told() -> None:
    shop = Workshop(cores=1)
    job = shop.submit(time_limit=1)
    lane = shop.ready()
    shop.claim(lane)
    shop.tick(2)
    shop.answer(lane)
    shop.deliver(lane)
    shop.bury(lane)
    assert shop.ends == {job.seq: End.TIME_LIMIT}


def test_an_idle_lane_leaves_after_its_time_and_a_busy_one_stays() -> None:
    shop = Workshop(cores=2, idle_timeout=60)
    shop.submit()
    shop.submit()
    first, second = shop.ready(), shop.ready()
    shop.claim(first)
    shop.run_next(second)
    shop.tick(59)
    assert second.state.name == "SERVING"
    shop.tick(2)
    assert second.state is LaneState.RETIRING
    assert first.state is LaneState.SERVING


def test_a_lane_is_replaced_after_so_many_jobs() -> None:
    shop = Workshop(cores=1, max_jobs_per_lane=2)
    jobs = [shop.submit() for _ in range(3)]
    lane = shop.ready()
    shop.run_next(lane, seconds=1.0)
    shop.run_next(lane, seconds=1.0)
    assert lane.state is LaneState.RETIRING
    shop.bury(lane)
    assert shop.run_next(shop.ready()) is jobs[2]


def test_never_more_jobs_than_max_jobs_per_lane_though_they_are_prefetched() -> None:
    shop = Workshop(cores=1, max_jobs_per_lane=2)
    for _ in range(6):
        shop.submit()
    for _ in range(3):
        lane = shop.ready()
        while shop.live(lane) and shop.has_work(lane):
            shop.run_next(lane, seconds=1e-5)
        assert lane.served == 2
        shop.bury(lane)


def test_a_worker_that_leaves_something_behind_is_ended_and_its_prefetched_jobs_move() -> None:
    shop = Workshop(cores=1)
    lane = shop.warm_lane()
    first, second = shop.submit(), shop.submit()
    shop.claim(lane)
    shop.answer(lane, leaving=True)
    shop.deliver(lane)
    assert lane.state is LaneState.ENDING
    assert shop.ends[first.seq] is End.OUTCOME
    shop.bury(lane)
    assert shop.run_next(shop.ready()) is second


def test_workers_that_cannot_start_fail_what_waits_after_some_tries() -> None:
    shop = Workshop(cores=1)
    jobs = [shop.submit() for _ in range(3)]
    tries = 0
    while not shop.ends:
        (lane,) = shop.starting()
        shop.die(lane)
        shop.bury(lane)
        tries += 1
        assert tries < 10
        shop.tick(10)
    assert shop.ends == {job.seq: End.NO_WORKER for job in jobs}
    assert shop.scheduler.drained()


def test_a_job_takes_up_as_many_cores_as_it_has_threads() -> None:
    shop = Workshop(cores=4)
    wide = [shop.submit(threads=2) for _ in range(3)]
    for _ in range(2):
        shop.ready()
    while shop.starting():
        shop.ready()
    assert [job.state for job in wide] == [JobState.SENT, JobState.SENT, JobState.QUEUED]
    assert {lane.threads for lane in shop.lanes()} == {2}


def test_lanes_of_another_kind_make_room() -> None:
    shop = Workshop(cores=2)
    shop.submit()
    shop.submit()
    for lane in (shop.ready(), shop.ready()):
        shop.run_next(lane)
    wide = shop.submit(threads=2)
    for lane in [lane for lane in shop.lanes() if lane.state is LaneState.RETIRING]:
        shop.bury(lane)
    shop.ready()
    assert wide.state is JobState.SENT


def test_a_held_job_runs_once_it_is_released_and_can_be_cancelled_before() -> None:
    shop = Workshop(cores=1)
    released, cancelled = shop.hold(), shop.hold()
    assert not shop.scheduler.drained()
    shop.scheduler.submit(released, shop.now)
    assert shop.scheduler.cancel(cancelled, shop.now) is CancelAnswer.CANCELLED
    shop.run_next(shop.ready())
    assert shop.ends == {released.seq: End.OUTCOME, cancelled.seq: End.CANCELLED}
    assert shop.scheduler.drained()


def test_cancel_all_ends_every_job() -> None:
    shop = Workshop(cores=2)
    jobs = [shop.submit() for _ in range(10)] + [shop.hold()]
    first, second = shop.ready(), shop.ready()
    shop.claim(first)
    shop.claim(second)
    shop.scheduler.cancel_all(shop.now)
    shop.bury(first)
    shop.bury(second)
    assert shop.ends == {job.seq: End.CANCELLED for job in jobs}
    assert shop.scheduler.drained()


def test_retiring_all_lanes_leaves_none() -> None:
    shop = Workshop(cores=2, spare=1)
    shop.submit()
    shop.run_next(shop.ready())
    shop.scheduler.close()
    shop.scheduler.retire_all()
    for lane in list(shop.lanes()):
        shop.bury(lane)
    assert not shop.scheduler.slots


@pytest.mark.parametrize("state", list(JobState), ids=lambda state: state.name)
def test_an_illegal_move_is_a_defect_that_is_told(state: JobState) -> None:
    for target in JobState:
        job = Job(1, JobOptions(), 10)
        job.state = state
        if target in JOB_MOVES[state]:
            job.move(target)
            assert job.state is target
        else:
            with pytest.raises(AssertionError, match=f"{state.name} to {target.name}"):
                job.move(target)


def test_final_is_final() -> None:
    moves: Any = JOB_MOVES[JobState.FINAL]
    assert not moves
