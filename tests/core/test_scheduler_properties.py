"""Any interleaving of events leaves the scheduler consistent, and every job with exactly one end."""

from __future__ import annotations

import math

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobrunner.executors.records import CancelAnswer, End, Job, JobState, LaneState, Slot
from tests.core.fake_driver import Workshop

_LIVE = (LaneState.STARTING, LaneState.SERVING)
_seeds = st.integers(0, 1 << 16)


class SchedulerMachine(RuleBasedStateMachine):
    """Random events over a few lanes; after each, the scheduler's numbers are counted afresh."""

    def __init__(self) -> None:
        super().__init__()
        self.shop = Workshop(cores=1)
        self.cancelled_in_queue: dict[int, int] = {}  # job number: how often it had been started
        self.closed = False

    @initialize(
        cores=st.integers(1, 4),
        spare=st.integers(0, 2),
        idle_timeout=st.sampled_from([None, 5.0]),
        max_jobs=st.sampled_from([None, 1, 3]),
    )
    def make(self, cores: int, spare: int, idle_timeout: float | None, max_jobs: int | None) -> None:
        self.shop = Workshop(cores=cores, spare=spare, idle_timeout=idle_timeout, max_jobs_per_lane=max_jobs)

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
        frame_bytes=st.sampled_from([100, 1 << 20]),
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
    ) -> None:
        if threads > self.shop.scheduler._cores:
            threads = 1
        for _ in range(count):
            self.shop.submit(
                frame_bytes, priority=priority, retries=retries, time_limit=limit, retry_on=retry_on, threads=threads
            )

    @rule(retries=st.sampled_from([0, 1]))
    def hold(self, retries: int) -> None:
        self.shop.hold(retries=retries)

    @precondition(lambda self: self.shop.scheduler.held)
    @rule(seed=_seeds)
    def release_held(self, seed: int) -> None:
        held = sorted(self.shop.scheduler.held, key=lambda job: job.seq)
        self.shop.scheduler.submit(held[seed % len(held)], self.shop.now)

    @precondition(lambda self: self.shop.starting())
    @rule(seed=_seeds)
    def lane_ready(self, seed: int) -> None:
        starting = self.shop.starting()
        self.shop.ready(starting[seed % len(starting)])

    @precondition(lambda self: self.shop.starting())
    @rule(seed=_seeds)
    def lane_fails_to_start(self, seed: int) -> None:
        starting = self.shop.starting()
        self.shop.die(starting[seed % len(starting)])

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

    @rule(seed=_seeds, ok=st.booleans(), leaving=st.sampled_from([False, False, False, True]))
    def answer(self, seed: int, ok: bool, leaving: bool) -> None:
        slot = self._pick_lane(seed, running=True)
        if slot is not None:
            self.shop.answer(slot, ok, leaving)

    @rule(seed=_seeds, seconds=st.sampled_from([1e-6, 1e-4, 0.01, 1.0]))
    def deliver(self, seed: int, seconds: float) -> None:
        slot = self._pick_lane(seed)
        if slot is not None:
            self.shop.deliver(slot, seconds)

    @rule(seed=_seeds)
    def cancel(self, seed: int) -> None:
        job = self._pick_job(seed)
        if job is None:
            return
        answer = self.shop.scheduler.cancel(job, self.shop.now)
        if answer is CancelAnswer.CANCELLED:
            assert self.shop.ends[job.seq] is End.CANCELLED
            self.cancelled_in_queue[job.seq] = self.shop.starts.get(job.seq, 0)
        elif answer is CancelAnswer.ENDING:
            assert job.state is JobState.ENDING
            assert job.end is End.CANCELLED
        else:
            assert answer is CancelAnswer.TOO_LATE
            assert job.slot is not None
            assert job in [said[1] for said in self.shop.workers[job.slot.number].said if said[0] == "outcome"]

    @rule(seed=_seeds)
    def die(self, seed: int) -> None:
        slot = self._pick_lane(seed)
        if slot is not None:
            self.shop.die(slot)

    @precondition(lambda self: self.shop.ending)
    @rule(seed=_seeds)
    def bury(self, seed: int) -> None:
        self.shop.bury(self.shop.ending[seed % len(self.shop.ending)])

    @rule(seed=_seeds)
    def retired_leaves(self, seed: int) -> None:
        leaving = [slot for slot in self.shop.lanes() if slot.state is LaneState.RETIRING]
        if leaving:
            self.shop.bury(leaving[seed % len(leaving)])

    @rule(seed=_seeds, retry=st.booleans())
    def decide(self, seed: int, retry: bool) -> None:
        deciding = [job for job in self.shop.jobs if job.state is JobState.DECIDING]
        if deciding:
            self.shop.scheduler.decided(deciding[seed % len(deciding)], retry, self.shop.now)

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.01, 0.5, 2.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.shop.tick(seconds)

    @rule()
    def cancel_waiting(self) -> None:
        self.shop.scheduler.cancel_waiting(self.shop.now)

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
    def whoever_is_limited_is_looked_at(self) -> None:
        scheduler = self.shop.scheduler
        limited = [job for job in self.shop.jobs if job.state is JobState.SENT and job.options.time_limit is not None]
        at = scheduler.next_tick()
        if limited:
            assert at is not None
            assert math.isfinite(at)

    # --- the end ---

    def teardown(self) -> None:
        """Let the world run to its end: every job gets one, and every lane goes."""
        shop = self.shop
        shop.scheduler.close()
        for job in list(shop.scheduler.held):
            shop.scheduler.submit(job, shop.now)
        for _ in range(10_000):
            if shop.scheduler.drained():
                break
            self._step_towards_the_end()
            self.numbers_agree_with_a_recount()
            self.every_job_is_where_its_state_says()
        assert shop.scheduler.drained(), {job.seq: job.state for job in shop.jobs if job.state is not JobState.FINAL}
        assert set(shop.ends) == {job.seq for job in shop.jobs}
        for job in shop.jobs:
            starts = shop.starts.get(job.seq, 0)
            assert starts <= 1 + job.options.retries
            if shop.ends[job.seq] in (End.OUTCOME, End.DIED):
                assert starts >= 1
        shop.scheduler.retire_all()
        for slot in shop.lanes():
            shop.bury(slot)
        assert not shop.scheduler.slots

    def _step_towards_the_end(self) -> None:
        shop = self.shop
        for job in [job for job in shop.jobs if job.state is JobState.DECIDING]:
            shop.scheduler.decided(job, False, shop.now)
        for slot in [*shop.ending, *(slot for slot in shop.lanes() if slot.state is LaneState.RETIRING)]:
            shop.bury(slot)
        for slot in shop.starting():
            shop.ready(slot)
        for slot in shop.lanes():
            worker = shop.workers[slot.number]
            if slot.state is LaneState.SERVING:
                if worker.running is None and worker.inbox and not worker.leaving:
                    shop.claim(slot)
                if worker.running is not None:
                    shop.answer(slot)
                shop.deliver(slot)
        shop.tick(0.01)


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=False,
    print_blob=True,
)
