"""Jobs that print while nobody reads it: they wait, and nobody else does; what is not read yet takes little memory."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest

from jobrunner import gather, wait
from jobrunner.cluster.forwarder import AHEAD_BYTES, WRITTEN_BYTES, Forwarder
from jobrunner.executors.services import services
from tests.cluster.engines import NearbyExecutor
from tests.core.gates import Gate, arrive, arrive_and_stay, meet

GIB = 1 << 30
#: A line, and how many are more than anything on the way takes.
LINE_BYTES = 100
MANY = 8 * AHEAD_BYTES // LINE_BYTES


class Terminal:
    """What stands in the place of this process's stdout, and of which is read what a test wants to."""

    def __init__(self, reader: int) -> None:
        self._reader = reader

    def read(self, count: int) -> bytes:
        """The next so many bytes."""
        data = bytearray()
        while len(data) < count:
            data += os.read(self._reader, min(1 << 16, count - len(data)))
        return bytes(data)


@contextlib.contextmanager
def unread_terminal() -> Iterator[Terminal]:
    """Have nobody read this process's stdout but the test; what it leaves unread is lost."""
    # What a job of another test has printed may have ended within a line, which is ended first.
    services().writer.print(1, b"\n", None)
    services().writer.drain()
    kept = os.dup(1)
    reader, fd = os.pipe()
    os.dup2(fd, 1)
    os.close(fd)
    try:
        yield Terminal(reader)
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(reader)


@pytest.fixture
def executor() -> Iterator[NearbyExecutor]:
    """An executor on a node with four places, whose workers have begun."""
    with NearbyExecutor({"one": GIB}, cores=4) as made:
        gather([made.submit(pow, 2, 3) for _ in range(4)])
        yield made


def print_lines(first: int, count: int) -> int:
    """Print numbered lines of LINE_BYTES each."""
    written = 0
    for start in range(first, first + count, 600):
        numbers = range(start, min(start + 600, first + count))
        data = b"".join(b"%*d\n" % (LINE_BYTES - 1, number) for number in numbers)
        while data:
            done = os.write(1, data)
            written, data = written + done, data[done:]
    return written


def arrive_and_print(gate: str, count: int) -> int:
    arrive(gate)
    return print_lines(0, count)


def print_for_ever(gate: str) -> None:
    arrive(gate)
    while True:
        print_lines(0, 600)


def print_and_meet(gate: str) -> None:
    print("early", flush=True)
    meet(gate)


def meet_and_warn(gate: str) -> None:
    meet(gate)
    logging.getLogger("tests").warning("mind the step")


def _waiting(executor: NearbyExecutor) -> tuple[int, int]:
    """How many bytes that were printed wait in the caller, and how many there and at the node together."""
    return services().writer.backlog, executor.link._nodes["one"]._forwarder.backlog


def _numbers(text: bytes) -> list[int]:
    return [int(line) for line in text.splitlines()]


def _run_quiet_ones(executor: NearbyExecutor) -> None:
    """Run jobs that print nothing, one after the other: those that print have the time to do so."""
    for number in range(200):
        assert executor.submit(pow, number, 2).result(timeout=60) == number**2


def test_what_nobody_reads_takes_little_memory_and_holds_up_those_alone_who_print_it(
    executor: NearbyExecutor, gate: Gate
) -> None:
    with unread_terminal() as terminal:
        early = executor.submit(print_and_meet, gate.path)
        gate.await_arrival()
        assert terminal.read(6) == b"early\n"
        printing = executor.submit(arrive_and_print, gate.path, MANY)
        held = executor.submit(arrive_and_stay, gate.path)
        gate.await_arrival(2)
        _run_quiet_ones(executor)
        captured = executor.with_options(capture_output=True).submit(print_lines, 0, 3)
        assert captured.result(timeout=60) == 3 * LINE_BYTES
        output = captured.output()
        assert output is not None
        assert _numbers(output.stdout.encode()) == [0, 1, 2]
        gate.release()
        early.result(timeout=60)
        assert held.cancel()
        at_caller, in_all = _waiting(executor)
        assert at_caller <= AHEAD_BYTES + (1 << 17)
        assert in_all <= AHEAD_BYTES + (1 << 19)
        assert not printing.done()
        assert executor.stats()["restarts"] == 0
        assert _numbers(terminal.read(MANY * LINE_BYTES)) == list(range(MANY))
        assert printing.result(timeout=60) == MANY * LINE_BYTES


def test_a_job_that_prints_what_nobody_reads_can_be_cancelled(executor: NearbyExecutor, gate: Gate) -> None:
    with unread_terminal() as terminal:
        printing = executor.submit(print_for_ever, gate.path)
        gate.await_arrival()
        terminal.read(2 * AHEAD_BYTES)
        _run_quiet_ones(executor)
        assert printing.cancel()
        _run_quiet_ones(executor)
        at_caller, in_all = _waiting(executor)
        assert at_caller <= AHEAD_BYTES + (1 << 17)
        assert in_all <= AHEAD_BYTES + (1 << 19)


def test_many_jobs_that_each_print_little_are_held_up_too(
    executor: NearbyExecutor, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    lines, count = 500, 200
    with NearbyExecutor({"other": GIB}) as other, unread_terminal() as terminal:
        warning = executor.submit(meet_and_warn, gate.path)
        gate.await_arrival()
        jobs = [executor.submit(print_lines, number * lines, lines) for number in range(count)]
        while _waiting(executor)[1] < AHEAD_BYTES:
            wait([jobs[-1]], timeout=0.01)
        _run_quiet_ones(other)
        # At the node waits what those have printed that it was sent ahead.
        assert _waiting(executor)[0] <= AHEAD_BYTES + (1 << 17)
        gate.release()
        warning.result(timeout=60)
        assert "mind the step" in caplog.text
        assert sorted(_numbers(terminal.read(count * lines * LINE_BYTES))) == list(range(count * lines))
        assert gather(jobs) == [lines * LINE_BYTES] * count


def _text(count: int) -> bytes:
    return bytes(count)


def test_what_is_not_written_is_held_back_in_order_with_what_must_come_after() -> None:
    told: list[Any] = []
    forwarder = Forwarder(told.append)
    pieces = [_text(AHEAD_BYTES), b"second\n", b"third\n"]
    forwarder.put(lambda: told.append("at once"))
    assert forwarder.has_room(lambda: None)
    first = forwarder.print(1, pieces[0], "someone")
    assert forwarder.done == first
    assert not forwarder.has_room(lambda: told.append("room"))
    second = forwarder.print(1, pieces[1], "someone")
    forwarder.put(lambda: told.append("after the second"))
    third = forwarder.print(2, pieces[2], "another")
    forwarder.put(lambda: told.append("captured"), 8)
    assert forwarder.done == first < second < third
    assert told == ["at once", ("printed", 1, pieces[0], first), "captured"]
    del told[:]
    forwarder.written(WRITTEN_BYTES)
    texts = [("printed", 1, pieces[1], second), ("printed", 2, pieces[2], third)]
    assert told == [*texts, "after the second", "room"]
    assert forwarder.done == third == forwarder.handed
    assert forwarder.backlog == AHEAD_BYTES - WRITTEN_BYTES + len(pieces[1]) + len(pieces[2])


def test_at_the_end_nothing_is_held_back() -> None:
    told: list[Any] = []
    forwarder = Forwarder(told.append)
    for _ in range(3):
        forwarder.print(1, _text(AHEAD_BYTES), "someone")
    forwarder.put(lambda: told.append("after"))
    assert len(told) == 1
    forwarder.close()
    assert len(told) == 4
    assert told[-1] == "after"
    forwarder.print(1, b"more\n", "someone")
    assert len(told) == 5
