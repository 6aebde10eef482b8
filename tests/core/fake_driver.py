"""A world without processes for the scheduler: lanes whose workers do what the test says, faithful to the tokens.

A job that is sent comes with a token.  The worker takes the next frame off its channel and claims the job if it wins a
token; else the job was revoked, and it says so (DROPPED).  What it says lies in its channel until it is delivered.

Each sending has a number of its own, as in the pool: a worker's page shows the sending that it claimed last.

Time is faithful too, where a test wants it (`outside`, `turn`, `sleep_on`): the dispatcher sleeps until the time that
the scheduler has named, and whoever else calls the scheduler wakes it only if that has named an earlier one.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from typing import Any

from jobrunner.executors.records import End, Job, JobState, LaneState, Slot
from jobrunner.executors.scheduler import Scheduler
from jobrunner.options import JobOptions


@dataclasses.dataclass
class FakeWorker:
    """What is on the worker's side of a lane."""

    inbox: deque[Job] = dataclasses.field(default_factory=deque)  # sent, not yet looked at
    tokens: int = 0
    order: int = 0  # the sending that was claimed last
    claimed_at: float = 0.0
    running: Job | None = None
    rest_bytes: int = 0  # what it uses between jobs; 0: it doesn't know
    left: Job | None = None  # the job that has left something running behind, for which it leaves
    # What it has said and the caller has not taken in: ("outcome", job, ok, leaving, rest_bytes) or ("dropped",).
    said: deque[tuple[Any, ...]] = dataclasses.field(default_factory=deque)
    alive: bool = True
    leaving: bool = False  # takes no further job, whatever is sent
    retiring: bool = False

    def claimable(self) -> list[Job]:
        """The jobs that it may still claim: the last ones sent, for revoked ones are dropped first."""
        return list(self.inbox)[len(self.inbox) - self.tokens :]


class Workshop:
    """A scheduler with fake lanes; the driver that it instructs, and the events that a test makes happen.

    Attributes:
        ends: how each finished job ended, by number.
        starts: how often each job was claimed by a worker.
        sleeps_until: when the dispatcher wakes if nothing happens; None: never.
    """

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self.sleeps_until: float | None = None
        self.options = options
        # The number of each job's last sending, by the job's number.
        self.orders: dict[int, int] = {}
        self._sendings = 0
        options.setdefault("lane_limit", options["cores"] + options.get("spare", 0))
        self.scheduler = Scheduler(self, **options)
        self.workers: dict[int, FakeWorker] = {}
        self.spawned: list[Slot] = []
        self.ends: dict[int, End] = {}
        self.starts: dict[int, int] = {}
        self.retry = True
        self.warmed: dict[int, End] = {}
        self.jobs: list[Job] = []
        # Lanes that the scheduler wants ended, until the test does it by `bury`.
        self.ending: list[Slot] = []

    # --- the driver's side ---

    def spawn(self, slot: Slot) -> None:
        assert slot.number not in self.workers
        self.workers[slot.number] = FakeWorker()
        self.spawned.append(slot)

    def send(self, slot: Slot, job: Job) -> None:
        worker = self.workers[slot.number]
        assert slot.state is LaneState.SERVING, f"job {job.seq} was sent to a lane that is {slot.state.name}"
        assert not slot.dropping, "a job was sent to a lane that has still to drop others"
        assert not slot.worn, "a job was sent to a lane that is to be replaced"
        most = self.options.get("max_jobs_per_lane")
        assert most is None or slot.served + len(slot.inflight) <= most, "a job was sent to a lane that has served"
        waiting = [other.options.priority for other in self.scheduler.queue]
        assert all(priority <= job.options.priority for priority in waiting), "a job of larger priority was passed over"
        for other in self.workers.values():
            if other.alive:
                assert job not in other.claimable(), f"job {job.seq} is on two lanes"
                assert other.running is not job, f"job {job.seq} is on two lanes"
        self._sendings += 1
        self.orders[job.seq] = self._sendings
        worker.inbox.append(job)
        worker.tokens += 1

    def revoke(self, slot: Slot) -> int:
        worker = self.workers[slot.number]
        revoked, worker.tokens = worker.tokens, 0
        return revoked

    def claimed(self, slot: Slot) -> int:
        order = self.workers[slot.number].order
        return next((job.seq for job in slot.inflight if self.orders[job.seq] == order), 0)

    def claimed_at(self, slot: Slot, job: Job) -> float | None:
        worker = self.workers[slot.number]
        return worker.claimed_at if worker.order == self.orders[job.seq] else None

    def end(self, slot: Slot, job: Job | None) -> None:
        assert slot.state is LaneState.ENDING
        assert slot not in self.ending
        self.ending.append(slot)

    def retire(self, slot: Slot) -> None:
        self.workers[slot.number].retiring = True

    def retryable(self, job: Job, end: End) -> bool:
        return end is End.DIED or self.retry

    def finish(self, job: Job, end: End) -> None:
        assert job.seq not in self.ends, f"job {job.seq} has ended twice"
        assert job.state is JobState.FINAL
        self.ends[job.seq] = end

    # --- what a test makes happen ---

    def submit(self, frame_bytes: int = 100, **options: Any) -> Job:
        job = self._job(frame_bytes, options)
        self.scheduler.submit(job, self.now)
        return job

    def hold(self, **options: Any) -> Job:
        job = self._job(100, options)
        self.scheduler.hold(job)
        return job

    def _job(self, frame_bytes: int, options: dict[str, Any]) -> Job:
        job = Job(len(self.jobs) + 1, JobOptions(**options), frame_bytes)
        self.jobs.append(job)
        return job

    def lanes(self) -> list[Slot]:
        return list(self.scheduler.slots.values())

    def starting(self) -> list[Slot]:
        return [slot for slot in self.lanes() if slot.state is LaneState.STARTING]

    def live(self, slot: Slot) -> bool:
        return slot.state is LaneState.SERVING and self.workers[slot.number].alive

    def ready(self, slot: Slot | None = None) -> Slot:
        """A lane that is starting, the first if none is named, becomes ready."""
        slot = slot or self.starting()[0]
        self.scheduler.ready(slot, self.now)
        return slot

    def warm_lane(self) -> Slot:
        """A ready lane, after a tiny job: the next ones are prefetched."""
        job = self.submit()
        lane = self.ready()
        self.run_next(lane, seconds=1e-5)
        self.warmed = {job.seq: self.ends[job.seq]}
        return lane

    def has_work(self, slot: Slot) -> bool:
        worker = self.workers[slot.number]
        return bool(worker.inbox or worker.running or worker.said)

    def claim(self, slot: Slot) -> Job | None:
        """The worker takes its next frame: claims the job, or drops it if its token was revoked."""
        worker = self.workers[slot.number]
        assert worker.running is None
        assert not worker.leaving
        job = worker.inbox.popleft()
        if not worker.tokens:
            worker.said.append(("dropped",))
            return None
        worker.tokens -= 1
        assert job.seq not in self.ends, f"job {job.seq} was started after its end"
        worker.running = job
        worker.order = self.orders[job.seq]
        worker.claimed_at = self.now
        self.starts[job.seq] = self.starts.get(job.seq, 0) + 1
        return job

    def answer(self, slot: Slot, ok: bool = True, leaving: bool = False) -> None:
        """The worker says what the running job came to."""
        worker = self.workers[slot.number]
        assert worker.running is not None
        worker.said.append(("outcome", worker.running, ok, leaving, worker.rest_bytes))
        worker.left = worker.running if leaving else None
        worker.running = None
        worker.leaving = leaving

    def deliver(self, slot: Slot, seconds: float = 1e-5) -> None:
        """The caller takes in what the worker has said."""
        worker = self.workers[slot.number]
        while worker.said:
            kind, *rest = worker.said.popleft()
            if kind == "dropped":
                self.scheduler.dropped(slot, self.now)
            else:
                job, ok, leaving, rest_bytes = rest
                self.scheduler.outcome(slot, job.seq, ok, leaving, seconds, self.now, rest_bytes)

    def acknowledge_drops(self, slot: Slot) -> None:
        """The worker, done with its job, looks at all frames that were revoked."""
        worker = self.workers[slot.number]
        if worker.running is None and not worker.leaving:
            while worker.inbox and not worker.tokens:
                self.claim(slot)
            self.deliver(slot)

    def run_next(self, slot: Slot, ok: bool = True, seconds: float = 1e-5) -> Job:
        """The worker runs the next job that it can claim, or ends the one it has, and that is taken in."""
        worker = self.workers[slot.number]
        job = worker.running
        while job is None:
            job = self.claim(slot)
            self.deliver(slot)
        self.answer(slot, ok)
        self.deliver(slot, seconds)
        return job

    def die(self, slot: Slot) -> None:
        """The worker is found dead, after what it said is taken in."""
        self.workers[slot.number].alive = False
        self.deliver(slot)
        self.scheduler.died(slot, self.now)

    def bury(self, slot: Slot) -> None:
        """None of the lane's processes is alive any more, and what the worker said is taken in."""
        worker = self.workers[slot.number]
        worker.alive = False
        if slot in self.ending:
            self.ending.remove(slot)
        self.deliver(slot)
        self.scheduler.ended(slot, self.now)

    def tick(self, seconds: float) -> None:
        """Time passes, and what is due is done."""
        self.now += seconds
        self.scheduler.tick(self.now)

    # --- time, as the pool's dispatcher keeps it ---

    def turn(self) -> None:
        """The dispatcher has taken something in, or was woken: it does what is due, and sleeps again."""
        if (self.sleeps_until is not None and self.now >= self.sleeps_until) or self.now >= self.scheduler.alarm:
            self.scheduler.tick(self.now)
        self.scheduler.alarm = math.inf
        self.sleeps_until = self.scheduler.next_tick()

    def outside(self) -> None:
        """Another thread has called the scheduler: it wakes the dispatcher if something is due earlier than it knew."""
        if self.scheduler.alarm < (math.inf if self.sleeps_until is None else self.sleeps_until):
            self.turn()

    def pass_time(self, seconds: float) -> None:
        """Time passes, and the dispatcher wakes if it was to."""
        self.now += seconds
        if self.sleeps_until is not None and self.now >= self.sleeps_until:
            self.turn()

    def sleep_on(self) -> bool:
        """Nothing happens until the dispatcher wakes by itself; False if it never will."""
        if self.sleeps_until is None:
            return False
        self.now = max(self.now, self.sleeps_until)
        self.turn()
        return True
