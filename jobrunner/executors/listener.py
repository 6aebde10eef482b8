"""What the dispatcher listens to: channels, deaths, what workers print, and being woken.

One owner, the dispatcher's thread; but `wake` may be called by anybody, at any time.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Iterable
from typing import NamedTuple

from jobrunner.executors.lane import Lane

__all__ = ["Heard", "Listener"]

# What a descriptor is of its lane.
_CHANNEL, _DEATH, _STDOUT, _STDERR = range(4)


# The selectors that keep what they listen to in the kernel.
_CHANGEABLE = tuple(
    getattr(selectors, name) for name in ("EpollSelector", "KqueueSelector") if hasattr(selectors, name)
)

# What every kind of selector can wait for in one go: epoll takes no more than 2**31 milliseconds.
_LONGEST_S = 86400.0


class Heard(NamedTuple):
    """What has happened.

    arrived: lanes whose channel can be read.
    printed: lanes with something on stdout (0) or stderr (1).
    dead: lanes whose worker is dead; each is told once.
    """

    arrived: list[Lane]
    printed: list[tuple[Lane, int]]
    dead: list[Lane]


class Listener:
    """Waits for lanes."""

    def __init__(self) -> None:
        # A byte in it is as good as many.
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader, selectors.EVENT_READ, None)

    def wake(self) -> None:
        """Let `wait` return; takes no lock, for it may be called from anywhere, garbage collection included."""
        try:
            self._writer.send(b"\0")
        except BlockingIOError:
            pass  # it has been woken and has not looked yet
        except OSError:
            pass  # it has ended

    def wait(self, timeout: float | None) -> Heard:
        """Wait until something happens, at most `timeout` seconds (None: as long as it takes)."""
        heard = Heard([], [], [])
        for key, events in self._selector.select(None if timeout is None else min(timeout, _LONGEST_S)):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    self._reader.recv(4096)
                continue
            lane, what = key.data
            if what == _CHANNEL:
                if events & selectors.EVENT_READ:
                    heard.arrived.append(lane)
            elif what == _DEATH:
                self._selector.unregister(key.fileobj)
                heard.dead.append(lane)
            else:
                heard.printed.append((lane, what - _STDOUT))
        return heard

    def listen(self, lane: Lane) -> None:
        """Listen to all of a lane that is up."""
        self._selector.register(lane.fileno(), selectors.EVENT_READ, (lane, _CHANNEL))
        self._selector.register(lane.worker.fileno(), selectors.EVENT_READ, (lane, _DEATH))
        self.listen_to_output(lane)

    @property
    def can_lend(self) -> bool:
        """Whether what is listened to may be changed while the dispatcher is listening."""
        return isinstance(self._selector, _CHANGEABLE)

    def lend(self, lane: Lane) -> None:
        """Do not listen to a lane's channel, which another thread does."""
        self.ignore(lane.fileno())

    def take_back(self, lane: Lane) -> None:
        """Listen to a lane's channel again."""
        with contextlib.suppress(KeyError, ValueError, OSError):  # listened to already, or closed
            self._selector.register(lane.fileno(), selectors.EVENT_READ, (lane, _CHANNEL))

    def listen_to_output(self, lane: Lane) -> None:
        """Listen to what a lane's worker prints."""
        for stream, fd in enumerate(_outputs(lane)):
            self._selector.register(fd, selectors.EVENT_READ, (lane, _STDOUT + stream))

    def ignore_output(self, lane: Lane) -> None:
        """Do not listen to what a lane's worker prints."""
        for fd in _outputs(lane):
            self.ignore(fd)

    def ignore(self, descriptor: int) -> None:
        """Do not listen to a descriptor any more."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(descriptor)

    def forget(self, lane: Lane) -> None:
        """Do not listen to a lane any more."""
        self.ignore(lane.fileno())
        self.ignore(lane.worker.fileno())
        self.ignore_output(lane)

    def watch_for_room(self, lane: Lane, wanted: bool) -> None:
        """Whether to be told as well when the lane's channel takes more."""
        events = selectors.EVENT_READ | selectors.EVENT_WRITE if wanted else selectors.EVENT_READ
        with contextlib.suppress(KeyError, ValueError):  # its channel has closed
            if self._selector.get_key(lane.fileno()).events != events:
                self._selector.modify(lane.fileno(), events, (lane, _CHANNEL))

    def close(self) -> None:
        """Release everything."""
        self._selector.close()
        self.forsake()

    def forsake(self) -> None:
        """In a fork: let go of what wakes the parent's dispatcher."""
        self._reader.close()
        self._writer.close()


def _outputs(lane: Lane) -> Iterable[int]:
    return () if lane.output is None else lane.output.ours
