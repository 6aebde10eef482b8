"""What the machine itself takes: an echo, a copy, the work in plain processes, the end of a process.

No pool can do better, for it does at least as much.
"""

from __future__ import annotations

import operator
import os
import pickle
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import cloudpickle

__all__ = ["NO_OP", "Echo", "Plain", "end_of_process", "pipelined"]

#: The bytes of a job that does nothing.
NO_OP: bytes = cloudpickle.dumps((operator.neg, (1,), {}))

_clock = time.perf_counter

_CODE = "from benchmarks.plain import main; main()"
# So many messages are under way to each process before their answers are awaited.
_WINDOW = 64


class Echo:
    """A process that sends back what it is sent, over a socket pair.

    Args:
        place: where it runs: on an ``"other"`` core than this thread, on the ``"same"``, or on ``"any"``.  Without a
            choice a system puts two that only wait for each other on one core at times, and at times not, which makes
            a tenfold difference.  Where cores can't be chosen, or there is one only, it is any.
    """

    def __init__(self, place: str = "any") -> None:
        self.channel, theirs = socket.socketpair()
        with theirs:
            order = [sys.executable, "-c", _CODE, "echo", str(theirs.fileno()), str(len(NO_OP))]
            self._process = subprocess.Popen(order, pass_fds=(theirs.fileno(),))
        self._cores: set[int] | None = None
        if place != "any" and hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1:
            self._cores = os.sched_getaffinity(0)
            here, there, *_ = sorted(self._cores)
            os.sched_setaffinity(0, {here})
            os.sched_setaffinity(self._process.pid, {there if place == "other" else here})

    def __enter__(self) -> Echo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cores is not None:
            os.sched_setaffinity(0, self._cores)
        self.channel.close()
        self._process.kill()
        self._process.wait()

    def round_trip(self, message: bytes) -> None:
        """Send a message, and wait until it is back."""
        self.channel.send(message)
        self.receive(len(message))

    def median(self, messages: int) -> float:
        """The median of so many round trips of a no-op's bytes, in seconds."""
        for _ in range(50):
            self.round_trip(NO_OP)
        times = []
        for _ in range(messages):
            began = _clock()
            self.round_trip(NO_OP)
            times.append(_clock() - began)
        return statistics.median(times)

    def receive(self, size: int) -> None:
        """Wait for so many bytes."""
        while size:
            got = len(self.channel.recv(size))
            if not got:
                raise EOFError("the echo has ended")
            size -= got


def pipelined(workers: int, messages: int) -> float:
    """Seconds for so many messages the size of a no-op, each sent by itself and echoed by one of so many processes."""
    echoes = [Echo() for _ in range(workers)]
    try:
        for echo in echoes:
            echo.round_trip(NO_OP)
        began = _clock()
        left = messages
        while left > 0:
            for echo in echoes:
                for _ in range(_WINDOW):
                    echo.channel.send(NO_OP)
            for echo in echoes:
                echo.receive(_WINDOW * len(NO_OP))
            left -= _WINDOW * workers
        return (_clock() - began) * messages / (messages - left)
    finally:
        for echo in echoes:
            echo.__exit__(None, None, None)


class Plain:
    """So many processes that each do their share of some work, told by a pipe: no pool, no queue.

    They are started before anything else, and wait for nothing but their orders.
    """

    def __init__(self, workers: int) -> None:
        self._processes = [
            subprocess.Popen([sys.executable, "-c", _CODE, "work"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for _ in range(workers)
        ]

    def __enter__(self) -> Plain:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    def run(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> tuple[float, Any]:
        """The seconds that it takes all of them together, and the sum of the results."""
        workers = len(self._processes)
        return self._run([(function, list(arguments[number::workers])) for number in range(workers)])

    def alone(self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> float:
        """The seconds that it takes one of them, the others waiting."""
        return self._run([(function, list(arguments))])[0]

    def _run(self, orders: list[Any]) -> tuple[float, Any]:
        orders = [pickle.dumps(order) for order in orders]
        used = self._processes[: len(orders)]
        began = _clock()
        for process, order in zip(used, orders, strict=True):
            assert process.stdin is not None
            process.stdin.write(order)
            process.stdin.flush()
        total = 0
        for process in used:
            assert process.stdout is not None
            total += pickle.load(process.stdout)
        return _clock() - began, total


def end_of_process() -> float:
    """Seconds from SIGKILL for a process that waits until it has been reaped."""
    with subprocess.Popen(
        [sys.executable, "-c", _CODE, "work"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as waiting:
        assert waiting.stdin is not None
        assert waiting.stdout is not None
        waiting.stdin.write(pickle.dumps((operator.neg, [(1,)])))
        waiting.stdin.flush()
        pickle.load(waiting.stdout)
        began = _clock()
        os.kill(waiting.pid, signal.SIGKILL)
        waiting.wait()
        return _clock() - began
