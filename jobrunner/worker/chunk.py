"""Running many items of one function as one job.

What is done is sent at least every 5 ms, and the item in work stands in the progress page, so that a death costs the
item that was running, and at most the last 5 ms of the others' work is done again.

A no-op takes less time than a line of Python.  So items are run together, as many as take some 25 microseconds, by
iterators written in C alone, each drawing on the one before::

    arguments ──▶ compress ──▶ map(function) ──▶ filter(values.append)
                     ▲
    numbers ─────▶ map(readinto)           an item's number is in the progress page before its function is called

Where that comes to its end, for whatever reason, the number and the results tell: so many were begun, so many have
returned, and if one was begun that has not returned, it is the one that raised.
"""

from __future__ import annotations

import functools
import io
import operator
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import compress, repeat, starmap
from typing import Any, NamedTuple

from jobrunner.errors import SerializationError
from jobrunner.handover import ProgressPage
from jobrunner.parcel import Parcel
from jobrunner.serialization import dump_exception, dump_piece, dump_result, dump_result_apart
from jobrunner.worker.touched import Touched

__all__ = ["Plan", "run_chunk"]

_FLUSH_AFTER_NS = 5_000_000
# After an item that took longer it is looked at what it has changed of the process.
_TIDY_AFTER_NS = 50_000
# How long items that are run together should take: half of that, so that the clock tells if one of them took longer.
_TOGETHER_NS = 25_000
# How many times more items are run together than before, at most: the time of a few tells little.
_GROWTH = 8
# Items whose numbers are made at a time.
_BLOCK = 1 << 12

_ITEM_WORD, _TIME_WORD = ProgressPage.ITEM, ProgressPage.ITEM_NS
_WORD_BYTES = 8
# A bound `__setitem__` takes a third longer.
_set_item: Callable[..., None] = operator.setitem


class Plan(NamedTuple):
    """How a chunk is to be run.

    timed: whether the time at which each item is begun is to stand in the progress page.
    spend_ns: after which time no further item is begun; 0: all are.
    """

    timed: bool
    spend_ns: int


def run_chunk(
    function: Callable[..., Any],
    plan: tuple[bool, int],
    columns: Sequence[Sequence[Any]],
    words: memoryview,
    send: Callable[[bytes | Parcel], None],
    touched: Touched,
    tidy: Callable[[int], None],
    interrupted: Callable[[], bool],
) -> bytes | Parcel:
    """Run `function` over items.

    Args:
        function: what to call.
        plan: the fields of a `Plan`.
        columns: the arguments of the calls: a column for each parameter, all of the same length.
        words: the words of the progress page.
        send: sends a piece: what is done so far and was not sent before.
        touched: notes the functions that an item calls.
        tidy: puts back what an item has changed of the process; told how long that took, in nanoseconds.
        interrupted: whether the job is being ended, and an item was told so by an interrupt.

    Returns:
        The last piece.  A piece is the pickle of a list of ``(first, count, ok, data)``: `count` items from number
        `first` on that went well, with the pickled list of their results; or one item that failed, with its pickled
        exception.  The last piece ends with an entry of no items, at the first that was not begun.

    Raises:
        SystemExit: an item asked its process to end; what was done before it has been sent.
        BaseException: an interrupt; the item that it was meant for is the one in work in the progress page.
    """
    timed, spend_ns = plan
    first, *others = columns
    marks = _Marks(words, timed)
    done = _Done(len(first), words, send)
    values = done.values
    clock = time.perf_counter_ns
    number, size, marked = 0, 1, 0
    started = sent = now = clock()
    touched.on_call = marks.stop
    try:
        while number < done.count:
            if number == marked or marks.stopped:
                marked = min(marks.begin(number), done.count)
            end = number + size
            if end > marked:
                end = marked
            before = len(values)
            begun = compress(first[number:end], marks.each)
            calls = map(function, begun, *[column[number:end] for column in others]) if others else map(function, begun)
            try:
                # `append` returns nothing true: this runs to the end.  It is `next`, and no loop: a StopIteration that
                # an item raises would be the end of a loop, and lost.
                next(filter(values.append, calls))
            except BaseException as error:
                ran, begin, number = len(values) - before, number, words[_ITEM_WORD]
                if ran < number - begin:
                    done.fail(number - 1, error)
                elif type(error) is not StopIteration:
                    raise  # an interrupt, between two items
            last, now = now, clock()
            took = now - last
            if marks.stopped and interrupted():
                raise KeyboardInterrupt("the job is being ended")  # whatever the item has made of it
            if touched.any or took > _TIDY_AFTER_NS:
                tidy(took)
                now = clock()
            if now - sent > _FLUSH_AFTER_NS:
                done.send(number)
                words[_ITEM_WORD] = number
                sent = now = clock()
            if spend_ns and now - started > spend_ns:
                break
            wanted = _TOGETHER_NS * (number - begin) // (took or 1)
            size = min(wanted, _GROWTH * size) or 1
    finally:
        touched.on_call = None
    return done.last_piece(number)


class _Marks:
    """Writes the numbers of items into the progress page, without a line of Python for each.

    Args:
        words: the words of the page.
        timed: whether to write the time before each.

    Attributes:
        each: an iterator; before each value it writes the number of the next item.  The values are true until it is
            stopped, or comes to the end of a block of items.
        stopped: whether it is stopped.
    """

    def __init__(self, words: memoryview, timed: bool) -> None:
        word = words.cast("B")[_ITEM_WORD * _WORD_BYTES :][:_WORD_BYTES]
        self._words: Iterator[memoryview] = repeat(word)
        if timed:
            times = starmap(time.monotonic_ns, repeat(()))
            written = map(_set_item, repeat(words), repeat(_TIME_WORD), times)
            self._words = map({None: word}.__getitem__, written)
        self._numbers = io.BytesIO()
        self.each: Iterator[int] = iter(())
        self.stopped = False

    def begin(self, number: int) -> int:
        """Let item `number` be the next, counted from 0; returns the end of its block."""
        block, offset = divmod(number, _BLOCK)
        self._numbers = _numbers(block)
        self._numbers.seek(offset * _WORD_BYTES)
        self.each = map(self._numbers.readinto, self._words)
        self.stopped = False
        return (block + 1) * _BLOCK

    def stop(self) -> None:
        """No item is begun after the one in work."""
        self.stopped = True
        self._numbers.seek(0, io.SEEK_END)


@functools.lru_cache(maxsize=16)
def _numbers(block: int) -> io.BytesIO:
    """The numbers of the items of a block, counted from 1, as they stand in a word."""
    first = block * _BLOCK + 1
    return io.BytesIO(array("Q", range(first, first + _BLOCK)).tobytes())


class _Done:
    """What was done and not yet sent.

    While results are pickled, which is code of theirs, the item in work is one beyond all: that it is none, and how
    many were done.

    Args:
        count: items in the chunk.
        words: the words of the progress page.
        send: sends a piece.

    Attributes:
        count: items in the chunk.
        values: the results of the items that were done last, one after the other.
    """

    def __init__(self, count: int, words: memoryview, send: Callable[[bytes | Parcel], None]) -> None:
        self.count = count
        self.values: list[Any] = []
        self._words = words
        self._send = send
        self._piece: list[tuple[int, int, bool, bytes | Parcel]] = []

    def fail(self, number: int, error: BaseException) -> None:
        """Note that item `number` has raised.

        Raises:
            SystemExit: it was that.
        """
        self._close_run(number)
        if isinstance(error, SystemExit):
            self.send(number)
        # If its exception can't stand being pickled, or ends the process, that is this item's death.
        self._words[_ITEM_WORD] = number + 1
        if isinstance(error, SystemExit):
            raise error
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            error.__traceback__ = error.__traceback__.tb_next  # begins in the user's function
        self._piece.append((number, 1, False, dump_exception(error)))

    def send(self, end: int) -> None:
        """Send what is known of the items before number `end`."""
        self._send(self.piece(end))

    def piece(self, end: int) -> bytes | Parcel:
        """What is known of the items before number `end`, to be sent at once: large buffers are the values' own."""
        self._close_run(end, dump_result_apart)
        data = dump_piece(self._piece)
        self._piece = []
        return data

    def last_piece(self, end: int) -> bytes | Parcel:
        """The same, with an entry of no items at the end, by which it is seen if a piece before was lost."""
        self._close_run(end, dump_result_apart)
        self._piece.append((end, 0, True, b""))
        return self.piece(end)

    def _close_run(self, end: int, dump: Callable[[object], bytes | Parcel] = dump_result) -> None:
        """Move the results in `values`, those of the items before number `end`, into the piece."""
        self._words[_TIME_WORD] = time.monotonic_ns()
        self._words[_ITEM_WORD] = self.count + 1 + end
        values = self.values
        if not values:
            return
        first = end - len(values)
        try:
            self._piece.append((first, len(values), True, dump(values)))
        except SerializationError:
            # One of them can't cross: find out which, and let the others.
            for number, value in enumerate(values, first):
                try:
                    self._piece.append((number, 1, True, dump([value])))
                except SerializationError as error:
                    self._piece.append((number, 1, False, dump_exception(error)))
        values.clear()
