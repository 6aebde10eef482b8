"""The engine of `LocalExecutor`: a scheduler, its lanes, and the thread that listens to them.

::

    any thread                     the dispatcher's thread             other threads
    submit ─┐                      select ─▶ frames ─▶ outcome ─┐      spawner: Lane(...)
    cancel ─┼─▶ scheduler (lock) ◀─ deaths, ticks ◀─────────────┤      an ender a lane: Lane.end, exit status
    close  ─┘        │                                          ▼
                     └─▶ lane.send, revoke, end …        future.settle ─▶ callback threads: the user's code

Who owns what: the scheduler, and `_lanes` with every lane's outbox and reader, belong to whoever holds `_lock`; what is
listened to belongs to the dispatcher; a lane that is being ended belongs to its ender until that has called
`_note_ended`.  The dispatcher never runs the user's code, and never waits but in `select`.  Futures are settled after
the lock is released.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
import time
from typing import TypeGuard

from jobrunner.errors import ExecutorShutdownError, JobError, JobRunnerError, SerializationError, WorkerDiedError
from jobrunner.executors.attendant import Attendant, Attendants, signals_postponed
from jobrunner.executors.callbacks import on_callback_thread
from jobrunner.executors.enders import Enders
from jobrunner.executors.freight import Freight
from jobrunner.executors.future import CANCELLED, Settlement, in_event_loop
from jobrunner.executors.lane import Lane, LaneConfig
from jobrunner.executors.lanes import Lanes
from jobrunner.executors.memory_watch import MemoryWatch, Watched
from jobrunner.executors.notes import pass_on
from jobrunner.executors.output import Capture, OutputWriter
from jobrunner.executors.pool_job import Feeder, PoolJob
from jobrunner.executors.post_mortem import Death, error_for
from jobrunner.executors.records import CancelAnswer, End, Job, JobState, LaneState, Slot
from jobrunner.executors.scheduler import Scheduler
from jobrunner.executors.services import services
from jobrunner.executors.settler import Settler
from jobrunner.memory import format_bytes
from jobrunner.messages import (
    LEAVING,
    LEVEL_SHIFT,
    MEASURES,
    PARTS,
    RELAY,
    SEGMENT,
    Frame,
    Kind,
    unpack_gone,
    unpack_printed,
)
from jobrunner.options import JobOptions, PoolOptions, default_max_workers
from jobrunner.parcel import Parcel, pack_parts
from jobrunner.serialization import dump_call, dump_exception, load_exception
from jobrunner.worker.process import EXIT_SPOILED

__all__ = ["Pool"]

_log = logging.getLogger("jobrunner")
_root = logging.getLogger()

# As plain numbers, which compare faster.
_DONE = int(Kind.DONE)
_OUTCOMES = (_DONE, int(Kind.RAISED))

# For how long the dispatcher lets the outcomes of tiny jobs gather, with enough of them in every lane.
_LONGEST_LEISURE_S = 0.0003

# From 3.12 on an exiting interpreter starts no threads, and a worker's start needs some of loky's: a program that ends
# right after its first submit must have one worker on its way by then.  An event loop waits for that as well, once.
_WAIT_FOR_FIRST_LANE = sys.version_info >= (3, 12)


class Pool:
    """Lanes, and the jobs in them.

    Args:
        options: the pool's options.
        max_workers: how many jobs run at a time.
        threads: threads of the jobs that are not asked for otherwise.
        writer: takes what jobs print and is not captured.

    Attributes:
        pid: the process that made it; in a fork it is nobody's.
        cores: cores that its jobs may take up together.
        counts: how many jobs ended how.
    """

    def __init__(self, options: PoolOptions, max_workers: int, threads: int, writer: OutputWriter) -> None:
        self.pid = os.getpid()
        self.cores = max_workers * threads
        self._options = options
        initializer = _pack_initializer(options)
        services_ = services()
        self._writer = writer
        self._config = LaneConfig(
            services_.new_tag(),
            options.env or {},
            self.cores <= default_max_workers(),
            options.preload,
            initializer,
            self._writer,
        )
        self._spawner = services_.spawner
        # For what jobs warn of and log, and for errors to be retried: when it comes, it may be too late to start one.
        services_.callbacks.have_thread()
        # Numbers of jobs; taken without the lock.
        self._seqs = itertools.count(1)
        # Numbers of sendings: of two jobs in a lane the one sent later has the larger, and a job sent again a new one.
        self._orders = itertools.count(1)
        # Guards the scheduler, the lanes' outboxes, and everything below up to the blank line.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._scheduler = Scheduler(
            self,
            cores=self.cores,
            lane_limit=max_workers + options.spare_workers,
            spare=options.spare_workers,
            default_threads=threads,
            idle_timeout=options.idle_timeout,
            max_jobs_per_lane=options.max_jobs_per_worker,
            memory=options.budget_bytes,
            growth=options.growth_bytes,
            cpus=default_max_workers(),
        )
        self._closing = False
        self._feeders: set[Feeder] = set()
        # Lanes whose processes have ended.
        self._ended_lanes: list[Lane] = []
        # Watches the jobs that have a memory limit; None before the first.
        self._watch: MemoryWatch | None = None
        # What the last worker that could not start said of it, pickled; and how it ended.
        self._start_error: bytes | None = None
        self._start_death: Death | None = None
        self.counts = {"done": 0, "failed": 0, "cancelled": 0}

        #: the large data of jobs and of their results
        self.freight = Freight()
        # Guarded by the lock as well, but for what it says.
        self._lanes = Lanes(self.freight, self._writer)
        self._settler = Settler(self._writer)
        self._attendants = Attendants()
        self._enders = Enders(self._note_ended)
        self._abandoned = False
        # Set once a worker was started, or could not be.
        self._first_start = threading.Event()
        # Until when the dispatcher sleeps if nothing happens; None: for ever.  Written under _lock, by it alone.
        self._sleeps_until: float | None = None
        self._dispatcher = threading.Thread(target=self._dispatch, name="jobrunner-dispatcher", daemon=True)
        self._dispatcher.start()
        services_.register(self)

    # --- the caller's side ---

    def new_job(
        self, options: JobOptions, job_id: str | None, name: str, argument_bytes: int, serialize_s: float
    ) -> PoolJob:
        """A job that is not handed in yet; without an id, it gets one when it is asked for."""
        return PoolJob(self, next(self._seqs), options, job_id, name, argument_bytes, serialize_s)

    def hold(self, job: PoolJob) -> None:
        """Take a job that waits for others; `submit` follows."""
        with self._lock:
            self._check_open()
            self._scheduler.hold(job)

    def submit(self, job: PoolJob, body: bytes, *, admitted: bool = False) -> None:
        """Hand in a job, new or held.

        Args:
            job: the job.
            body: the body of its frame.
            admitted: whether it is part of a call made before, which a closing pool and a full queue don't refuse.

        Raises:
            ExecutorShutdownError: the pool takes no more jobs.
            JobError: the queue is full, and this thread must not wait.
        """
        job.body = body
        job.frame_bytes = len(body)
        shipment = job.shipment
        if shipment is not None:
            job.flags, job.body = shipment.wrap(body)
            job.frame_bytes = shipment.nbytes
        with self._lock:
            if job.state is JobState.FINAL:
                return  # cancelled while it was held
            if job.state is JobState.NEW and not admitted:
                self._check_open()
                limit = self._options.max_pending
                if limit is not None and self._scheduler.waiting() >= limit:
                    self._wait_for_room(limit)
            if job.memory and self._watch is None:
                self._watch = MemoryWatch(self._watched, self._note_use, self._exceeded)
            self._scheduler.submit(job, time.monotonic())
            self._carry_out()
        self._settler.settle()
        if _WAIT_FOR_FIRST_LANE and not self._first_start.is_set():
            self._first_start.wait()

    def fail(self, job: PoolJob, error: JobRunnerError) -> None:
        """Let a job that could not be handed in fail."""
        with self._lock:
            if job.state is JobState.FINAL:
                return
            self._scheduler.held.discard(job)
            job.move(JobState.FINAL)
            self._close_job(job, Settlement(error=error))
        self._settler.settle()

    def turn_away(self, job: PoolJob) -> None:
        """Let go of what was loaded for a job that is not taken after all."""
        with self._lock:
            job.unload()

    def _check_open(self) -> None:
        if self._closing or self.pid != os.getpid():
            raise ExecutorShutdownError("the executor was shut down: make a new one, or submit before the shutdown")

    def _wait_for_room(self, limit: int) -> None:
        if in_event_loop() or on_callback_thread():
            raise JobError(
                f"the queue is full ({limit} jobs wait: max_pending), and submit can't wait in an event loop or a "
                "callback: submit from another thread, or later"
            )
        self._changed.wait_for(lambda: self._closing or self._scheduler.waiting() < limit)
        self._check_open()

    def cancel(self, job: PoolJob, *, wait: bool = True) -> bool:
        """Cancel a job; see `JobFuture.cancel`.  With `wait` False the end of a running one is only requested."""
        future = job.future
        with self._lock:
            answer = self._scheduler.cancel(job, time.monotonic())
            self._carry_out()
        self._settler.settle()
        if answer is CancelAnswer.CANCELLED or job.was_cancelled:
            # Another thread may be about to: whoever cancels sees it cancelled.
            if future is not None:
                future.settle(CANCELLED)
            return True
        if answer is CancelAnswer.TOO_LATE:
            return False
        if not wait or on_callback_thread() or in_event_loop():
            return True
        return future is None or future.cancelled_unless(lambda: job.stuck)

    def take_out(self, job: PoolJob) -> bool:
        """Cancel a job if no worker has begun it; whether that was so."""
        with self._lock:
            taken = self._scheduler.take_out(job, time.monotonic())
            self._carry_out()
        self._settler.settle()
        return taken

    # --- a thread that waits for a job, and listens to its lane meanwhile; see `jobrunner.executors.attendant` ---

    def attend(self, job: PoolJob, deadline: float | None) -> None:
        """Wait for a job that is alone in its lane; returns when it is over, or that is not so any more."""
        if not self._lanes.can_lend or self._scheduler.queue.count or in_event_loop():
            return
        attendant: Attendant | None = None
        lane = None

        def wake() -> None:
            if attendant is not None:
                attendant.wake()

        with signals_postponed(wake) as came:
            # Here, where no handler can raise between its making and its being known.
            attendant = self._attendants.take()
            if attendant is None:
                return
            try:
                with self._lock:
                    if job.state is JobState.SENT:
                        lane = self._lanes.lend(job.slot, attendant)
                while lane is not None and lane.attendant is attendant and not came:
                    timeout = None if deadline is None else deadline - time.monotonic()
                    brisk = self._scheduler.brisk
                    if (timeout is not None and timeout <= 0) or not attendant.wait(lane.fileno(), timeout, brisk):
                        break
                    with self._lock:
                        if lane.attendant is attendant:
                            self._take_in(lane, lane.receive())
                            if job.state is not JobState.SENT:
                                self._lanes.take_back(lane, wake=False)
                        self._carry_out()
                        tick = self._scheduler.next_tick()
                        sleeps_until = self._sleeps_until
                    self._settler.settle()
                    # What the dispatcher finds out in its turn: that it has to look at the time sooner, or that all
                    # is over.
                    if self._closing or (tick is not None and (sleeps_until is None or tick < sleeps_until)):
                        self._lanes.wake()
            finally:
                if lane is not None and lane.attendant is attendant:
                    with self._lock:
                        if lane.attendant is attendant:
                            self._lanes.take_back(lane, wake=False)
                self._attendants.give_back(attendant)

    def decide(self, job: PoolJob) -> None:
        """Find out, on a thread for the user's code, whether what a job raised is to be retried."""
        raised = job.raised
        assert raised is not None
        assert isinstance(raised.data, bytes)
        retry = isinstance(load_exception(raised.data), job.options.retry_on)
        with self._lock:
            self._scheduler.decided(job, retry, time.monotonic())
            self._carry_out()
        self._settler.settle()

    def lane_of(self, slot: Slot | None) -> Lane | None:
        """The lane of a slot, if its worker is up."""
        return self._lanes.of(slot)

    def stats(self) -> dict[str, int]:
        """How many jobs wait, run and ended how; how many workers there are, and how often one was replaced."""
        with self._lock:
            running = sum(
                1
                for slot in self._scheduler.slots.values()
                for job in slot.inflight
                if isinstance(job, PoolJob)
                and job.state is JobState.SENT
                and (lane := self._lanes.of(slot))
                and lane.claimed() == job.order
            )
            inflight = sum(len(slot.inflight) for slot in self._scheduler.slots.values())
            return {
                "queued": self._scheduler.queue.count + len(self._scheduler.held) + inflight - running,
                "running": running,
                **self.counts,
                "workers": sum(
                    slot.state in (LaneState.STARTING, LaneState.SERVING) for slot in self._scheduler.slots.values()
                ),
                "restarts": self._scheduler.restarts,
                "recycled": self._scheduler.recycled,
            }

    # --- closing ---

    def add_feeder(self, feeder: Feeder) -> None:
        """Note that `feeder` will hand in more jobs of a call that was made already; `remove_feeder` follows."""
        with self._lock:
            self._check_open()
            self._feeders.add(feeder)

    def remove_feeder(self, feeder: Feeder) -> None:
        """Note that `feeder` hands in no more."""
        with self._lock:
            self._feeders.discard(feeder)
            self._changed.notify_all()
        self._lanes.wake()

    @property
    def starts_late(self) -> bool:
        """Whether what is handed in now must reach the pool before the caller goes on, for it may be about to exit."""
        return _WAIT_FOR_FIRST_LANE and not self._first_start.is_set()

    @property
    def closing(self) -> bool:
        """Whether new jobs are refused."""
        return self._closing

    def shut_down(self, *, cancel_waiting: bool = False, cancel_all: bool = False) -> None:
        """Take no more jobs, and end when those taken are over; does not wait."""
        if self.pid != os.getpid():
            return
        with self._lock:
            self._closing = True
            self._scheduler.close()
            now = time.monotonic()
            if cancel_all:
                self._scheduler.cancel_all(now)
            elif cancel_waiting:
                self._scheduler.cancel_waiting(now)
            self._carry_out()
            self._changed.notify_all()
            feeders = list(self._feeders)
        for feeder in feeders:
            if cancel_all or cancel_waiting:
                feeder.stop()
            else:
                feeder.close()
        self._settler.settle()
        self._lanes.wake()

    def join(self) -> None:
        """Wait until every job is over and every worker gone."""
        if self.pid != os.getpid():
            return
        self._dispatcher.join()
        self._enders.join()
        self._settler.join()

    def close_at_exit(self) -> None:
        """Run what was submitted, and end; called at interpreter exit."""
        if self.pid != os.getpid():
            return
        self.shut_down()
        self.join()

    def forsake(self) -> None:
        """In a fork: let go of the channels, which are the parent's."""
        self._lanes.forsake()
        self._attendants.close()
        self.freight.forsake()

    def abandon(self) -> None:
        """Nobody can submit any more: end when what was submitted is over.  Takes no lock, for it may be called from
        anywhere, garbage collection included."""
        self._abandoned = True
        if self.pid == os.getpid():
            self._lanes.wake()

    # --- the scheduler's driver; all under the lock ---

    def spawn(self, slot: Slot) -> None:
        """Have the spawner start a worker."""
        self._spawner.run(lambda: self._open_lane(slot))

    def send(self, slot: Slot, job: Job) -> None:
        """Queue a job for its lane; `_carry_out` sends."""
        assert isinstance(job, PoolJob)
        assert job.body is not None
        lane = self._lanes.of(slot)
        assert lane is not None
        job.begin_attempt(next(self._orders))
        flags = RELAY | min(_root.level // 10, 7) << LEVEL_SHIFT if job.options.relay_logs else 0
        if job.shipment is not None or job.shared:
            for share in job.shared:
                share.on_gone(self._lanes.forget_share)
            lane.ship(job.shipment, job.shared)
        lane.queue(job.kind, job.order, job.body, flags | job.flags)
        self._lanes.note_unsent(lane)
        if job.memory and self._watch is not None:
            self._watch.notice(job.memory)

    def revoke(self, slot: Slot) -> int:
        """Take back what the lane's worker has not claimed."""
        lane = self._lanes.of(slot)
        if lane is None:
            return 0
        self._lanes.take_back(lane)
        self._lanes.flush(lane)
        revoked = lane.revoke()
        # What the worker says it has claimed, it has, though a job may have written into the counter of tokens.
        claimed = lane.claimed()
        behind = 0
        for job in reversed(slot.inflight):
            if behind == revoked or (isinstance(job, PoolJob) and job.order == claimed):
                break
            behind += 1
        return behind

    def claimed(self, slot: Slot) -> int:
        """The number of the job in the lane that its worker claimed last; 0: none of them, -1: it tells nonsense."""
        lane = self._lanes.of(slot)
        order = 0 if lane is None else lane.claimed()
        for job in slot.inflight:
            if isinstance(job, PoolJob) and job.order >= order:
                return job.seq if job.order == order else 0
        return -1 if slot.inflight else 0

    def claimed_at(self, slot: Slot, job: Job) -> float | None:
        """When the job was claimed, or, in a chunk, the item in work was begun."""
        lane = self._lanes.of(slot)
        assert isinstance(job, PoolJob)
        if lane is None or lane.claimed() != job.order:
            return None
        if job.kind == Kind.CHUNK and lane.item() is not None:
            return lane.item_at()
        return lane.claimed_at()

    def end(self, slot: Slot, job: Job | None) -> None:
        """Have a thread end the lane."""
        lane = self._lanes.of(slot)
        if lane is None:
            return  # it is being spawned, and ended as soon as it is
        self._lanes.take_back(lane)
        interrupt, grace = 0, 0.0
        if isinstance(job, PoolJob):
            # Of a chunk: the item because of which it is ended.  It may still be over before the worker is.
            job.item = lane.item()
            # A job that takes too much memory would take more of it meanwhile.
            interrupt, grace = job.order, 0.0 if job.end is End.MEMORY_LIMIT else job.options.grace
        self._enders.end(lane, interrupt, grace)

    def retire(self, slot: Slot) -> None:
        """Tell an idle lane to leave, and have a thread see to it that it does."""
        lane = self._lanes.of(slot)
        assert lane is not None
        lane.retire()
        self._lanes.flush(lane)
        self._enders.end(lane)

    def retryable(self, job: Job, end: End) -> bool:
        """Whether a job that came to this end is to be tried again."""
        assert isinstance(job, PoolJob)
        return end is End.DIED or isinstance(error_for(job, end), job.options.retry_on)

    def finish(self, job: Job, end: End) -> None:
        """Settle a job's future, soon."""
        assert isinstance(job, PoolJob)
        if end is End.CANCELLED:
            job.cause = "it was cancelled"
            self._close_job(job, CANCELLED)
        elif end is End.OUTCOME:
            settlement = job.raised
            assert settlement is not None
            if settlement.ok:
                job.cause = None  # an earlier attempt failed
            self._close_job(job, settlement)
        else:
            cause = self._start_error if end is End.NO_WORKER else None
            if end is End.NO_WORKER and self._start_death is not None and cause is None:
                job.take_death(self._start_death)
            self._close_job(job, Settlement(error=error_for(job, end), data=cause))

    def _close_job(self, job: PoolJob, settlement: Settlement) -> None:
        if not job.finished:
            job.finished = time.monotonic()
        job.body = None
        job.raised = None
        job.slot = None
        if job.shipment is not None or job.shared:
            job.unload()
        job.was_cancelled = settlement is CANCELLED
        self.counts["cancelled" if settlement is CANCELLED else "done" if settlement.ok else "failed"] += 1
        self._settler.add(job, settlement)

    # --- carrying out ---

    def _carry_out(self) -> None:
        """Send what the scheduler has decided to send; the last thing done under the lock."""
        self._lanes.send()
        if self._scheduler.alarm < (float("inf") if self._sleeps_until is None else self._sleeps_until):
            self._lanes.wake()
        if self._options.max_pending is not None:
            self._changed.notify_all()

    # --- the thread that watches memory ---

    def _watched(self) -> list[Watched]:
        """The jobs with a memory limit that lanes have."""
        with self._lock:
            return [
                Watched(job, job.order, lane.pid, job.memory, lane.left_bytes(), lane.claimed() == job.order)
                for slot in self._scheduler.slots.values()
                for job in slot.inflight
                if isinstance(job, PoolJob)
                and job.memory
                and job.state is JobState.SENT
                and (lane := self._lanes.of(slot))
            ]

    def _note_use(self, watched: Watched, used: int) -> None:
        job = watched.job
        with self._lock:
            if _is_there(job, watched):
                job.peak_bytes = max(job.peak_bytes, used)

    def _exceeded(self, watched: Watched) -> None:
        with self._lock:
            if _is_there(watched.job, watched):
                self._scheduler.exceed_memory(watched.job, time.monotonic())
            self._carry_out()
        self._settler.settle()

    # --- the spawner's thread, and the enders' ---

    def _open_lane(self, slot: Slot) -> None:
        """Start a lane's worker; on the spawner's thread."""
        with self._lock:
            if slot.state is not LaneState.STARTING:
                self._scheduler.ended(slot, time.monotonic())
                self._lanes.wake()
                return
        try:
            lane = Lane(slot, self._config)
        except Exception as error:
            self._first_start.set()
            _log.debug("a worker could not be started", exc_info=True)
            with self._lock:
                self._start_error = dump_exception(error)
                now = time.monotonic()
                self._scheduler.died(slot, now)
                self._scheduler.ended(slot, now)
                self._carry_out()
            self._settler.settle()
            self._lanes.wake()
            return
        with self._lock:
            self._lanes.add(lane)
            if slot.state is not LaneState.STARTING:
                self._enders.end(lane)
        self._first_start.set()
        self._lanes.wake()

    def _note_ended(self, lane: Lane) -> None:
        """A lane's processes are gone; on its ender's thread."""
        with self._lock:
            self._ended_lanes.append(lane)
        self._lanes.wake()

    # --- the dispatcher's thread ---

    def _dispatch(self) -> None:
        try:
            while self._turn():
                pass
        except Exception:
            _log.critical("the dispatcher has failed: its jobs are lost", exc_info=True)
            self._collapse()
        finally:
            if self._watch is not None:
                self._watch.close()
            self._lanes.close()
            self._attendants.close()
            self.freight.close()

    def _turn(self) -> bool:
        """Wait for something to happen and deal with it; False when all is over."""
        until = self._sleeps_until
        heard = self._lanes.wait(None if until is None else max(0.0, until - time.monotonic()))
        with self._lock:
            # What a job has printed first: it is over when its outcome is taken in.
            for lane, stream in heard.printed:
                self._lanes.take_output(lane, stream)
                self._deal_out(lane)
            for lane in heard.arrived:
                if lane.attendant is None:  # else it has just been lent
                    self._take_in(lane, lane.receive())
            for lane in heard.dead:
                self._lanes.take_back(lane)
                self._take_in(lane, lane.drain())
                lane.answered()
                self._scheduler.died(lane.slot, time.monotonic())
            if self._ended_lanes:
                self._put_away()
            now = time.monotonic()
            if (self._sleeps_until is not None and now >= self._sleeps_until) or now >= self._scheduler.alarm:
                self._scheduler.tick(now)
            going_on = self._check_over()
            self._carry_out()
            self._lanes.listen()
            self._scheduler.alarm = float("inf")
            self._sleeps_until = self._scheduler.next_tick()
            leisure_s = self._scheduler.leisure_s()
        # The last thing before sleeping again: those who are woken want the interpreter to themselves.
        self._settler.settle()
        if leisure_s:
            # Jobs end faster than is worth a wake-up each: those of the next moment are taken in together.
            time.sleep(min(leisure_s, _LONGEST_LEISURE_S))
        return going_on

    def _take_in(self, lane: Lane, frames: list[Frame]) -> None:
        """Deal with what a worker said."""
        try:
            for frame in frames:
                self._take_frame(lane, frame)
        except Exception:
            _log.debug("lane %s spoke nonsense", lane.number, exc_info=True)
            lane.distrust()
        self._deal_out(lane)
        if lane.eof:
            # Not death: its worker may live on without its channel.  There is nothing left to listen to.
            self._lanes.ignore_channel(lane)

    def _deal_out(self, lane: Lane) -> None:
        """Pass on what was read of a worker's output, if it is of the job in front of its lane without doubt."""
        if lane.output is not None and lane.output.holds:
            front = lane.slot.inflight[0] if lane.slot.inflight else None
            if not isinstance(front, PoolJob) or lane.claimed() <= front.order:
                lane.output.deal_out(_capture(lane))

    def _take_frame(self, lane: Lane, frame: Frame) -> None:
        kind, flags, order, body = frame
        slot = lane.slot
        if kind in _OUTCOMES:
            self._take_outcome(lane, order, kind == _DONE, flags, body)
        elif kind == Kind.PRINTED:
            if lane.output is not None:
                lane.output.drain(_capture(lane), unpack_printed(body))
        elif kind == Kind.NOTE:
            self._take_note(lane, order, bytes(body))
        elif kind == Kind.PARTIAL:
            job = slot.inflight[0]
            if (
                isinstance(job, PoolJob)
                and job.order == order
                and job.state is JobState.SENT
                and job.watcher is not None
            ):
                piece: bytes | Parcel | SerializationError = bytes(body)
                if flags & (SEGMENT | PARTS):
                    piece = self.freight.take_in(lane, flags, bytes(body), self._lanes.wake)
                job.watcher.piece(job, piece)
            elif flags & SEGMENT:
                self.freight.take_in(lane, flags, bytes(body), self._lanes.wake)  # too late: its memory is given back
        elif kind == Kind.GONE:
            for number, reusable in unpack_gone(body):
                lane.come_back(number, reusable)
        elif kind == Kind.DROPPED:
            self._scheduler.dropped(slot, time.monotonic())
        elif kind == Kind.READY:
            self._start_error = None
            self._spawner.run(lane.worker.unlink_semaphores)
            self._scheduler.ready(slot, time.monotonic())
        elif kind == Kind.FAILED:
            self._start_error = bytes(body)
        else:
            raise ValueError(f"unknown kind of frame: {kind}")

    def _take_note(self, lane: Lane, order: int, body: bytes) -> None:
        """Have what a job warns of, or logs, be passed on."""
        job = lane.slot.inflight[0]
        if isinstance(job, PoolJob) and job.order == order:
            job.noted = True
            take = job.on_note or (lambda body, pid: pass_on(body, job.job_id, pid))
            services().callbacks.run(lambda: take(body, lane.pid))

    def _take_outcome(self, lane: Lane, order: int, ok: bool, flags: int, body: bytes | bytearray) -> None:
        taken_ns, started_ns, finished_ns, cpu_ns, peak_bytes, rest_bytes = MEASURES.unpack_from(body)
        slot = lane.slot
        job = slot.inflight[0]
        if not isinstance(job, PoolJob) or job.order != order:
            raise ValueError(f"an outcome of sending {order} came, which is not the one in work")
        output = lane.output
        if output is not None:
            output.finish_lines()
            job.ticket = output.ticket
        data: bytes | Parcel | SerializationError = body[MEASURES.size :] if type(body) is bytes else _rest(body)
        if flags & (SEGMENT | PARTS):
            assert isinstance(data, bytes)
            data = self.freight.take_in(lane, flags, data, self._lanes.wake)
        if job.state is JobState.SENT:
            job.pid = lane.pid
            job.started, job.finished, job.cpu_ns = started_ns / 1e9, finished_ns / 1e9, cpu_ns
            if peak_bytes > job.peak_bytes:  # where its children were watched too, theirs is the larger
                job.peak_bytes = peak_bytes
            job.take_outcome(ok, data)
        else:
            lane.answered()
        if len(slot.inflight) == 1:
            lane.idle()
        worn = slot.worn
        self._scheduler.outcome(
            slot, job.seq, ok, bool(flags & LEAVING), (finished_ns - taken_ns) / 1e9, time.monotonic(), rest_bytes
        )
        if flags & LEAVING:
            if lane.output is not None:
                lane.output.silence()
            _log.info("worker %s is replaced: job %s has left processes or threads behind", lane.pid, job.job_id)
        elif slot.worn and not worn:
            grown = format_bytes(rest_bytes - slot.rest_bytes)
            _log.info("worker %s is replaced: its memory at rest has grown by %s", lane.pid, grown)
        if job.state is JobState.DECIDING:
            services().callbacks.run(lambda: self.decide(job))

    def _put_away(self) -> None:
        """Close the lanes whose processes have ended."""
        ended, self._ended_lanes = self._ended_lanes, []
        for lane in ended:
            self._take_in(lane, lane.drain())
            if lane.output is not None:
                lane.output.drain(_capture(lane))
                lane.output.finish_lines()
            death = lane.death()
            if death.exit_code == EXIT_SPOILED:
                _log.info("worker %s is replaced: a job has changed what can't be put back", lane.pid)
            _tell_jobs(lane, death)
            if lane.slot.state is LaneState.ENDING and not lane.slot.served and not lane.slot.inflight:
                self._start_death = death
            self._scheduler.ended(lane.slot, time.monotonic())
            self._lanes.remove(lane)
            lane.unload()
            lane.taken_in.set()
        if ended and not self._lanes:
            self.freight.trim()

    def _check_over(self) -> bool:
        """Whether there is, or may come, anything more to do."""
        if self._abandoned:
            self._closing = True
            self._scheduler.close()
        if not self._closing or self._feeders or not self._scheduler.drained():
            return True
        self._scheduler.retire_all()
        return bool(self._scheduler.slots)

    def _collapse(self) -> None:
        """After a defect of ours: no future waits for ever, and no process stays."""
        with self._lock:
            self._closing = True
            for lane in self._lanes:
                lane.worker.kill()
                lane.taken_in.set()
            jobs = [*self._scheduler.held, *self._scheduler.queue]
            for slot in self._scheduler.slots.values():
                jobs += slot.inflight
            for job in jobs:
                if isinstance(job, PoolJob) and job.state is not JobState.FINAL:
                    error = WorkerDiedError("jobrunner's dispatcher has failed; see the log", job_id=job.job_id)
                    self._close_job(job, Settlement(error=error))
            self._changed.notify_all()
        self._settler.settle()


def _pack_initializer(options: PoolOptions) -> bytes:
    """What each worker calls before its first job, as it is sent there; empty: nothing."""
    if options.initializer is None:
        return b""
    call = dump_call(options.initializer, options.initargs, {})
    if call.shared:
        raise JobError("a shared object is for the arguments of jobs: give the initializer the object itself")
    return pack_parts([call.payload, *call.buffers])


def _rest(body: bytes | bytearray) -> bytes:
    """What stands behind the measures of an outcome; copied once."""
    return bytes(memoryview(body)[MEASURES.size :])


def _capture(lane: Lane) -> Capture | None:
    """Where what a worker prints is to go; None: to the caller's own streams."""
    inflight = lane.slot.inflight
    job = inflight[0] if inflight else None
    return job.capture if isinstance(job, PoolJob) else None


def _tell_jobs(lane: Lane, death: Death) -> None:
    """Note how a lane's worker ended with those of its jobs that have to do with it."""
    for job in lane.slot.inflight:
        if isinstance(job, PoolJob) and (job.state is JobState.ENDING or job.order == lane.claimed()):
            job.take_death(death)
            job.started = lane.started_at() if lane.started() == job.order else 0.0
            if job.end is not End.TIME_LIMIT or job.item is None:
                job.item = lane.item()
            job.ticket = 0 if lane.output is None else lane.output.ticket


def _is_there(job: Job, watched: Watched) -> TypeGuard[PoolJob]:
    """Whether a job is still where it was when it was watched; under the pool's lock."""
    return isinstance(job, PoolJob) and job.order == watched.order and job.state is JobState.SENT
