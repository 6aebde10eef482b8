"""Which job goes to which lane, and what becomes of it: decisions only.

Events come in as method calls, instructions go out through a `Driver`; nothing here touches a process, a socket, a
future's lock or a clock of its own, so that every interleaving can be tested without any.

Guarantees, kept by whoever calls (one event at a time, under one lock) and by the code below:

- a job reaches exactly one end, told once by `Driver.finish`;
- a job is handed to at most one lane at a time.  A lane runs what it was sent in that order, each job only if it wins
  its token; so what `Driver.revoke` takes back never started, and what it can't take back has been claimed;
- a lane that is being ended is sent nothing, and what its death means for each of its jobs is decided once, when the
  death is certain: the job that was cancelled or over its limit gets that end; one that was claimed and gave no result
  died with the worker; the others go back to the front of the queue, never having started.
"""

from __future__ import annotations

import heapq
import math
from collections import deque

from jobrunner.executors.job_queue import JobQueue
from jobrunner.executors.records import CancelAnswer, Driver, End, Job, JobState, LaneState, Slot

__all__ = ["Scheduler"]

# A job whose frame is larger is not prefetched: it would block the channel, and be sent again if it is taken back.
_PREFETCH_BYTES = 1 << 16
# Work that is kept ready in a busy lane, and at most how many jobs: while the caller's code holds the interpreter, for
# 5 ms at a time, nobody can send more.
_PREFETCH_S = 0.002
_PREFETCH_JOBS = 128
# Jobs shorter than this are hardly worth waking anybody for.
_TINY_S = 0.0001
# Jobs longer than this are not prefetched: the gap between two of them does not matter.
_PREFETCH_LONGEST_S = 0.02
# How many of them are sent one by one, as they are handed in.
_PREFETCH_SINGLY = 4
# How many busy lanes are looked at for one that takes another job.
_LOOKED_AT = 8
# How long prefetched jobs may wait in a lane while another lane is idle.
_STEAL_AFTER_S = 0.001
# Tiny jobs are given to no more lanes than this for each processor, however many workers there are: more don't run any
# sooner, and each costs the caller a send and a receive of its own.
_LANES_PER_CPU = 2
# Workers that die while starting: how many in a row fail what waits (if there is no other worker), and the first and
# the longest pause between two.
_START_TRIES = 3
_START_PAUSE_S = 0.1
_START_PAUSE_LONGEST_S = 30.0


# States in which a lane takes jobs, or will.
_LIVE = (LaneState.STARTING, LaneState.SERVING)


class Scheduler:
    """Assigns jobs to lanes; see the module for its guarantees.

    Args:
        driver: carries out the decisions.
        cores: how many cores the jobs that run may take up together.
        lane_limit: how many lanes that take jobs there may be at most.
        spare: how many idle lanes are kept ready beyond those in use.
        default_threads: the threads of the lanes that spares are started for.
        idle_timeout: seconds after which an idle lane leaves; None: never.
        max_jobs_per_lane: jobs after which a lane is replaced; None: never.
        memory: bytes that the memory limits of the jobs in lanes may add up to.
        growth: bytes by which the resting memory of a lane's worker may grow, from its first job on, before the lane is
            replaced; None: any number.
        cpus: how many processes the machine runs at a time; None: as many as `cores`.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        cores: int,
        lane_limit: int,
        spare: int = 0,
        default_threads: int = 1,
        idle_timeout: float | None = None,
        max_jobs_per_lane: int | None = None,
        memory: float = math.inf,
        growth: int | None = None,
        cpus: int | None = None,
    ) -> None:
        self._driver = driver
        self._cores = cores
        self._cpus = min(cores, cpus or cores)
        self._enough_cores = _LANES_PER_CPU * self._cpus
        self._lane_limit = lane_limit
        self._spare = spare
        self._default_threads = default_threads
        self._idle_timeout = idle_timeout
        self._max_jobs_per_lane = max_jobs_per_lane
        self._growth = growth
        # Bytes of the budget that are not taken up.
        self._free_memory = memory
        self.queue = JobQueue()
        self.held: set[Job] = set()
        self.slots: dict[int, Slot] = {}
        # Those that serve, or did; in turn.
        self._serving: deque[Slot] = deque()
        # Idle lanes that take jobs, by threads, the one used last at the end: it is warm, and the others may age.
        self._idle: dict[int, list[Slot]] = {}
        # How many lanes are starting, by threads.
        self._starting: dict[int, int] = {}
        # Cores taken up by the lanes that have jobs and are not being ended.
        self._busy_cores = 0
        self._next_number = 0
        # (monotonic seconds, seq, job): when to look at the limit of a job in a lane; outdated entries are passed over.
        self._limits: list[tuple[float, int, Job]] = []
        # How many entries may be in there before the outdated ones are thrown out.
        self._limits_kept = 1000
        # Seconds that a job takes, smoothed; None before the first.
        self._job_s: float | None = None
        # When prefetched jobs are taken from busy lanes because another is idle; None: there is no such case.
        self._steal_at: float | None = None
        # When to look whether lanes may go on to be left idle, and how many outcomes there were when that was planned.
        self._widen_at: float | None = None
        self._outcomes_then = 0
        self._outcomes = 0
        self._failed_starts = 0
        self._start_at = 0.0
        self._deciding = 0
        self._closing = False
        # Whether jobs of more than one priority were seen.
        self._priorities: set[float] = set()
        # Nothing can be assigned or started before a lane's next event, so that a submit need not look.
        self._saturated = False
        #: lanes that were replaced, for whatever reason
        self.restarts = 0
        #: those among them whose worker had served its number of jobs, or had grown too much
        self.recycled = 0
        #: the earliest time for a `tick` that was asked for since the pool last put it to infinity
        self.alarm = float("inf")

    # --- jobs coming in ---

    def hold(self, job: Job) -> None:
        """Take a job that waits for others; `submit` follows, or `cancel`."""
        job.move(JobState.HELD)
        self.held.add(job)

    def submit(self, job: Job, now: float) -> None:
        """Take a job, new or held, into the queue, and assign what can be.

        Args:
            job: the job.
            now: monotonic seconds, as in all methods.
        """
        if job.state is JobState.HELD:
            self.held.discard(job)
        job.move(JobState.QUEUED)
        self.queue.append(job)
        priority = job.options.priority
        if priority not in self._priorities:
            self._priorities.add(priority)
            self._saturated = False
        if len(self._priorities) > 1:
            for slot in list(self.slots.values()):
                # What was prefetched with a smaller priority goes behind this one.
                if len(slot.inflight) > 1 and slot.inflight[-1].options.priority < priority:
                    self._reclaim(slot)
            self._saturated = False
        if not self._saturated:
            self.fill(now)

    # --- assigning ---

    def fill(self, now: float) -> None:
        """Assign the jobs at the head of the queue while there are lanes for them; start lanes for the rest."""
        queue = self.queue
        while (job := queue.head()) is not None:
            slot = self._lane_for(job)
            if slot is None:
                break
            self._assign(slot, queue.pop(), now)
        if job is not None:
            self._start_lanes(job, now)
            threads = job.options.threads
            room = (self._cores - self._busy_cores) // threads - self._starting.get(threads, 0)
            narrow = self._narrow
            self._saturated = room <= 0 or narrow or now < self._start_at or job.memory > self._free_memory
            if narrow and self._widen_at is None:
                self._plan_widening(now)
        else:
            self._saturated = False
            self._plan_steal(now)
        self._keep_spares(now)

    @property
    def _narrow(self) -> bool:
        """Whether lanes are left idle though jobs wait: those at work are more than run at a time, and get through."""
        return self._busy_cores >= self._enough_cores and self.brisk and self._busy_cores < self._cores

    def _plan_widening(self, now: float) -> None:
        self._widen_at = now + _STEAL_AFTER_S
        self._outcomes_then = self._outcomes
        self.alarm = min(self.alarm, self._widen_at)

    def _lane_for(self, job: Job) -> Slot | None:
        threads = job.options.threads
        if self._busy_cores + threads <= self._cores and not self._narrow:
            idle = self._idle.get(threads)
            return idle.pop() if idle and job.memory <= self._free_memory else None
        # The rest is sent when a lane has answered, much of it at once.
        depth = min(self._prefetch_depth(job), _PREFETCH_SINGLY)
        best: Slot | None = None
        least = depth + 1
        # A few at a time, in turn: with many lanes one of the least crowded is as good as the least.
        for _ in range(min(len(self._serving), _LOOKED_AT) if depth else 0):
            slot = self._serving[0]
            self._serving.rotate(-1)
            length = len(slot.inflight)
            if 0 < length < least and slot.threads == threads and self._takes_more(slot, job):
                best, least = slot, length
        return best

    def _takes_more(self, slot: Slot, job: Job) -> bool:
        """Whether a busy lane may be sent another job, this one."""
        if slot.state is not LaneState.SERVING or slot.dropping or slot.worn or slot.inflight[-1].alone:
            return False
        if job.memory - slot.memory > self._free_memory:
            return False
        return self._max_jobs_per_lane is None or slot.served + len(slot.inflight) < self._max_jobs_per_lane

    def _prefetch_depth(self, job: Job) -> int:
        """How many jobs may wait in a busy lane; none while a core is free, for which a lane is on its way."""
        seconds = self._job_s
        if (
            seconds is None
            or seconds > _PREFETCH_LONGEST_S
            or job.frame_bytes > _PREFETCH_BYTES
            or job.alone
            or (self._busy_cores + job.options.threads <= self._cores and not self._narrow)
        ):
            return 0
        return min(
            _PREFETCH_JOBS, 1 + int(_PREFETCH_S / max(seconds, 1e-6)), 1 + _PREFETCH_BYTES // max(job.frame_bytes, 1)
        )

    @property
    def brisk(self) -> bool:
        """Whether jobs have been so short that to sleep until one ends takes longer than it does."""
        return self._job_s is not None and self._job_s < _TINY_S

    def leisure_s(self) -> float:
        """Seconds for which no lane at work needs another job; 0 where that is not certain, or jobs are not short."""
        seconds = self._job_s
        if seconds is None or seconds > _TINY_S or not self.queue.count:
            return 0.0
        lengths = [len(slot.inflight) for slot in self.slots.values() if slot.state is LaneState.SERVING]
        # As many of them as can run at a time; of two lanes, both.
        longest = heapq.nlargest(self._cpus, lengths)
        # A lane is filled up again when half of what it may have is done.
        return max(0, longest[-1] - _PREFETCH_JOBS // 4) * seconds if longest else 0.0

    def _assign(self, slot: Slot, job: Job, now: float) -> None:
        job.move(JobState.SENT)
        job.slot = slot
        if not slot.inflight:
            self._busy_cores += slot.threads
        slot.inflight.append(job)
        if slot.answered == job.seq:
            slot.answered = 0  # it comes back to the lane that has answered for it last
        if job.memory > slot.memory:
            self._free_memory -= job.memory - slot.memory
            slot.memory = job.memory
        if job.options.time_limit is not None:
            self._watch(job, now + job.options.time_limit)
        self._driver.send(slot, job)

    def _top_up(self, slot: Slot, now: float) -> None:
        """Give a busy lane its next jobs before it runs dry, several at a time."""
        queue = self.queue
        job = queue.head()
        if job is None:
            return
        depth = self._prefetch_depth(job)
        if len(slot.inflight) > depth // 2:
            return
        while (
            job is not None
            and self._takes_more(slot, job)
            and len(slot.inflight) <= depth
            and job.options.threads == slot.threads
            and job.frame_bytes <= _PREFETCH_BYTES
            and not job.alone
        ):
            self._assign(slot, queue.pop(), now)
            job = queue.head()

    def _release(self, slot: Slot, now: float) -> None:
        """A lane has no job left: it is idle, or has served long enough."""
        self._busy_cores -= slot.threads
        self._free(slot)
        self._rest(slot, now)

    def _free(self, slot: Slot) -> None:
        """Give back what a lane takes up of the memory budget: its jobs' processes have ended, or never began."""
        self._free_memory += slot.memory
        slot.memory = 0

    def _rest(self, slot: Slot, now: float) -> None:
        if slot.state is not LaneState.SERVING or slot.dropping or slot.inflight:
            return
        if slot.worn or (self._max_jobs_per_lane is not None and slot.served >= self._max_jobs_per_lane):
            self.recycled += 1
            self.restarts += 1
            self._retire(slot)
            return
        slot.idle_since = now
        self._idle.setdefault(slot.threads, []).append(slot)

    # --- lanes ---

    def _live(self) -> int:
        """Lanes that take jobs, or will."""
        return sum(slot.state in _LIVE for slot in self.slots.values())

    def _start_lanes(self, job: Job, now: float) -> None:
        """Start lanes for the queue that `job` heads."""
        threads = job.options.threads
        wanted = min(self.queue.count, (self._cores - self._busy_cores) // threads) - self._starting.get(threads, 0)
        if wanted <= 0 or job.memory > self._free_memory or self._narrow:
            return
        if now < self._start_at:
            self.alarm = min(self.alarm, self._start_at)
            return
        live = self._live()
        while wanted > 0:
            if live >= self._lane_limit:
                # A lane of another kind makes room.
                other = next((slots for kind, slots in self._idle.items() if kind != threads and slots), None)
                if other is None:
                    return
                self._retire(other[0])
                live -= 1
            self._start(threads)
            live += 1
            wanted -= 1

    def _keep_spares(self, now: float) -> None:
        """Have the spare lanes ready, one after the other, so that they don't compete with the lanes in demand."""
        if self._closing or not self._spare or now < self._start_at or any(self._starting.values()):
            return
        idle = len(self._idle.get(self._default_threads, ()))
        if self._busy_cores and idle < self._spare and self._live() < self._lane_limit:
            self._start(self._default_threads)

    def _start(self, threads: int) -> None:
        self._next_number += 1
        slot = Slot(self._next_number, threads)
        self.slots[slot.number] = slot
        self._starting[threads] = self._starting.get(threads, 0) + 1
        self._driver.spawn(slot)

    def ready(self, slot: Slot, now: float) -> None:
        """The lane's worker serves."""
        if slot.state is not LaneState.STARTING:
            return
        self._starting[slot.threads] -= 1
        slot.state = LaneState.SERVING
        self._serving.append(slot)
        self._rest(slot, now)
        self.fill(now)

    def _retire(self, slot: Slot) -> None:
        """Have an idle lane leave."""
        self._forget_idle(slot)
        slot.state = LaneState.RETIRING
        self._driver.retire(slot)

    def _forget_idle(self, slot: Slot) -> None:
        idle = self._idle.get(slot.threads)
        if idle and slot in idle:
            idle.remove(slot)

    def _end_slot(self, slot: Slot, victim: Job | None) -> None:
        """Have a lane's processes ended; its place is free at once."""
        if slot.state is LaneState.STARTING:
            self._starting[slot.threads] -= 1
        self._forget_idle(slot)
        if slot.inflight:
            self._busy_cores -= slot.threads
        slot.state = LaneState.ENDING
        slot.victim = victim
        self._driver.end(slot, victim)

    def died(self, slot: Slot, now: float) -> None:
        """The lane's worker was found dead, and all that it had sent was taken in."""
        if slot.state not in (LaneState.STARTING, LaneState.SERVING):
            return  # `ended` is on its way
        victim = self._claimed_job(slot)
        if victim is None and slot.served == 0:
            # By no job's doing, and before it was of any use.
            self._failed_starts += 1
            self._start_at = now + min(_START_PAUSE_S * 2 ** (self._failed_starts - 1), _START_PAUSE_LONGEST_S)
            self.alarm = min(self.alarm, self._start_at)
        self._end_slot(slot, None)
        while slot.inflight and slot.inflight[-1] is not victim:
            self._requeue(slot.inflight.pop())
        if victim is not None:
            victim.move(JobState.ENDING)
            victim.end = End.DIED
        self.fill(now)

    def _claimed_job(self, slot: Slot) -> Job | None:
        """The job that a dead worker had claimed and not answered."""
        claimed = self._driver.claimed(slot)
        if not slot.inflight or claimed in (0, slot.answered):
            return None
        # A number that was never sent means that a job has written where it should not: the first is that job.
        return next((job for job in slot.inflight if job.seq == claimed), slot.inflight[0])

    def ended(self, slot: Slot, now: float) -> None:
        """None of the lane's processes is alive, and all that its worker had sent was taken in."""
        if slot.state is LaneState.GONE:
            return
        self.died(slot, now)
        if slot.state is not LaneState.RETIRING:
            self.restarts += 1
        slot.state = LaneState.GONE
        self._free(slot)
        del self.slots[slot.number]
        if slot in self._serving:
            self._serving.remove(slot)
        claimed = self._claimed_job(slot)
        inflight, slot.inflight = slot.inflight, deque()
        while inflight:
            job = inflight.pop()
            if job.state is JobState.ENDING:
                self._settle_ending(job)
            elif job is claimed:
                job.move(JobState.ENDING)
                job.end = End.DIED
                self._settle_ending(job)
            else:
                self._requeue(job)
        if self._failed_starts >= _START_TRIES:
            kinds = {slot.threads for slot in self.slots.values() if slot.state in _LIVE}
            # What a lane that lives can run waits for that.
            lost = [job for job in self.queue if job.options.threads not in kinds]
            if lost:
                self._failed_starts = 0
            for job in lost:
                self.queue.count -= 1
                self._finish(job, End.NO_WORKER)
        self.fill(now)

    def _settle_ending(self, job: Job) -> None:
        """The lane of a job that was cancelled, over its limit, or died, has ended."""
        end = job.end
        assert end is not None
        job.attempts += 1
        if end is not End.CANCELLED and job.attempts <= job.options.retries and self._driver.retryable(job, end):
            self._requeue(job)
        else:
            self._finish(job, end)

    def _requeue(self, job: Job) -> None:
        job.move(JobState.QUEUED)
        job.slot = None
        job.deadline = None
        job.end = None
        self.queue.append_front(job)

    def _reclaim(self, slot: Slot, *, ending: bool = False) -> None:
        """Take back what the lane has not claimed, to the front of the queue.

        With `ending` what was answered has left processes behind, which use memory until the lane is ended.
        """
        revoked = self._driver.revoke(slot)
        if not revoked:
            return
        for _ in range(revoked):
            self._requeue(slot.inflight.pop())
        slot.dropping += revoked
        if not slot.inflight:
            self._busy_cores -= slot.threads
            if not ending:
                self._free(slot)

    def dropped(self, slot: Slot, now: float) -> None:
        """The worker has dropped a job that was revoked."""
        slot.dropping -= 1
        if slot.dropping == 0 and slot.state is LaneState.SERVING:
            if slot.inflight:
                self._top_up(slot, now)
            else:
                self._rest(slot, now)
                self.fill(now)

    # --- jobs ending ---

    def outcome(
        self, slot: Slot, seq: int, ok: bool, leaving: bool, seconds: float, now: float, rest_bytes: int = 0
    ) -> Job | None:
        """The worker sent a job's outcome.

        Args:
            slot: its lane.
            seq: the job's number.
            ok: whether the function returned.
            leaving: whether the worker takes no further job.
            seconds: how long the job took in the worker.
            rest_bytes: the worker's memory after it; 0: not known.

        Returns:
            The job, for which `finish` was called, unless its state is DECIDING: then `decided` is awaited.  None where
            the outcome comes too late: the job was cancelled, or ran past its limit.
        """
        if not slot.inflight or slot.inflight[0].seq != seq:
            raise AssertionError(f"lane {slot.number} answered for job {seq}, which it does not have")
        job = slot.inflight[0]
        if job.state is JobState.ENDING:
            return None
        slot.inflight.popleft()
        slot.served += 1
        slot.answered = seq
        self._failed_starts = 0
        if rest_bytes and self._growth is not None:
            slot.rest_bytes = slot.rest_bytes or rest_bytes
            slot.worn = rest_bytes - slot.rest_bytes > self._growth
        job.attempts += 1
        job.deadline = None
        self._outcomes += 1
        self._job_s = seconds if self._job_s is None else 0.75 * self._job_s + 0.25 * seconds
        options = job.options
        if not ok and options.retry_on and job.attempts <= options.retries:
            job.move(JobState.DECIDING)
            self._deciding += 1
        else:
            job.move(JobState.FINAL)
            self._driver.finish(job, End.OUTCOME)
        if slot.state is LaneState.SERVING:
            if leaving:
                if slot.inflight:
                    self._reclaim(slot, ending=True)
                else:
                    self._busy_cores -= slot.threads
                self._end_slot(slot, None)
                self.fill(now)
            elif slot.inflight:
                if self.queue.count and len(slot.inflight) <= _PREFETCH_JOBS // 2:
                    self._top_up(slot, now)
            else:
                self._release(slot, now)
                self.fill(now)
        return job

    def decided(self, job: Job, retry: bool, now: float) -> None:
        """The caller's code has said whether a failed job is to be retried."""
        if job.state is not JobState.DECIDING:
            return
        self._deciding -= 1
        if retry:
            self._requeue(job)
            self.fill(now)
        else:
            self._finish(job, End.OUTCOME)

    def _finish(self, job: Job, end: End) -> None:
        job.deadline = None
        job.move(JobState.FINAL)
        self._driver.finish(job, end)

    def cancel(self, job: Job, now: float) -> CancelAnswer:
        """Cancel a job, wherever it is."""
        was_sent = job.state is JobState.SENT
        if was_sent:
            assert job.slot is not None
            self._reclaim(job.slot)
        state = job.state
        if state is JobState.FINAL:
            return CancelAnswer.TOO_LATE
        if state is JobState.ENDING:
            job.end = End.CANCELLED
            return CancelAnswer.ENDING
        if state is JobState.SENT:
            if self._end_claimed(job, End.CANCELLED):
                self.fill(now)
                return CancelAnswer.ENDING
            self.fill(now)
            return CancelAnswer.TOO_LATE
        if state is JobState.QUEUED:
            self.queue.count -= 1
        elif state is JobState.DECIDING:
            self._deciding -= 1
        self.held.discard(job)
        self._finish(job, End.CANCELLED)
        if was_sent or self._busy_cores < self._cores:
            # What waited behind it, though there was room for it, waits no more.
            self.fill(now)
        return CancelAnswer.CANCELLED

    def take_out(self, job: Job, now: float) -> bool:
        """Cancel a job if no worker has begun it; whether that was so."""
        if job.state is JobState.SENT:
            assert job.slot is not None
            self._reclaim(job.slot)
            if job.state is JobState.SENT:
                self.fill(now)
        return job.state is JobState.QUEUED and self.cancel(job, now) is CancelAnswer.CANCELLED

    def _end_claimed(self, job: Job, end: End) -> bool:
        """End the lane of a job that its worker has claimed; False where its outcome is on its way already."""
        slot = job.slot
        assert slot is not None
        # All that is claimed before the last has been answered: the worker claims one when it is done with the other.
        if slot.state is not LaneState.SERVING or slot.inflight[-1] is not job:
            return False
        job.move(JobState.ENDING)
        job.end = end
        self._end_slot(slot, job)
        return True

    def exceed_memory(self, job: Job, now: float) -> bool:
        """The job's processes use more memory than its limit; whether they are being ended for that."""
        slot = job.slot
        if job.state is not JobState.SENT or slot is None:
            return False
        self._reclaim(slot)
        ending = job.state is JobState.SENT and self._end_claimed(job, End.MEMORY_LIMIT)
        self.fill(now)
        return ending

    # --- time ---

    def _watch(self, job: Job, at: float) -> None:
        job.deadline = at
        if len(self._limits) > self._limits_kept:
            # Most jobs end long before their limit: those are not kept until then.
            self._limits = [entry for entry in self._limits if entry[2].deadline == entry[0]]
            heapq.heapify(self._limits)
            self._limits_kept = 2 * len(self._limits) + 1000
        heapq.heappush(self._limits, (at, job.seq, job))
        self.alarm = min(self.alarm, at)

    def _plan_steal(self, now: float) -> None:
        """With a core free and jobs waiting in a busy lane, see that they get another, soon."""
        if self._steal_at is not None or self._busy_cores >= self._cores:
            return
        crowded = next((slot for slot in self.slots.values() if len(slot.inflight) > 1), None)
        if crowded is None:
            return
        if any(self._idle.values()):
            self._steal_at = now + _STEAL_AFTER_S
            self.alarm = min(self.alarm, self._steal_at)
        elif not any(self._starting.values()) and now >= self._start_at and self._live() < self._lane_limit:
            self._start(crowded.threads)

    def next_tick(self) -> float | None:
        """Monotonic seconds at which `tick` is due; None: not before another event."""
        times = [self._steal_at, self._widen_at, self._limits[0][0] if self._limits else None]
        if self._start_at and self.queue.count:
            times.append(self._start_at)
        if self._idle_timeout is not None:
            times += [slots[0].idle_since + self._idle_timeout for slots in self._idle.values() if slots]
        return min((at for at in times if at is not None), default=None)

    def tick(self, now: float) -> None:
        """Do what is due by now."""
        while self._limits and self._limits[0][0] <= now:
            at, _, job = heapq.heappop(self._limits)
            if job.deadline == at and job.state is JobState.SENT:
                self._look_at_limit(job, now)
        if self._steal_at is not None and self._steal_at <= now:
            self._steal_at = None
            if not self.queue.count and self._busy_cores < self._cores and any(self._idle.values()):
                for slot in list(self.slots.values()):
                    if len(slot.inflight) > 1:
                        self._reclaim(slot)
            self.fill(now)
        if self._widen_at is not None and self._widen_at <= now:
            self._widen_at = None
            if self._outcomes == self._outcomes_then:
                # What runs is not that short after all.
                self._job_s = _TINY_S
            self.fill(now)
        if self._start_at and self._start_at <= now:
            self._start_at = 0.0
            self.fill(now)
        self._retire_idle(now)

    def _look_at_limit(self, job: Job, now: float) -> None:
        limit, slot = job.options.time_limit, job.slot
        assert limit is not None
        assert slot is not None
        claimed_at = self._driver.claimed_at(slot, job)
        if claimed_at is None or claimed_at + limit > now:
            self._watch(job, (now if claimed_at is None else claimed_at) + limit)
            return
        self._reclaim(slot)
        if job.state is JobState.SENT and self._end_claimed(job, End.TIME_LIMIT):
            self.fill(now)

    def _retire_idle(self, now: float) -> None:
        timeout = self._idle_timeout
        if timeout is None:
            return
        for slots in list(self._idle.values()):
            while slots and slots[0].idle_since + timeout <= now:
                if self._busy_cores and len(slots) <= self._spare:
                    # A spare of a pool at work stays, and is looked at again later.
                    slots[0].idle_since = now
                    break
                self._retire(slots[0])

    def waiting(self) -> int:
        """How many jobs wait for a lane, or in one."""
        prefetched = sum(len(slot.inflight) - 1 for slot in self.slots.values() if slot.inflight)
        return self.queue.count + len(self.held) + prefetched

    # --- the end ---

    def close(self) -> None:
        """Start no more spares; what was taken in is still run."""
        self._closing = True

    def drained(self) -> bool:
        """Whether no job is left that was taken in."""
        return not (
            self.queue.count
            or self.held
            or self._deciding
            or any(slot.inflight or slot.victim for slot in self.slots.values())
        )

    def cancel_waiting(self, now: float) -> None:
        """Cancel every job that no worker has."""
        for job in [*self.held, *self.queue]:
            self.cancel(job, now)

    def cancel_all(self, now: float) -> None:
        """Cancel every job, the running ones too."""
        self.cancel_waiting(now)
        for slot in list(self.slots.values()):
            for job in list(slot.inflight):
                self.cancel(job, now)
        # What was reclaimed meanwhile is back in the queue.
        self.cancel_waiting(now)

    def retire_all(self) -> None:
        """Have every lane leave; for a scheduler that is drained."""
        for slot in list(self.slots.values()):
            if slot.state is LaneState.STARTING:
                self._end_slot(slot, None)
            elif slot.state is LaneState.SERVING:
                self._retire(slot)
