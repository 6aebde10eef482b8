"""`LocalExecutor.map`: many items in few jobs, each item still a job of its own to whoever looks.

::

    caller's items ──▶ feeder thread: chunks by measured item length ──▶ pool ──▶ worker runs the items
          ▲                                                                            │ pieces: what is done so far
          └──────────── results in order ◀── entries by item number ◀──────────────────┘

Guarantees: the results come in the order of the items, each once.  An item that raises, kills its worker or runs past
its limit is that item's failure; the items of its chunk that had not begun are run in another chunk, and those that
finished without having been sent (at most 5 ms of work, none with chunks of one) are run again.
"""

from __future__ import annotations

import itertools
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jobrunner.errors import (
    ExecutorShutdownError,
    JobCancelledError,
    JobRunnerError,
    JobTimeoutError,
    SerializationError,
    TimeLimitExceeded,
    WorkerDiedError,
)
from jobrunner.executors.base import start_when_ready
from jobrunner.executors.future import CANCELLED, Settlement
from jobrunner.executors.pool import Pool
from jobrunner.executors.pool_job import PoolJob
from jobrunner.messages import Kind
from jobrunner.options import JobOptions
from jobrunner.serialization import call_name, dump_call, load_exception, load_result

__all__ = ["ChunkedMap"]

# How long a chunk should take, and how many items it may have at most.
_CHUNK_S = 0.05
_CHUNK_ITEMS = 1 << 15
# By how much a chunk may be larger than the one before: the measurement of a short one is rough.
_GROWTH = 16
# Chunks handed in per worker: one in work, and the next.
_AHEAD = 2


class _Entry(NamedTuple):
    """What some neighbouring items came to: `size` results as one pickle, or one failure."""

    size: int
    ok: bool
    data: bytes | None
    error: BaseException | None = None


class _Range(NamedTuple):
    """Items `first` to `end`, exclusive."""

    first: int
    end: int


class _Chunk:
    """Items handed in as one job; those before `next` have been delivered."""

    def __init__(self, items: _Range) -> None:
        self.items = items
        self.next = items.first


class ChunkedMap:
    """One call of `map`.

    Args:
        pool: where the items run.
        options: options of each item.
        function: what to call.
        items: the arguments of each call.
        workers: how many chunks run at a time.
        chunksize: items in a chunk; None: by measured length.
        buffersize: how many items may be taken from `items` before their results are; None: all.
        deadline: `time.monotonic` after which no result is waited for; None: none.
    """

    def __init__(
        self,
        pool: Pool,
        options: JobOptions,
        function: Callable[..., Any],
        items: Iterator[tuple[Any, ...]],
        *,
        workers: int,
        chunksize: int | None,
        buffersize: int | None,
        deadline: float | None,
    ) -> None:
        self._pool = pool
        self._function = function
        self._deadline = deadline
        self._chunksize = chunksize
        self._ahead = _AHEAD * workers
        self._workers = workers
        # An item's attempts are counted here: a chunk as a whole is never retried.
        self._retries = options.retries
        self._retry_on = options.retry_on
        self._options = options.replace(retries=0, retry_on=())
        self._source = items
        # All below is guarded by _changed.
        self._changed = threading.Condition()
        # Items taken from the source, by number; None once delivered.
        self._items: dict[int, tuple[Any, ...]] = {}
        self._taken = 0
        self._complete = False  # the source has no more
        self._waiting: deque[_Range] = deque()  # taken, and in no chunk
        self._chunks: dict[int, _Chunk] = {}  # handed in, by job number
        self._jobs: dict[int, PoolJob] = {}
        self._entries: dict[int, _Entry] = {}  # by the number of the first item
        self._attempts: dict[int, int] = {}  # of items that failed and may be retried
        self._to_judge: deque[tuple[int, bytes]] = deque()  # failures that may have to be retried
        self._item_s: float | None = None
        self._last_size = 1
        self._stopped = False
        self._closed = False  # the executor was shut down
        self._take(buffersize)
        if self._taken:
            pool.add_feeder(self)
            threading.Thread(target=self._feed, name="jobrunner-map", daemon=True).start()

    # --- the consumer's thread ---

    def results(self, return_exceptions: bool) -> Iterator[Any]:
        """The results in order; errors in their places if asked for, else the first one is raised."""
        position = 0
        try:
            while (entry := self._await_entry(position)) is not None:
                values, error = self._open(entry)
                position += entry.size
                size = entry.size
                del entry
                if error is not None and not return_exceptions:
                    raise error
                for _ in range(size):
                    self._take(1)
                    # In no variable while the caller has it: it is freed when the caller lets go of it.
                    yield values.pop() if error is None else error
        finally:
            self.stop()

    def _open(self, entry: _Entry) -> tuple[list[Any], BaseException | None]:
        """The results of an entry, the last first; or the error of each of its items."""
        if entry.error is not None:
            return [], entry.error
        assert entry.data is not None
        if not entry.ok:
            return [], load_exception(entry.data)
        try:
            values: list[Any] = load_result(entry.data)
        except SerializationError as error:
            return [], error
        values.reverse()
        return values, None

    def _await_entry(self, position: int) -> _Entry | None:
        """The outcome of the item at `position` and some after it; None after the last."""
        with self._changed:
            while True:
                entry = self._entries.pop(position, None)
                if entry is not None:
                    for number in range(position, position + entry.size):
                        self._items.pop(number, None)
                        self._attempts.pop(number, None)
                    return entry
                if position >= self._taken and self._complete:
                    return None
                left = None if self._deadline is None else self._deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise JobTimeoutError(f"item {position} of map() was not done in time; the call is cancelled")
                self._changed.wait(left)

    def _take(self, count: int | None) -> None:
        """Take items from the source (None: all), on the thread of whoever iterates."""
        if self._complete:
            return
        new = list(itertools.islice(self._source, count))
        with self._changed:
            if new and self._closed:
                raise ExecutorShutdownError(f"the executor was shut down after {self._taken} items of map()")
            first = self._taken
            self._items.update(enumerate(new, first))
            self._taken += len(new)
            self._complete = count is None or len(new) < count
            if new:
                if self._waiting and self._waiting[-1].end == first:
                    first = self._waiting.pop().first
                self._waiting.append(_Range(first, self._taken))
            self._changed.notify_all()

    def close(self) -> None:
        """Take no more items from the source; those taken are run."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Hand in no more items, and cancel those that are; what has no result yet is cancelled."""
        with self._changed:
            self._stopped = True
            jobs = list(self._jobs.values())
            self._complete = True
            for items in self._waiting:
                self._fail_items(items, JobCancelledError("the call of map() was cancelled"))
            self._waiting.clear()
            self._changed.notify_all()
        for job in jobs:
            self._pool.cancel(job, wait=False)

    # --- the feeder's thread ---

    def _feed(self) -> None:
        try:
            while (work := self._next_work()) is not None:
                if isinstance(work, _Range):
                    self._hand_in(work)
                else:
                    self._judge(*work)
        except Exception as error:
            self._give_up(error)
        finally:
            self._pool.remove_feeder(self)

    def _next_work(self) -> _Range | tuple[int, bytes] | None:
        """Items to hand in as a chunk, a failure to judge, or None when all is done."""
        with self._changed:
            while True:
                if self._to_judge:
                    return self._to_judge.popleft()
                if self._stopped or ((self._complete or self._closed) and not self._waiting and not self._chunks):
                    return None
                if self._waiting and len(self._chunks) < self._ahead:
                    return self._next_range()
                self._changed.wait()

    def _next_range(self) -> _Range:
        size = self._chunk_size()
        items = self._waiting.popleft()
        size = min(size, items.end - items.first)
        if items.first + size < items.end:
            self._waiting.appendleft(_Range(items.first + size, items.end))
        return _Range(items.first, items.first + size)

    def _chunk_size(self) -> int:
        if self._chunksize is not None:
            return self._chunksize
        if self._item_s is None:
            return 1
        by_time = int(_CHUNK_S / max(self._item_s, 1e-7))
        left = sum(items.end - items.first for items in self._waiting)
        # The last chunks are small, so that all workers end at the same time.
        by_share = -(-left // (2 * self._workers))
        size = max(1, min(by_time, by_share, _GROWTH * self._last_size, _CHUNK_ITEMS))
        self._last_size = size
        return size

    def _hand_in(self, items: _Range) -> None:
        arguments = tuple(self._items[number] for number in range(items.first, items.end))
        try:
            call = dump_call(self._function, arguments, {})
        except SerializationError:
            self._hand_in_singly(items, arguments)
            return
        job = self._pool.new_job(self._options, None, call.name, len(call.payload), call.serialize_s)
        job.kind = Kind.CHUNK
        job.watcher = self
        with self._changed:
            if self._stopped:
                self._fail_items(items, JobCancelledError("the call of map() was cancelled"))
                return
            self._chunks[job.seq] = _Chunk(items)
            self._jobs[job.seq] = job
        start_when_ready(
            call,
            hold=lambda: self._pool.hold(job),
            start=lambda body: self._pool.submit(job, body, admitted=True),
            fail=lambda error: self._pool.fail(job, error),
        )

    def _hand_in_singly(self, items: _Range, arguments: tuple[tuple[Any, ...], ...]) -> None:
        """One of the items can't be serialised: find it, and let the others go."""
        if items.end - items.first > 1:
            with self._changed:
                self._waiting.extendleft(_Range(number, number + 1) for number in reversed(range(*items)))
            return
        try:
            dump_call(self._function, arguments[0], {})
            raise SerializationError(f"the arguments of {call_name(self._function)!r} can't be sent to a worker")
        except SerializationError as error:
            with self._changed:
                self._record(items.first, _Entry(1, False, None, error))

    def _judge(self, number: int, data: bytes) -> None:
        """An item raised, and may be one to retry: only its exception's type tells."""
        retry = isinstance(load_exception(data), self._retry_on)
        with self._changed:
            if retry:
                self._waiting.appendleft(_Range(number, number + 1))
            else:
                self._record(number, _Entry(1, False, data))

    def _give_up(self, error: Exception) -> None:
        """Nothing more can be handed in."""
        with self._changed:
            self._stopped = True
            self._complete = True
            for number in range(self._taken):
                if number in self._items and not any(
                    chunk.items.first <= number < chunk.items.end for chunk in self._chunks.values()
                ):
                    self._record(number, _Entry(1, False, None, error))

    # --- the pool's threads: told of chunks; must not block ---

    def piece(self, job: PoolJob, data: bytes) -> None:
        """Some of a chunk's items are done."""
        with self._changed:
            self._take_piece(self._chunks[job.seq], data)

    def ended(self, job: PoolJob, settlement: Settlement) -> None:
        """A chunk has come to its end."""
        with self._changed:
            self._jobs.pop(job.seq, None)
            chunk = self._chunks.pop(job.seq, None)
            if chunk is None:
                return
            rest = _Range(chunk.next, chunk.items.end)
            if settlement is CANCELLED:
                self._fail_items(rest, JobCancelledError("the call of map() was cancelled", job_id=job.job_id))
            elif settlement.ok:
                assert settlement.data is not None
                # Bytes that the worker's side of `map` made, holding nothing but numbers and bytes.
                self._take_piece(chunk, pickle.loads(settlement.data))  # noqa: S301
                self._measure(job, chunk.items.end - chunk.items.first)
            elif isinstance(settlement.error, (WorkerDiedError, TimeLimitExceeded)):
                self._take_death(chunk, job, settlement.error)
            elif rest.end - rest.first > 1:
                # The chunk could not be loaded, because of one of its items: they are tried by themselves.
                self._waiting.extendleft(_Range(number, number + 1) for number in reversed(range(*rest)))
            else:
                self._record(rest.first, _Entry(1, False, settlement.data, settlement.error))
            self._changed.notify_all()

    def _measure(self, job: PoolJob, count: int) -> None:
        seconds = max(0.0, job.finished - job.started) / count
        self._item_s = seconds if self._item_s is None else (self._item_s + seconds) / 2

    def _take_piece(self, chunk: _Chunk, data: bytes) -> None:
        offset = chunk.items.first
        for first, count, ok, content in pickle.loads(data):  # noqa: S301 (numbers and bytes, of our own making)
            number = offset + first
            chunk.next = number + count
            if not ok and self._retry_on and self._may_retry(number):
                self._to_judge.append((number, content))
            else:
                self._record(number, _Entry(count, ok, content))
        self._changed.notify_all()

    def _may_retry(self, number: int) -> bool:
        attempts = self._attempts.get(number, 0) + 1
        self._attempts[number] = attempts
        return attempts <= self._retries

    def _take_death(self, chunk: _Chunk, job: PoolJob, error: JobRunnerError) -> None:
        """The worker died, or was ended, while it ran an item of the chunk."""
        rest = _Range(chunk.next, chunk.items.end)
        victim = max(rest.first, chunk.items.first + (job.item or 0))
        if victim >= rest.end:
            return
        if victim + 1 < rest.end:
            self._waiting.appendleft(_Range(victim + 1, rest.end))
        retried = isinstance(error, (WorkerDiedError, *self._retry_on))
        if retried and self._may_retry(victim):
            self._waiting.appendleft(_Range(victim, victim + 1))
        else:
            self._record(victim, _Entry(1, False, None, error))
        if rest.first < victim:
            self._waiting.appendleft(_Range(rest.first, victim))

    def _fail_items(self, items: _Range, error: JobRunnerError) -> None:
        for number in range(*items):
            self._record(number, _Entry(1, False, None, error))

    def _record(self, number: int, entry: _Entry) -> None:
        self._entries[number] = entry
        self._changed.notify_all()
