"""Waiting for a short job on the thread that wants it, without the dispatcher between: the quickest way to its result.

::

    worker ──▶ lane's channel ──▶ dispatcher ──▶ who waits            three threads are woken, one after the other
    worker ──▶ lane's channel ──▶ who waits: takes in the outcome     two are

A lane with a single job in it, with nothing else queued, is lent to the thread that waits for that job: the dispatcher
does not listen to its channel meanwhile (to its worker's death and its output it does).  Who reads a channel holds the
pool's lock, so it never matters who does.  A lane is taken back at any time, under the lock, and its attendant woken:
it then waits as everybody does.

Where jobs have been short, the attendant does not sleep at first but looks again and again, for a fraction of a
millisecond, giving way to whatever else wants the core: to be woken takes longer than such a job.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sized
from types import FrameType
from typing import Any

from jobrunner.processes import give_way

try:
    # Those of `signal` make enums of what they take and give, at ten times the cost.
    from _signal import getsignal as _handler_of  # type: ignore[import-not-found,unused-ignore]
    from _signal import signal as _handle
except ImportError:
    from signal import getsignal as _handler_of
    from signal import signal as _handle

__all__ = ["CAN_ATTEND", "Attendant", "Attendants", "signals_postponed"]

#: Whether a thread can wait for two descriptors, of any number.
CAN_ATTEND = hasattr(select, "poll")

_LOOK_S = 0.0002
# What `poll` takes at most, in milliseconds.
_LONGEST_MS = 1 << 30


class Attendant:
    """What a thread needs to listen to a lane, and to be woken from that.  One thread at a time."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)

    def wake(self) -> None:
        """Let `wait` return; takes no lock, may be called from anywhere."""
        with contextlib.suppress(OSError):  # full: it has been woken and has not looked yet
            self._writer.send(b"\0")

    def wait(self, descriptor: int, timeout: float | None, brisk: bool) -> bool:
        """Wait until a descriptor can be read; False if it was woken, or after `timeout` seconds (None: never).

        Args:
            descriptor: of a channel.
            timeout: seconds.
            brisk: whether to look for a moment before going to sleep.
        """
        if descriptor < 0:
            return False  # it was taken back and closed before we came to it
        poll = self._poll
        poll.register(descriptor, select.POLLIN)
        try:
            found: list[tuple[int, int]] = []
            if brisk:
                look = poll.poll
                until = time.monotonic() + (_LOOK_S if timeout is None else min(timeout, _LOOK_S))
                while not (found := look(0)) and time.monotonic() < until:
                    give_way()
            if not found:
                found = poll.poll(None if timeout is None else min(int(timeout * 1000) + 1, _LONGEST_MS))
        finally:
            with contextlib.suppress(KeyError):
                poll.unregister(descriptor)
        if len(found) == 1 and found[0][0] == descriptor:
            return True
        with contextlib.suppress(OSError):
            self._reader.recv(4096)
        return False

    def close(self) -> None:
        """Release everything."""
        self._reader.close()
        self._writer.close()


class Attendants:
    """The attendants of one pool that nobody uses just now; any thread may ask, at any time.

    It needs no lock: what is given back while it is closed is closed by one or the other.
    """

    def __init__(self) -> None:
        self._idle: list[Attendant] = []
        self._closed = False

    def take(self) -> Attendant | None:
        """An attendant; None where descriptors have run out: its thread waits as everybody does."""
        try:
            return self._idle.pop()
        except IndexError:
            pass
        try:
            return Attendant()
        except OSError:
            return None

    def give_back(self, attendant: Attendant) -> None:
        """Keep an attendant for the next who wants one, until all is over."""
        self._idle.append(attendant)
        if self._closed:
            self.close()

    def close(self) -> None:
        """Release those that are not in use now, and the others when they are given back."""
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()


@contextlib.contextmanager
def signals_postponed(told: Callable[[], None]) -> Iterator[Sized]:
    """On the main thread, have Python's signal handlers wait until the block is left, which they must not cut short.

    A handler may raise, as that of Ctrl-C does, at any point: in the midst of what must be done whole.

    Args:
        told: called when a signal has come, so that the block is left soon.

    Yields:
        What has come so far.
    """
    came: list[tuple[int, FrameType | None]] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def note(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))
        told()

    handlers: list[tuple[int, Any]] = []
    try:
        for number, handler in _handled():
            handlers.append((number, handler))
            _handle(number, note)
        yield came
    finally:
        _put_back(handlers, came)


def _put_back(handlers: list[tuple[int, Any]], came: list[tuple[int, FrameType | None]]) -> None:
    """Put signal handlers back, and call those whose signals have come: all of them, whatever one of them raises."""
    kept = dict(handlers)
    raised: BaseException | None = None
    # The first to be replaced, that of Ctrl-C, is the last to be put back: what is in between is done whole.
    while handlers or came:
        try:
            while handlers:
                _handle(*handlers[-1])
                handlers.pop()
            while came:
                number, frame = came.pop(0)
                kept[number](number, frame)
        except BaseException as error:  # of a handler
            if raised is not None and error.__context__ is None:
                error.__context__ = raised
            raised = error
    if raised is not None:
        raise raised


#: All signals, that of Ctrl-C first.
_NUMBERS = sorted(map(int, signal.valid_signals()), key=lambda number: (number != signal.SIGINT, number))
# The handlers of all signals as they were found last, and those that are Python's.
_found: tuple[list[Any], list[tuple[int, Any]]] = ([], [])


def _handled() -> list[tuple[int, Any]]:
    """The signals that have a handler in Python, with it; to be called on the main thread."""
    handlers = list(map(_handler_of, _NUMBERS))
    if handlers != _found[0]:
        handled = [(number, handler) for number, handler in zip(_NUMBERS, handlers, strict=True) if callable(handler)]
        globals().update(_found=(handlers, handled))
    return _found[1]
