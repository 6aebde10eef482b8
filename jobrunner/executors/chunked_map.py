"""`LocalExecutor.map`: many items in few jobs, each item still a job of its own to whoever looks.

::

    caller's items ──▶ feeder thread: chunks by measured item length ──▶ pool ──▶ worker runs the items
          ▲                                                                            │ pieces: what is done so far
          └──────────── results in order ◀── entries by item number ◀──────────────────┘

Guarantees: the results come in the order of the items, each once.  An item that raises, kills its worker or runs past
its limit is that item's failure; the items of its chunk that had not begun are run in another chunk, and those that
finished without having been sent (at most 5 ms of work, none with chunks of one) are run again.

A no-op costs some hundred nanoseconds, so that nothing here is done per item in Python: items are cut as columns
(`map_items`), and the caller draws the results from an iterator written in C.

How long items take is not known at first, and may change.  Chunks grow as fast as they are handed in, and a worker
whose chunk takes too long gives back what it has not begun: so that no item waits behind others for long.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from jobrunner.errors import (
    ExecutorShutdownError,
    JobCancelledError,
    JobRunnerError,
    JobTimeoutError,
    MemoryLimitExceeded,
    SerializationError,
    TimeLimitExceeded,
    WorkerDiedError,
)
from jobrunner.executors.base import start_when_ready
from jobrunner.executors.future import CANCELLED, Settlement
from jobrunner.executors.map_items import BLOCK, Items, Source
from jobrunner.executors.pool import Pool
from jobrunner.executors.pool_job import PoolJob
from jobrunner.messages import Kind
from jobrunner.options import JobOptions
from jobrunner.parcel import Parcel
from jobrunner.serialization import dump_call, load_exception, load_piece, load_result
from jobrunner.worker.chunk import Plan

__all__ = ["ChunkedMap", "MapResults"]

T = TypeVar("T")

# How long a chunk should take, and after what time a worker gives back what is left of it.
_CHUNK_S = 0.05
_GIVE_BACK_S = 0.1
# How long the last chunks should take at least.
_LAST_CHUNK_S = 0.001
# How many items a chunk may have at most, and how many bytes their arguments should be.
_CHUNK_ITEMS = BLOCK
_CHUNK_BYTES = 1 << 22
# By how much a chunk may be larger than the one before: the measurement of a short one is rough.
_GROWTH = 32
# How much must have been run before the measurement tells anything.
_KNOWN_S = 0.0002
# Which part of the items that wait may be handed in to a worker before it is known how long one takes.
_UNKNOWN_PART = 8
# Chunks handed in per worker: one in work, and the next; more of those that are over before the next one can be sent.
_AHEAD = 2
_AHEAD_IF_SHORT = 4
_SHORT_CHUNK_S = 0.01


class _Entry(NamedTuple):
    """What some neighbouring items came to: the pickled list of their results, or a failure of each.

    size: how many items.
    ok: whether there are results.
    data: the results; or the exception that a single item raised, or the cause of `error`, if there is one.
    error: the failure, where it did not come from the item.
    """

    size: int
    ok: bool
    data: bytes | Parcel | None
    error: BaseException | None = None


class _Chunk:
    """Items handed in as one job; those before number `next` are done."""

    def __init__(self, items: Items, job: PoolJob) -> None:
        self.items = items
        self.job = job
        self.next = items.first
        # Why some of them that were done are not known, if that is so.
        self.lost: SerializationError | None = None

    def rest(self) -> Items | None:
        """Those that are not done."""
        items = self.items
        return None if self.next >= items.end else items.part(self.next, items.end)


class MapResults(itertools.chain[T]):
    """The results of a `map`, as an iterator; made by `ChunkedMap.results`.

    Dropping it cancels what is left, once it was begun: before, its items are run for what they do.
    """

    _call: ChunkedMap
    _runs: Iterator[Iterator[T]]

    def close(self) -> None:
        """Cancel what is left; there are no more results."""
        self._call.stop()
        self._runs.close()  # type: ignore[attr-defined]
        self._call.end_run()


class ChunkedMap:
    """One call of `map`.

    Args:
        pool: where the items run.
        options: options of each item.
        function: what to call.
        iterables: the arguments of the calls, as for the built-in `map`.
        workers: how many chunks run at a time.
        chunksize: items in a chunk; None: by measured length.
        buffersize: how many items may be taken from `iterables` before their results are; None: all.
        deadline: `time.monotonic` after which no result is waited for; None: none.
    """

    def __init__(
        self,
        pool: Pool,
        options: JobOptions,
        function: Callable[..., Any],
        iterables: Sequence[Iterable[Any]],
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
        self._buffered = buffersize is not None
        self._workers = workers
        self._plan = Plan(options.time_limit is not None, 0 if chunksize else int(_GIVE_BACK_S * 1e9))
        # An item's attempts are counted here: a chunk as a whole is never retried.
        self._retries = options.retries
        self._retry_on = options.retry_on
        self._options = options.replace(retries=0, retry_on=())
        self._source = Source(iterables)
        # The results that are being given out, last first, and how many are left of them; the consumer's.
        self._values: list[Any] = []
        self._left: Iterator[list[Any]] = iter(())
        # All below is guarded by _changed.
        self._changed = threading.Condition()
        self._taken = 0
        self._complete = False  # the source has no more
        # Items in no chunk: from the source, to be put together as chunks; and to be run again, one after the other.
        self._waiting: deque[Items] = deque()
        self._again: deque[Items] = deque()
        self._unsent = 0  # how many items that is
        self._chunks: dict[int, _Chunk] = {}  # handed in, by job number
        self._entries: dict[int, _Entry] = {}  # by the number of the first item
        self._attempts: dict[int, int] = {}  # of items that failed and may be retried
        self._to_judge: deque[tuple[Items, bytes]] = deque()  # failures that may have to be retried
        # Of what was run: seconds and items, the last chunk counting as much as all before; bytes of an item sent.
        self._run_s = 0.0
        self._run_items = 0.0
        self._item_bytes = 1.0
        self._last_size = 0
        self._stopped = False
        self._closed = False  # the executor was shut down
        self._fed = False  # the feeder's thread was started
        try:
            self._take(buffersize)
        except BaseException:
            self.stop()
            raise

    # --- the consumer's thread ---

    def results(self, return_exceptions: bool) -> MapResults[Any]:
        """The results in order; errors in their places if asked for, else the first one is raised."""
        runs = self._runs(return_exceptions)
        results = MapResults.from_iterable(runs)
        assert isinstance(results, MapResults)
        results._call, results._runs = self, runs
        return results

    def _runs(self, return_exceptions: bool) -> Iterator[Iterator[Any]]:
        """The results, those of some neighbouring items at a time."""
        position = 0
        try:
            while (entry := self._await_entry(position)) is not None:
                position += entry.size
                values, error = self._open(entry)
                if error is not None:
                    if not return_exceptions:
                        raise error
                    values, error = [error] * entry.size, None
                self._values, left = values, len(values)
                del entry
                while left:
                    size = 1 if self._buffered else left
                    if self._buffered:
                        self._take(size)
                    left -= size
                    # Of a result that was given out we keep nothing: it is freed when the caller lets go of it.
                    self._left = itertools.repeat(values, size)
                    yield map(list.pop, self._left)
        finally:
            self.stop()

    def end_run(self) -> None:
        """Give out no more of the results that are being given out."""
        deque(self._left, maxlen=0)
        self._values.clear()

    def _open(self, entry: _Entry) -> tuple[list[Any], BaseException | None]:
        """The results of an entry, the last first; or the error of each of its items."""
        if entry.error is not None:
            if isinstance(entry.data, bytes):
                entry.error.__cause__ = load_exception(entry.data)
            return [], entry.error
        assert entry.data is not None
        if not entry.ok:
            assert isinstance(entry.data, bytes)
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
                    return entry
                if position >= self._taken and self._complete:
                    return None
                left = None if self._deadline is None else self._deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise JobTimeoutError(f"item {position} of map() was not done in time; the call is cancelled")
                self._changed.wait(left)

    def _take(self, most: int | None) -> None:
        """Take items from the source (None: all), on the thread of whoever iterates."""
        if self._complete:
            return
        for items in self._source.take(most):
            with self._changed:
                if self._closed:
                    raise ExecutorShutdownError(f"the executor was shut down after {self._taken} items of map()")
                self._taken = items.end
                if self._stopped:
                    self._fail(items, JobCancelledError("the call of map() was cancelled"))
                else:
                    self._unsent += items.size
                    last = self._waiting[-1] if self._waiting else None
                    if last is not None and last.size + items.size <= BLOCK and last.joins(items):
                        last.join(items)
                    else:
                        self._waiting.append(items)
                self._changed.notify_all()
            if not self._fed:
                # Now, not when all are taken: they may be many, or slow to come.
                self._start_feeder()
        with self._changed:
            self._complete |= self._source.complete
            self._changed.notify_all()

    def _start_feeder(self) -> None:
        self._pool.add_feeder(self)
        self._fed = True
        begun = self._begun = threading.Event()
        try:
            threading.Thread(target=self._feed, name="jobrunner-map", daemon=True).start()
        except RuntimeError:  # the interpreter is exiting
            self._pool.remove_feeder(self)
            raise
        if self._pool.starts_late:
            begun.wait()

    def close(self) -> None:
        """Take no more items from the source; those taken are run."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Hand in no more items, and cancel those that are; what has no result yet is cancelled."""
        with self._changed:
            self._stopped = True
            # A chunk all of whose items are done, but whose end has not been told, is left to end by itself.
            jobs = [chunk.job for chunk in self._chunks.values() if chunk.rest() is not None]
            self._complete = True
            self._fail_waiting(JobCancelledError("the call of map() was cancelled"))
        for job in jobs:
            self._pool.cancel(job, wait=False)

    # --- the feeder's thread ---

    def _feed(self) -> None:
        items: Items | None = None
        try:
            while (work := self._next_work()) is not None:
                items, raised = work
                if raised is None:
                    self._hand_in(items)
                    self._begun.set()
                else:
                    self._judge(items, raised)
                # The caller's objects: in no variable here while this thread waits.
                del work
                items = None
        except Exception as error:
            self._give_up(items, error)
        finally:
            self._begun.set()
            self._pool.remove_feeder(self)

    def _next_work(self) -> tuple[Items, bytes | None] | None:
        """Items to hand in as a chunk, or one with what it raised, to be judged; None when all is done."""
        with self._changed:
            while True:
                if self._to_judge:
                    return self._to_judge.popleft()
                if self._stopped or ((self._complete or self._closed) and not self._unsent and not self._chunks):
                    return None
                if self._unsent and len(self._chunks) < self._ahead() * self._workers:
                    return self._next_items(self._chunk_size()), None
                self._changed.wait()

    def _next_items(self, size: int) -> Items:
        """Take up to `size` of the items that wait."""
        waiting = self._again or self._waiting
        items = _cut(waiting, size)
        if waiting is self._waiting:
            # To put items together they must be copied: unless so many are asked for, half of them is enough.
            least = size if self._chunksize else size // 2
            while self._waiting and items.size < least and items.joins(self._waiting[0]):
                items.join(_cut(self._waiting, size - items.size))
        self._unsent -= items.size
        return items

    def _ahead(self) -> int:
        short = self._run_items and self._last_size * self._run_s < _SHORT_CHUNK_S * self._run_items
        return _AHEAD_IF_SHORT if short and not self._chunksize else _AHEAD

    def _chunk_size(self) -> int:
        if self._chunksize is not None:
            return self._chunksize
        # While all items are being taken, those that wait say nothing of how many are left.
        left = self._unsent if self._complete or self._buffered else math.inf
        if self._run_s > _KNOWN_S:
            item_s = max(self._run_s / self._run_items, 1e-8)
            # The last chunks are small, so that all workers end at the same time.
            most = min(_CHUNK_S / item_s, max(left / (2 * self._workers), _LAST_CHUNK_S / item_s))
        else:
            most = left / (_UNKNOWN_PART * self._workers)
        size = max(1, int(min(most, _GROWTH * self._last_size, _CHUNK_ITEMS, _CHUNK_BYTES / self._item_bytes)))
        self._last_size = size
        return size

    def _hand_in(self, items: Items) -> None:
        try:
            call = dump_call(self._function, (tuple(self._plan), items.columns), {})
        except SerializationError as error:
            self._take_unsendable(items, error)
            return
        self._item_bytes = call.nbytes / items.size
        job = self._pool.new_job(self._options, None, call.name, call.nbytes, call.serialize_s)
        job.kind = Kind.CHUNK
        job.watcher = self
        with self._changed:
            if self._stopped:
                self._fail(items, JobCancelledError("the call of map() was cancelled"))
                return
            self._chunks[job.seq] = _Chunk(items, job)
        job.load(call)
        start_when_ready(
            call,
            hold=lambda: self._pool.hold(job),
            start=lambda body: self._pool.submit(job, body, admitted=True),
            fail=lambda error: self._pool.fail(job, error),
        )

    def _take_unsendable(self, items: Items, error: SerializationError) -> None:
        """One of the items can't be serialised: find it, and let the others go."""
        if items.size == 1:
            # For an error that names the argument.
            try:
                dump_call(self._function, tuple(column[0] for column in items.columns), {})
            except SerializationError as named:
                error = named
        with self._changed:
            if items.size == 1:
                self._fail(items, error)
            else:
                self._run_halves(items)

    def _judge(self, item: Items, data: bytes) -> None:
        """An item raised, and may be one to retry: only its exception's type tells."""
        retry = isinstance(load_exception(data), self._retry_on)
        with self._changed:
            if retry:
                self._run_again(item)
            else:
                self._record(item.first, _Entry(1, False, data))

    def _give_up(self, items: Items | None, error: Exception) -> None:
        """Nothing more can be handed in, nor could `items`."""
        with self._changed:
            self._stopped = True
            self._complete = True
            for seq in [seq for seq, chunk in self._chunks.items() if chunk.items is items]:
                del self._chunks[seq]
            for lost in (*([] if items is None else [items]), *(item for item, _ in self._to_judge)):
                self._fail(lost, error)
            self._to_judge.clear()
            self._fail_waiting(error)

    # --- the pool's threads: told of chunks; must not block ---

    def piece(self, job: PoolJob, data: bytes | Parcel | SerializationError) -> None:
        """Some of a chunk's items are done."""
        with self._changed:
            if isinstance(data, SerializationError):
                # Which they were, the next piece tells.
                self._chunks[job.seq].lost = data
            else:
                self._take_piece(self._chunks[job.seq], data)

    def ended(self, job: PoolJob, settlement: Settlement) -> None:
        """A chunk has come to its end."""
        with self._changed:
            chunk = self._chunks.pop(job.seq, None)
            if chunk is None:
                return
            data = settlement.data
            if settlement.ok and data is not None:
                self._take_piece(chunk, load_piece(data))
                self._measure(job, chunk.next - chunk.items.first)
                data = None
            assert not isinstance(data, Parcel)  # an exception never is
            rest = chunk.rest()
            if rest is None:
                pass
            elif settlement is CANCELLED:
                self._fail(rest, JobCancelledError("the call of map() was cancelled", job_id=job.job_id))
            elif settlement.ok:
                self._run_again(rest)  # it was given back
            elif isinstance(settlement.error, (WorkerDiedError, TimeLimitExceeded)):
                self._take_death(chunk, rest, job, settlement.error, data)
            elif settlement.error is not None and job.attempts:
                # They were run, and what they came to could not be taken in.
                self._fail(rest, settlement.error)
            elif rest.size > 1:
                # The chunk could not be loaded, because of one of its items.
                self._run_halves(rest)
            else:
                self._record(rest.first, _Entry(1, False, data, settlement.error))
            self._changed.notify_all()

    def _measure(self, job: PoolJob, count: int) -> None:
        """Note how long a chunk took; what was noted before counts for half."""
        self._run_s = self._run_s / 2 + max(0.0, job.finished - job.started)
        self._run_items = self._run_items / 2 + max(1, count)

    def _take_piece(self, chunk: _Chunk, data: bytes | Parcel) -> None:
        offset = chunk.items.first
        for first, count, ok, content in load_piece(data):
            number = offset + first
            if number > chunk.next and chunk.lost is not None:
                self._fail(chunk.items.part(chunk.next, number), chunk.lost)
            chunk.next = number + count
            if not count:
                break  # the end of those that were begun
            if not ok and self._retry_on and not self._stopped and self._may_retry(number):
                self._to_judge.append((chunk.items.part(number, number + 1), content))
            else:
                self._record(number, _Entry(count, ok, content))
        self._changed.notify_all()

    def _may_retry(self, number: int) -> bool:
        attempts = self._attempts.get(number, 0) + 1
        self._attempts[number] = attempts
        return attempts <= self._retries

    def _take_death(self, chunk: _Chunk, rest: Items, job: PoolJob, error: JobRunnerError, cause: bytes | None) -> None:
        """The worker died, or was ended, with `rest` of the chunk not known to be done."""
        items = chunk.items
        victim = items.first + (-1 if job.item is None else job.item)
        if not job.attempts:
            # No worker could be started.
            self._record(rest.first, _Entry(rest.size, False, cause, error))
        elif rest.size == 1:
            self._take_death_of(rest, error)
        elif rest.first <= victim < rest.end:
            if victim + 1 < rest.end:
                self._run_again(rest.part(victim + 1, rest.end))
            self._take_death_of(rest.part(victim, victim + 1), error)
            if rest.first < victim:
                self._run_again(rest.part(rest.first, victim))
        elif rest.first < (done := victim - items.size) <= rest.end:
            # It happened to the results, of items that were done: one of them may be to blame.
            if done < rest.end:
                self._run_again(rest.part(done, rest.end))
            for number in reversed(range(rest.first, done)):
                self._run_again(rest.part(number, number + 1))
        else:
            # No item was in work: the chunk was being loaded.
            self._run_halves(rest)

    def _take_death_of(self, item: Items, error: JobRunnerError) -> None:
        died = isinstance(error, WorkerDiedError) and not isinstance(error, MemoryLimitExceeded)
        if (died or isinstance(error, self._retry_on)) and self._may_retry(item.first):
            self._run_again(item)
        else:
            self._fail(item, error)

    # --- any thread, under _changed ---

    def _run_again(self, items: Items) -> None:
        """Hand in items before all others, and not together with others."""
        if self._stopped:
            self._fail(items, JobCancelledError("the call of map() was cancelled"))
            return
        self._again.appendleft(items)
        self._unsent += items.size
        self._changed.notify_all()

    def _run_halves(self, items: Items) -> None:
        middle = items.first + items.size // 2
        self._run_again(items.part(middle, items.end))
        self._run_again(items.part(items.first, middle))

    def _fail_waiting(self, error: Exception) -> None:
        for items in (*self._again, *self._waiting):
            self._fail(items, error)
        self._again.clear()
        self._waiting.clear()
        self._unsent = 0
        self._changed.notify_all()

    def _fail(self, items: Items, error: Exception) -> None:
        self._record(items.first, _Entry(items.size, False, None, error))

    def _record(self, number: int, entry: _Entry) -> None:
        self._attempts.pop(number, None)
        self._entries[number] = entry
        self._changed.notify_all()


def _cut(waiting: deque[Items], size: int) -> Items:
    """Take up to `size` items from the first of those that wait."""
    items = waiting.popleft()
    if items.size <= size:
        return items
    middle = items.first + size
    waiting.appendleft(items.part(middle, items.end))
    return items.part(items.first, middle)
