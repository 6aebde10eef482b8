"""Running many items of one function as one job.

What is done is sent at least every 5 ms, and the item in work stands in the progress page, so that a death costs the
item that was running, and at most the last 5 ms of the others' work is done again.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from typing import Any

from jobrunner.errors import SerializationError
from jobrunner.handover import ProgressPage
from jobrunner.serialization import PROTOCOL, dump_exception, dump_result
from jobrunner.worker.touched import Touched

__all__ = ["run_chunk"]

_FLUSH_AFTER_NS = 5_000_000
# After an item that took longer it is looked at what it has changed of the process.
_TIDY_AFTER_NS = 50_000


def run_chunk(
    function: Callable[..., Any],
    items: Sequence[tuple[Any, ...]],
    words: memoryview,
    send: Callable[[bytes], None],
    touched: Touched,
    tidy: Callable[[int], None],
) -> bytes:
    """Run `function` over `items`, each the arguments of one call.

    Args:
        function: what to call.
        items: a tuple of arguments for each call.
        words: the words of the progress page.
        send: sends a piece: what is done so far and was not sent before.
        touched: notes the functions that an item calls.
        tidy: puts back what an item has changed of the process; told how long that took, in nanoseconds.

    Returns:
        The last piece.  A piece is the pickle of a list of ``(first, count, ok, data)``: `count` items from number
        `first` on that went well, with the pickled list of their results; or one item that failed, with its pickled
        exception.

    Raises:
        SystemExit: an item asked its process to end; what was done before it has been sent.
    """
    piece: list[tuple[int, int, bool, bytes]] = []
    values: list[Any] = []
    clock = time.monotonic_ns
    item_word, time_word = ProgressPage.ITEM, ProgressPage.ITEM_NS
    now = sent = clock()
    for number, item in enumerate(items):
        words[time_word] = now
        words[item_word] = number + 1
        try:
            values.append(function(*item))
        except SystemExit:
            _close_run(piece, values, number)
            send(pickle.dumps(piece, PROTOCOL))
            raise
        except BaseException as error:
            _close_run(piece, values, number)
            if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                error.__traceback__ = error.__traceback__.tb_next  # begins in the user's function
            piece.append((number, 1, False, dump_exception(error)))
        began, now = now, clock()
        if touched.any or now - began > _TIDY_AFTER_NS:
            tidy(now - began)
            now = clock()
        if now - sent > _FLUSH_AFTER_NS:
            _close_run(piece, values, number + 1)
            send(pickle.dumps(piece, PROTOCOL))
            piece = []
            sent = now = clock()
    _close_run(piece, values, len(items))
    words[item_word] = 0
    return pickle.dumps(piece, PROTOCOL)


def _close_run(piece: list[tuple[int, int, bool, bytes]], values: list[Any], end: int) -> None:
    """Move the results in `values`, those of the items before number `end`, into the piece."""
    if not values:
        return
    first = end - len(values)
    try:
        piece.append((first, len(values), True, dump_result(values)))
    except SerializationError:
        # One of them can't cross: find out which, and let the others.
        for number, value in enumerate(values, first):
            try:
                piece.append((number, 1, True, dump_result([value])))
            except SerializationError as error:
                piece.append((number, 1, False, dump_exception(error)))
    values.clear()
