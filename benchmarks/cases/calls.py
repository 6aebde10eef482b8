"""What a job costs that does nothing, and what a pool costs that does nothing.

What the jobs run is importable from the standard library (``operator.neg``), so that no peer pays for a function sent
by value, nor for an import in its workers.
"""

from __future__ import annotations

import operator
import statistics
import sys
import time

from benchmarks import machine
from benchmarks.cases import idling
from benchmarks.cases.base import Case, Figure, Measured, Scale, clock
from benchmarks.peers import ALL_PEERS, Peer

__all__ = ["CASES"]


def _round_trip(peer: Peer, scale: Scale) -> Measured:
    times = []
    for _ in range(peer.pace.round_trips_of(scale.round_trips)):
        began = clock()
        peer.result(peer.submit(operator.neg, 1))
        times.append(clock() - began)
    return Measured({"": statistics.median(times)})


def _echo(workers: int, scale: Scale) -> Measured:
    with machine.Echo("other") as echo:
        across = echo.median(scale.round_trips)
    with machine.Echo("same") as echo:
        return Measured({"": across, "one_core": echo.median(scale.round_trips)})


def _throughput(peer: Peer, scale: Scale) -> Measured:
    jobs = peer.pace.jobs_of(scale.jobs)
    began = clock()
    results = peer.run(operator.neg, [(number,) for number in range(jobs)])
    seconds = clock() - began
    if sum(results) != -jobs * (jobs - 1) // 2:
        raise AssertionError("wrong results")
    return Measured({"": seconds / jobs}, "" if peer.queues else "handed in as one batch: not counted as the best")


def _pipelined_echo(workers: int, scale: Scale) -> Measured:
    return Measured({"": machine.pipelined(workers, scale.jobs) / scale.jobs})


def _map(peer: Peer, scale: Scale) -> Measured:
    items = peer.pace.items_of(scale.items)
    sum(peer.map(operator.neg, range(100)))
    began = clock()
    total = sum(peer.map(operator.neg, range(items)))
    seconds = clock() - began
    if total != -items * (items - 1) // 2:
        raise AssertionError("map() gave wrong results")
    return Measured({"": seconds / items})


def _map_in_line(workers: int, scale: Scale) -> Measured:
    began = clock()
    sum(map(operator.neg, range(scale.items)))
    return Measured({"": (clock() - began) / scale.items})


def _idle(peer: Peer, scale: Scale) -> Measured:
    time.sleep(scale.idle_s / 2)
    before = idling.look()
    time.sleep(scale.idle_s)
    cpu_s, wake_ups = idling.since(before)
    return Measured(
        {
            "memory": idling.memory_of_children() / peer.workers,
            "cpu": cpu_s / scale.idle_s,
            "wake_ups": wake_ups / scale.idle_s,
        }
    )


def _needs_proc(peer: type[Peer]) -> str:
    return "" if sys.platform == "linux" else "needs /proc"


CASES = (
    Case(
        name="idle",
        figures=(
            Figure(name="memory", title="memory (PSS) of all that an idle pool has started, by worker", unit="MB"),
            Figure(
                name="cpu", title="CPU time of the caller and all it has started, workers up and idle", unit="share"
            ),
            Figure(name="wake_ups", title="context switches in the caller, workers up and idle", unit="count/s"),
        ),
        measure=_idle,
        sitting="calls",
        skips=_needs_proc,
    ),
    Case(
        name="round_trip",
        figures=(
            Figure(
                title="no-op handed in and waited for, warm; limit: echo of its bytes by a socket pair, across cores",
                unit="µs",
            ),
            Figure(name="one_core", title="... that echo on one core", unit="µs"),
        ),
        measure=_round_trip,
        limit=_echo,
        sitting="calls",
    ),
    Case(
        name="throughput",
        figures=(
            Figure(title="no-ops handed in one by one, then waited for; limit: echoes, a window at a time", unit="/s"),
        ),
        measure=_throughput,
        limit=_pipelined_echo,
        sitting="calls",
        apart=frozenset(name for name, peer in ALL_PEERS.items() if not peer.queues),
    ),
    Case(
        name="map",
        figures=(Figure(title="no-op items through map, results in order; limit: map in the caller", unit="/s"),),
        measure=_map,
        limit=_map_in_line,
        sitting="calls",
    ),
)
