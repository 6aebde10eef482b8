"""What large arguments and results cost, beyond their job.

Everything that is sent was made anew, as a library may keep what it has sent before; and who receives it reads a number
of every page, as a library may map memory and fetch it later.
"""

from __future__ import annotations

import pickle
import statistics
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from benchmarks import machine
from benchmarks.cases.base import Case, Figure, Measured, Scale, clock, needs
from benchmarks.peers import Peer
from benchmarks.work import array, count, nested, touch

__all__ = ["CASES", "HUGE", "HUGE_NAME", "SIZES"]

#: Bytes of the arrays that are sent as each other's like, by name.
SIZES: dict[str, int] = {"1kB": 1 << 10, "64kB": 64 << 10, "1MB": 1 << 20, "64MB": 64 << 20}

#: ... and of that which takes long.
HUGE = 256 << 20
HUGE_NAME = "256MB"

_OBJECT = "object"

#: What a shared argument is handed to; where it is sent with every job, and takes long, fewer.
_SHARING_JOBS = 16
_FEW_JOBS = 4


class _Kind:
    """Arrays of a size, or nested objects of so many entries: how they are made, and read."""

    def __init__(self, name: str, amount: int, transfers: int) -> None:
        self.name = name
        self.nested = name == _OBJECT
        self.reader: Callable[..., int] = count if self.nested else touch
        self.maker: Callable[[int], Any] = nested if self.nested else array
        self.amount = amount
        self.transfers = transfers
        self._made = 0

    @property
    def takes_long(self) -> bool:
        """Whether it is better not sent often."""
        return self.nested or self.amount > 1 << 20

    def fresh(self) -> tuple[Any, int]:
        """One that nobody has seen, and what the reader finds in it."""
        self._made += 1
        # Not what is kept: another.
        value = nested.__wrapped__(self.amount) if self.nested else array(self.amount) + self._made
        return value, self.reader(value)


def _kinds(scale: Scale, peer: Peer | None = None) -> Iterator[_Kind]:
    many = scale.transfers if peer is None else peer.pace.round_trips_of(scale.transfers)
    for name, size in SIZES.items():
        if size <= scale.largest:
            yield _Kind(name, size, many if size < 1 << 20 else max(2, many // 4) if size == 1 << 20 else 2)
    yield _Kind(_OBJECT, scale.entries, 1)


def _huge(scale: Scale) -> _Kind:
    return _Kind("", min(HUGE, scale.largest), 1)


def _check(found: int, expected: int) -> None:
    if found != expected:
        raise AssertionError(f"{found} arrived instead of {expected}")


def _argument(peer: Peer, kind: _Kind) -> float:
    times = []
    for _ in range(1 + kind.transfers):
        value, expected = kind.fresh()
        began = clock()
        found = peer.result(peer.submit(kind.reader, value))
        times.append(clock() - began)
        _check(found, expected)
    return statistics.median(times[1:])


def _result(peer: Peer, kind: _Kind) -> float:
    expected = kind.reader(kind.maker(kind.amount))
    # The workers make it once, and keep it.
    peer.run(kind.maker, [(kind.amount,)] * peer.workers)
    times = []
    for _ in range(kind.transfers):
        began = clock()
        found = kind.reader(peer.result(peer.submit(kind.maker, kind.amount)))
        times.append(clock() - began)
        _check(found, expected)
    return statistics.median(times)


def _shared(peer: Peer, kind: _Kind) -> float:
    """Seconds a job; after a round for the warmth, which is short where every job is sent its own."""
    few = _few(peer, kind)
    first = 1 if kind.takes_long and not peer.shares else _SHARING_JOBS
    rounds = 1 if kind.takes_long else max(1, kind.transfers // 10)
    times = []
    for jobs in (first, *[_FEW_JOBS if few else _SHARING_JOBS] * rounds):
        value, expected = kind.fresh()
        began = clock()
        handle = peer.share(value)
        found = peer.run(kind.reader, [(handle, index) for index in range(jobs)])
        times.append((clock() - began) / jobs)
        del handle
        for each in found:
            _check(each, expected)
    return statistics.median(times[1:])


def _few(peer: Peer, kind: _Kind) -> bool:
    """Whether fewer jobs must do, each of which is sent its own."""
    return not peer.shares and (kind.nested or kind.amount > SIZES["64MB"])


def _copy(kind: _Kind) -> float:
    """The least time for delivering it once: a copy into memory that is warm; nested objects, through pickle."""
    value, expected = kind.fresh()
    if kind.nested:
        began = clock()
        found = kind.reader(pickle.loads(pickle.dumps(value, protocol=5)))
        seconds = clock() - began
    else:
        into = array(kind.amount).copy()
        times = []
        for _ in range(3):
            began = clock()
            into[:] = value
            found = kind.reader(into)
            times.append(clock() - began)
        seconds = statistics.median(times)
    _check(found, expected)
    return seconds


def _delivery(echo: machine.Echo, workers: int, kind: _Kind) -> float:
    """An echo, for the job, and a copy."""
    return echo.median(200) + _copy(kind)


def _shared_delivery(echo: machine.Echo, workers: int, kind: _Kind) -> float:
    """One copy for all, and for each an echo and reading it."""
    value, _ = kind.fresh()
    began = clock()
    kind.reader(value)
    reading = clock() - began
    return _copy(kind) / _SHARING_JOBS + (echo.median(200) + reading) / workers


def _needs_numpy(peer: type[Peer]) -> str:
    return needs("numpy")


def _cases(
    name: str,
    title: str,
    measure: Callable[[Peer, _Kind], float],
    limit: Callable[[machine.Echo, int, _Kind], float],
    note: Callable[[Peer], str] = lambda peer: "",
) -> tuple[Case, Case]:
    """The case for most sizes, and that for the one that takes long."""

    def limits(workers: int, kinds: Iterable[_Kind]) -> Measured:
        with machine.Echo("other") as echo:
            return Measured({kind.name: limit(echo, workers, kind) for kind in kinds})

    figures = [Figure(name=size, title=title.format(f"{size} array"), unit="ms") for size in SIZES]
    usual = Case(
        name=name,
        figures=(*figures, Figure(name=_OBJECT, title=title.format("nested object"), unit="ms")),
        measure=lambda peer, scale: Measured(
            {kind.name: measure(peer, kind) for kind in _kinds(scale, peer)}, note(peer)
        ),
        limit=lambda workers, scale: limits(workers, _kinds(scale)),
        sitting="data",
        skips=_needs_numpy,
    )
    huge = Case(
        name=f"{name}_{HUGE_NAME}",
        figures=(Figure(title=title.format(f"{HUGE_NAME} array"), unit="ms"),),
        measure=lambda peer, scale: Measured({"": measure(peer, _huge(scale))}, note(peer)),
        limit=lambda workers, scale: limits(workers, [_huge(scale)]),
        sitting="huge",
        skips=_needs_numpy,
        peer_turns=1,
    )
    return usual, huge


def _all() -> Iterator[Case]:
    few = f"256MB and object: {_FEW_JOBS} jobs"
    families = (
        _cases("argument", "{} as an argument, and read; limit: echo and copy", _argument, _delivery),
        _cases("result", "{} as a result, and read; limit: echo and copy", _result, _delivery),
        _cases(
            "shared",
            f"{{}} shared by {_SHARING_JOBS} jobs, and read, a job; limit: one copy, an echo a job",
            _shared,
            _shared_delivery,
            lambda peer: "" if peer.shares else f"sent with every job; {few}",
        ),
    )
    # Those of a sitting side by side.
    for together in zip(*families, strict=True):
        yield from together


CASES = tuple(_all())
