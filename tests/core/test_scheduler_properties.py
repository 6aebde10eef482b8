"""Any interleaving of events leaves the scheduler consistent, and every job with exactly one end."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobrunner.executors.records import CancelAnswer, End, Job, JobState, LaneState, Slot
from jobrunner.executors.scheduler import Scheduler
from tests.core.fake_driver import Workshop

_LIVE = (LaneState.STARTING, LaneState.SERVING)
# Prefetched jobs may wait so long, in seconds, while another lane is idle.
_STEAL_AFTER_S = 0.001
_seeds = st.integers(0, 1 << 16)


def _waits_for_nothing(scheduler: Scheduler) -> Job | None:
    """The job that is next and could be sent at once; None where there is none, as there should be."""
    job = scheduler.queue.head()
    if job is None:
        return None
    threads = job.options.threads
    has_cores = scheduler._busy_cores + threads <= scheduler._cores
    has_memory = job.memory <= scheduler._free_memory
    return job if has_cores and has_memory and scheduler._idle.get(threads) else None


class SchedulerMachine(RuleBasedStateMachine):
    """Random events over a few lanes; after each, the scheduler's numbers are counted afresh."""

    def __init__(self) -> None:
        super().__init__()
        self.shop = Workshop(cores=1)
        self.cancelled_in_queue: dict[int, int] = {}  # job number: how often it had been started
        self.closed = False
        self.budget = math.inf
        self.random = random.Random(0)

    @initialize(
        cores=st.integers(1, 4),
        cpus=st.sampled_from([None, 1]),
        spare=st.integers(0, 2),
        idle_timeout=st.sampled_from([None, 5.0]),
        max_jobs=st.sampled_from([None, 1, 3]),
        budget=st.sampled_from([math.inf, 100, 150, 300]),
        growth=st.sampled_from([None, 50]),
        seed=_seeds,
    )
    def make(
        self,
        cores: int,
        cpus: int | None,
        spare: int,
        idle_timeout: float | None,
        max_jobs: int | None,
        budget: float,
        growth: int | None,
        seed: int,
    ) -> None:
        self.budget = budget
        self.random = random.Random(seed)
        self.shop = Workshop(
            cores=cores,
            cpus=cpus,
            spare=spare,
            idle_timeout=idle_timeout,
            max_jobs_per_lane=max_jobs,
            memory=budget,
            growth=growth,
        )

    # --- choosing ---

    def _pick_lane(self, seed: int, *, running: bool | None = None, inbox: bool = False) -> Slot | None:
        found = []
        for slot in self.shop.lanes():
            worker = self.shop.workers[slot.number]
            if not worker.alive or slot.state is LaneState.STARTING:
                continue
            if running is not None and (worker.running is not None) is not running:
                continue
            if inbox and (worker.leaving or not worker.inbox):
                continue
            found.append(slot)
        return found[seed % len(found)] if found else None

    def _pick_job(self, seed: int) -> Job | None:
        open_jobs = [job for job in self.shop.jobs if job.state is not JobState.FINAL]
        return open_jobs[seed % len(open_jobs)] if open_jobs else None

    # --- events ---

    @rule(
        count=st.integers(1, 6),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        retries=st.sampled_from([0, 0, 2]),
        limit=st.sampled_from([None, None, 1.0]),
        retry_on=st.sampled_from([(), (ValueError,)]),
        threads=st.sampled_from([1, 1, 1, 2]),
        frame_bytes=st.sampled_from([100, 100, 1 << 20]),
        memory=st.sampled_from([None, None, 10, 60, 100]),
        alone=st.sampled_from([False, False, False, True]),
    )
    def submit(
        self,
        count: int,
        priority: int,
        retries: int,
        limit: float | None,
        retry_on: tuple[type[Exception], ...],
        threads: int,
        frame_bytes: int,
        memory: int | None,
        alone: bool,
    ) -> None:
        if threads > self.shop.scheduler._cores:
            threads = 1
        for _ in range(count):
            self.shop.submit(
                frame_bytes,
                priority=priority,
                retries=retries,
                time_limit=limit,
                retry_on=retry_on,
                threads=threads,
                memory_limit=memory,
                capture_output=alone,
            )
            self.shop.outside()

    @rule(retries=st.sampled_from([0, 1]), memory=st.sampled_from([None, 100]), alone=st.booleans())
    def hold(self, retries: int, memory: int | None, alone: bool) -> None:
        self.shop.hold(retries=retries, memory_limit=memory, capture_output=alone)

    @precondition(lambda self: self.shop.scheduler.held)
    @rule(seed=_seeds)
    def release_held(self, seed: int) -> None:
        held = sorted(self.shop.scheduler.held, key=lambda job: job.seq)
        self.shop.scheduler.submit(held[seed % len(held)], self.shop.now)
        self.shop.outside()

    @precondition(lambda self: self.shop.starting())
    @rule(seed=_seeds)
    def lane_ready(self, seed: int) -> None:
        starting = self.shop.starting()
        self.shop.ready(starting[seed % len(starting)])
        self.shop.turn()

    @precondition(lambda self: self.shop.starting())
    @rule(seed=_seeds)
    def lane_fails_to_start(self, seed: int) -> None:
        starting = self.shop.starting()
        self.shop.die(starting[seed % len(starting)])
        self.shop.turn()

    @precondition(lambda self: self.shop.starting())
    @rule(seed=_seeds)
    def lane_can_not_be_made(self, seed: int) -> None:
        """There is not even a process: told dead and over at once, on the spawner's thread."""
        starting = self.shop.starting()
        slot = starting[seed % len(starting)]
        self.shop.die(slot)
        self.shop.bury(slot)
        self.shop.turn()

    @rule(seed=_seeds)
    def claim(self, seed: int) -> None:
        slot = self._pick_lane(seed, running=False, inbox=True)
        if slot is None:
            return
        job = self.shop.claim(slot)
        if job is not None:
            started = self.shop.starts[job.seq]
            assert started <= 1 + job.options.retries, f"job {job.seq} was started {started} times"
            assert self.cancelled_in_queue.get(job.seq) is None, f"job {job.seq} was cancelled and started"

    @rule(
        seed=_seeds,
        ok=st.booleans(),
        leaving=st.sampled_from([False, False, False, True]),
        grown_by=st.sampled_from([0, 0, 30, 60]),
    )
    def answer(self, seed: int, ok: bool, leaving: bool, grown_by: int) -> None:
        slot = self._pick_lane(seed, running=True)
        if slot is not None:
            self.shop.workers[slot.number].rest_bytes += 10 + grown_by
            self.shop.answer(slot, ok, leaving)

    @rule(seed=_seeds, seconds=st.sampled_from([1e-6, 1e-4, 0.01, 1.0]))
    def deliver(self, seed: int, seconds: float) -> None:
        slot = self._pick_lane(seed)
        if slot is not None:
            self.shop.deliver(slot, seconds)
            self.shop.turn()

    @rule(seed=_seeds)
    def cancel(self, seed: int) -> None:
        job = self._pick_job(seed)
        if job is None:
            return
        answer = self.shop.scheduler.cancel(job, self.shop.now)
        self.shop.outside()
        if answer is CancelAnswer.CANCELLED:
            assert self.shop.ends[job.seq] is End.CANCELLED
            self.cancelled_in_queue[job.seq] = self.shop.starts.get(job.seq, 0)
        elif answer is CancelAnswer.ENDING:
            assert job.state is JobState.ENDING
            assert job.end is End.CANCELLED
        else:
            assert answer is CancelAnswer.TOO_LATE
            self._assert_answered(job)

    def _assert_answered(self, job: Job) -> None:
        """The job is over, and its lane has said so."""
        assert job.slot is not None
        assert job in [said[1] for said in self.shop.workers[job.slot.number].said if said[0] == "outcome"]

    @rule(seed=_seeds)
    def exceed_memory(self, seed: int) -> None:
        """A job that was claimed is seen to use more than its limit, and may have answered meanwhile."""
        claimed = [
            job
            for slot in self.shop.lanes()
            for job in slot.inflight
            if job.memory and self.shop.workers[slot.number].order >= self.shop.orders[job.seq]
        ]
        if not claimed:
            return
        job = claimed[seed % len(claimed)]
        was_sent = job.state is JobState.SENT
        ending = self.shop.scheduler.exceed_memory(job, self.shop.now)
        self.shop.outside()
        if ending:
            assert was_sent
            assert (job.state, job.end) == (JobState.ENDING, End.MEMORY_LIMIT)
        elif was_sent and job.slot is not None and job.slot.state is LaneState.SERVING:
            self._assert_answered(job)

    @rule(seed=_seeds)
    def die(self, seed: int) -> None:
        slot = self._pick_lane(seed)
        if slot is not None:
            self.shop.die(slot)
            self.shop.turn()

    @precondition(lambda self: self.shop.ending)
    @rule(seed=_seeds)
    def bury(self, seed: int) -> None:
        self.shop.bury(self.shop.ending[seed % len(self.shop.ending)])
        self.shop.turn()

    @rule(seed=_seeds)
    def retired_leaves(self, seed: int) -> None:
        leaving = [slot for slot in self.shop.lanes() if slot.state is LaneState.RETIRING]
        if leaving:
            self.shop.bury(leaving[seed % len(leaving)])
            self.shop.turn()

    @rule(seed=_seeds, retry=st.booleans())
    def decide(self, seed: int, retry: bool) -> None:
        deciding = [job for job in self.shop.jobs if job.state is JobState.DECIDING]
        if deciding:
            self.shop.scheduler.decided(deciding[seed % len(deciding)], retry, self.shop.now)
            self.shop.outside()

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.01, 0.5, 2.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.shop.pass_time(seconds)

    @rule()
    def cancel_waiting(self) -> None:
        self.shop.scheduler.cancel_waiting(self.shop.now)
        self.shop.outside()

    # --- what must hold after each ---

    @invariant()
    def numbers_agree_with_a_recount(self) -> None:
        shop, scheduler = self.shop, self.shop.scheduler
        queued = {job for job in shop.jobs if job.state is JobState.QUEUED}
        assert scheduler.queue.count == len(queued)
        assert len(list(scheduler.queue)) == len(queued)
        assert set(scheduler.queue) == queued
        assert scheduler.held == {job for job in shop.jobs if job.state is JobState.HELD}
        busy = sum(
            slot.threads for slot in shop.lanes() if slot.inflight and slot.state in (*_LIVE, LaneState.RETIRING)
        )
        assert scheduler._busy_cores == busy
        assert busy <= scheduler._cores
        idle = [slot for slots in scheduler._idle.values() for slot in slots]
        assert len(idle) == len(set(idle))
        assert set(idle) == {
            slot for slot in shop.lanes() if slot.state is LaneState.SERVING and not slot.inflight and not slot.dropping
        }
        assert all(slot.threads == threads for threads, slots in scheduler._idle.items() for slot in slots)
        for threads in {slot.threads for slot in shop.lanes()} | set(scheduler._starting):
            starting = [slot for slot in shop.starting() if slot.threads == threads]
            assert scheduler._starting.get(threads, 0) == len(starting)
        assert sum(slot.state in _LIVE for slot in shop.lanes()) <= scheduler._lane_limit

    @invariant()
    def every_job_is_where_its_state_says(self) -> None:
        in_flight: dict[int, Slot] = {}
        for slot in self.shop.lanes():
            for job in slot.inflight:
                assert job.seq not in in_flight, f"job {job.seq} is in two lanes"
                in_flight[job.seq] = slot
                assert job.slot is slot
                assert job.state in (JobState.SENT, JobState.ENDING)
        for job in self.shop.jobs:
            assert (job.state is JobState.FINAL) == (job.seq in self.shop.ends)
            assert (job.state in (JobState.SENT, JobState.ENDING)) == (job.seq in in_flight)
            if job.state is JobState.ENDING:
                assert in_flight[job.seq].state is LaneState.ENDING
            assert job.attempts <= self.shop.starts.get(job.seq, 0)

    @invariant()
    def whoever_is_limited_is_looked_at_in_time(self) -> None:
        limited = [job for job in self.shop.jobs if job.state is JobState.SENT and job.options.time_limit is not None]
        for job in limited:
            assert job.deadline is not None
            assert self.shop.sleeps_until is not None
            assert self.shop.sleeps_until <= job.deadline

    @invariant()
    def the_limits_of_jobs_in_lanes_stay_within_the_budget(self) -> None:
        scheduler = self.shop.scheduler
        assert scheduler._free_memory == self.budget - sum(slot.memory for slot in self.shop.lanes())
        assert scheduler._free_memory >= 0
        needed = 0
        for slot in self.shop.lanes():
            assert slot.memory >= max((job.memory for job in slot.inflight), default=0)
            # What its worker runs, or may yet: not what the scheduler thinks.
            worker = self.shop.workers[slot.number]
            jobs = [*(worker.claimable() if worker.alive else ()), worker.running, worker.left]
            needed += max((job.memory for job in jobs if job is not None), default=0)
        assert needed <= self.budget

    @invariant()
    def a_job_whose_output_is_captured_is_alone_in_its_lane(self) -> None:
        for slot in self.shop.lanes():
            assert len(slot.inflight) == 1 or not any(job.alone for job in slot.inflight)

    @invariant()
    def workers_that_run_jobs_do_not_take_more_cores_than_there_are(self) -> None:
        shop = self.shop
        running = [
            slot.threads
            for slot in shop.lanes()
            if slot.state is not LaneState.ENDING and shop.workers[slot.number].running is not None
        ]
        assert sum(running) <= shop.scheduler._cores

    @invariant()
    def no_job_waits_while_there_is_a_lane_for_it(self) -> None:
        waiting = _waits_for_nothing(self.shop.scheduler)
        assert waiting is None, f"job {waiting.seq} waits for nothing"

    @invariant()
    def prefetched_jobs_do_not_wait_long_behind_another_while_a_lane_is_idle(self) -> None:
        scheduler = self.shop.scheduler
        crowded = any(len(slot.inflight) > 1 for slot in self.shop.lanes() if slot.state is LaneState.SERVING)
        idle = any(scheduler._idle.values())
        if crowded and idle and scheduler._busy_cores < scheduler._cores and not scheduler.queue.count:
            assert self.shop.sleeps_until is not None
            assert self.shop.sleeps_until <= self.shop.now + _STEAL_AFTER_S

    # --- the end ---

    def teardown(self) -> None:
        """Let the world run to its end, with nobody's help: every job gets one, and every lane goes.

        The dispatcher wakes only when something happens, and when it has said that it would.
        """
        shop = self.shop
        shop.scheduler.close()
        for job in list(shop.scheduler.held):
            shop.scheduler.submit(job, shop.now)
            shop.outside()
        for _ in range(10_000):
            if shop.scheduler.drained():
                break
            if not self._step_towards_the_end():
                assert shop.sleep_on(), f"asleep for ever, and these are left: {self._open_jobs()}"
            self.numbers_agree_with_a_recount()
            self.every_job_is_where_its_state_says()
            self.the_limits_of_jobs_in_lanes_stay_within_the_budget()
        assert shop.scheduler.drained(), self._open_jobs()
        assert set(shop.ends) == {job.seq for job in shop.jobs}
        for job in shop.jobs:
            starts = shop.starts.get(job.seq, 0)
            assert starts <= 1 + job.options.retries
            if shop.ends[job.seq] in (End.OUTCOME, End.DIED, End.TIME_LIMIT, End.MEMORY_LIMIT):
                assert starts >= 1
            if shop.ends[job.seq] is End.DIED:
                assert starts == job.attempts == 1 + job.options.retries
        shop.scheduler.retire_all()
        for slot in shop.lanes():
            shop.bury(slot)
        assert not shop.scheduler.slots
        assert shop.scheduler._free_memory == self.budget
        assert shop.scheduler._busy_cores == 0

    def _open_jobs(self) -> dict[int, JobState]:
        return {job.seq: job.state for job in self.shop.jobs if job.state is not JobState.FINAL}

    def _step_towards_the_end(self) -> bool:
        """Everything that can happen by itself happens; False if there was nothing."""
        shop, happened = self.shop, False
        for job in [job for job in shop.jobs if job.state is JobState.DECIDING]:
            shop.scheduler.decided(job, self.random.random() < 0.5, shop.now)
            shop.outside()
            happened = True
        for slot in [*shop.ending, *(slot for slot in shop.lanes() if slot.state is LaneState.RETIRING)]:
            shop.bury(slot)
            shop.turn()
            happened = True
        for slot in shop.starting():
            happened = True
            if self.random.random() < 0.2:
                shop.die(slot)
            else:
                shop.ready(slot)
            shop.turn()
        for slot in shop.lanes():
            happened |= self._step_lane(slot)
        return happened

    def _step_lane(self, slot: Slot) -> bool:
        shop, worker = self.shop, self.shop.workers[slot.number]
        if slot.state is not LaneState.SERVING or not worker.alive:
            return False
        happened = False
        if worker.running is None and worker.inbox and not worker.leaving:
            shop.claim(slot)
            happened = True
        if worker.running is not None:
            happened = True
            if self.random.random() < 0.1:
                shop.die(slot)
                shop.turn()
                return True
            shop.answer(slot, ok=self.random.random() < 0.7)
        if worker.said:
            happened = True
            shop.deliver(slot)
            shop.turn()
        return happened


TestSchedulerMachine = pytest.mark.timeout(400)(SchedulerMachine.TestCase)
TestSchedulerMachine.settings = settings(
    max_examples=300,
    stateful_step_count=70,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=False,
    print_blob=True,
)


# --- loops of crashes ---


@settings(max_examples=100, deadline=None)
@given(
    cores=st.integers(1, 4),
    spare=st.integers(0, 2),
    jobs=st.integers(1, 20),
    threads=st.lists(st.integers(1, 2), min_size=20, max_size=20),
    becomes_ready=st.lists(st.booleans(), min_size=30, max_size=30),
    seed=_seeds,
)
def test_workers_that_always_die_before_they_do_anything_fail_what_waits_after_a_few_tries(
    cores: int, spare: int, jobs: int, threads: list[int], becomes_ready: list[bool], seed: int
) -> None:
    """Whether they die while they start, or as soon as they serve: no more than a few are started, with pauses."""
    shop, order = Workshop(cores=cores, spare=spare), random.Random(seed)
    for index in range(jobs):
        shop.submit(threads=min(threads[index], cores))
        shop.outside()
    began, wakes = shop.now, 0
    while len(shop.ends) < jobs:
        doomed = [slot for slot in shop.lanes() if slot.state in _LIVE]
        if doomed:
            slot = order.choice(doomed)
            if slot.state is LaneState.STARTING and becomes_ready[slot.number % 30]:
                shop.ready(slot)
            shop.die(slot)
        elif shop.ending:
            shop.bury(order.choice(shop.ending))
        else:
            assert shop.sleep_on(), "asleep for ever, and jobs are waiting"
            wakes += 1
            continue
        shop.turn()
        # Three in a row are too many, and at most all that were started at once are still to come.
        assert len(shop.spawned) <= 2 + cores + spare
    assert set(shop.ends.values()) == {End.NO_WORKER}
    assert not shop.starts
    assert shop.now - began >= 0.1 * wakes, "a worker was started again without a pause"


@settings(max_examples=100, deadline=None)
@given(cores=st.integers(1, 3), spare=st.integers(0, 1), retries=st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_a_job_that_always_kills_its_worker_is_started_as_often_as_it_may_be_and_harms_no_other(
    cores: int, spare: int, retries: list[int]
) -> None:
    shop = Workshop(cores=cores, spare=spare)
    killers = []
    for count in retries:
        killers.append(shop.submit(retries=count))
        shop.submit()
        shop.outside()
    for _ in range(1000):
        if shop.scheduler.drained():
            break
        for slot in shop.starting():
            shop.ready(slot)
        for slot in [slot for slot in shop.lanes() if shop.live(slot) and shop.workers[slot.number].inbox]:
            job = shop.claim(slot)
            if job in killers:
                shop.die(slot)
            elif job is not None:
                shop.answer(slot)
            shop.deliver(slot)
        for slot in list(shop.ending):
            shop.bury(slot)
        shop.turn()
    assert shop.scheduler.drained()
    for job in shop.jobs:
        assert shop.ends[job.seq] is (End.DIED if job in killers else End.OUTCOME)
        assert shop.starts[job.seq] == 1 + job.options.retries
    assert len(shop.spawned) <= cores + spare + sum(1 + count for count in retries) * (1 + spare)


def test_a_worker_that_leaves_gives_its_core_back_once_and_its_memory_when_it_is_ended() -> None:
    shop = Workshop(cores=1, memory=100)
    lane = shop.warm_lane()
    shop.submit(memory_limit=100)
    behind = shop.submit(memory_limit=100)
    assert behind.slot is lane
    shop.claim(lane)
    shop.answer(lane, leaving=True)
    shop.deliver(lane)
    assert behind.state is JobState.QUEUED
    assert shop.scheduler._busy_cores == 0
    assert shop.scheduler._free_memory == 0
    shop.bury(lane)
    assert shop.scheduler._free_memory == 100


def test_an_attempt_on_the_lane_of_the_one_before_is_counted_when_that_lane_dies() -> None:
    shop = Workshop(cores=1)
    job = shop.submit(retries=1, retry_on=(ValueError,))
    lane = shop.ready()
    shop.run_next(lane, ok=False)
    shop.scheduler.decided(job, True, shop.now)
    assert job.slot is lane
    assert shop.claim(lane) is job
    shop.die(lane)
    shop.bury(lane)
    assert shop.ends == {job.seq: End.DIED}
    assert (job.attempts, shop.starts[job.seq]) == (2, 2)
