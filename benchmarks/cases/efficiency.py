"""How much of the cores jobs of a length get: of what they are, and of what as many plain processes get out of them.

Two cores of a virtual machine are rarely twice one, and their speed changes while one looks.  So the pool and the plain
processes take turns, several times in a sample, and what a job takes alone is measured between them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import simulations
from benchmarks.cases.base import Case, Figure, Measured, Scale, clock, needs
from benchmarks.machine import Plain
from benchmarks.peers import Peer
from benchmarks.work import spin

__all__ = ["CASES", "LENGTHS"]

#: The lengths of jobs, in seconds, by their names.
LENGTHS: dict[str, float] = {"0.1ms": 1e-4, "1ms": 1e-3, "10ms": 1e-2, "50ms": 5e-2}

_Function = Callable[..., Any]
_Arguments = Sequence[tuple[Any, ...]]


def _spins_a_second(plain: Plain) -> float:
    """How fast `spin` counts, alone."""
    count = 200_000
    return count / min(plain.alone(spin, [(count,)]) for _ in range(5))


def _jobs(seconds: float, scale: Scale, workers: int) -> int:
    """Jobs for a round: as many for each worker."""
    return workers * max(2, round(scale.work_s / scale.rounds / seconds))


def _sample(
    plain: Plain, peer: Peer | None, workers: int, rounds: int, function: _Function, arguments: _Arguments
) -> tuple[float, float]:
    """Core-seconds for a second of work, and seconds for a second of the plain processes.

    Without a peer, the former is theirs.
    """
    of_cores, of_plain = [], []
    part = arguments[: max(1, len(arguments) // (2 * workers))]
    for _ in range(rounds):
        work = plain.alone(function, part) / len(part) * len(arguments)
        limit, expected = plain.run(function, arguments)
        spent = limit
        if peer is not None:
            began = clock()
            results = peer.run(function, arguments)
            spent = clock() - began
            # The order of a sum of floats matters.
            if not math.isclose(sum(results), expected, rel_tol=1e-9):
                raise AssertionError("the pool has other results than plain processes")
        of_cores.append(spent * workers / work)
        of_plain.append(spent / limit)
    return statistics.median(of_cores), statistics.median(of_plain)


def _lengths(workers: int, scale: Scale, peer: Peer | None) -> Measured:
    values: dict[str, float] = {}
    with Plain(workers) as plain:
        rate = _spins_a_second(plain)
        if peer is not None:
            peer.run(spin, [(1000,)] * (4 * workers))
        for name, seconds in LENGTHS.items():
            jobs = _jobs(seconds, scale, workers)
            if peer is not None:
                jobs = peer.pace.jobs_of(jobs, least=20 * workers)
            arguments = [(round(rate * seconds),)] * jobs
            values[name], of_plain = _sample(plain, peer, workers, scale.rounds, spin, arguments)
            if peer is not None:
                values[f"{name}_plain"] = of_plain
    return Measured(values)


def _lengths_of_peer(peer: Peer, scale: Scale) -> Measured:
    return _lengths(peer.workers, scale, peer)


def _lengths_of_plain(workers: int, scale: Scale) -> Measured:
    return _lengths(workers, scale, None)


def _simulation(function: Callable[[int], float], workers: int, scale: Scale, peer: Peer | None) -> Measured:
    with Plain(workers) as plain:
        # NumPy, and what else is needed, is imported everywhere before.
        first = [(seed,) for seed in range(2 * workers)]
        plain.run(function, first)
        seconds = plain.alone(function, first) / len(first)
        if peer is not None:
            peer.run(function, first)
        arguments = [(seed,) for seed in range(_jobs(seconds, scale, workers))]
        of_cores, of_plain = _sample(plain, peer, workers, scale.rounds, function, arguments)
    return Measured({"": of_cores} if peer is None else {"": of_cores, "plain": of_plain})


def _simulation_case(name: str, title: str, function: Callable[[int], float], *modules: str) -> Case:
    return Case(
        name=name,
        figures=(
            Figure(title=f"{title}: efficiency of the cores; limit: plain processes", unit="efficiency"),
            Figure(name="plain", title=f"{title}: the same, of what plain processes reach", unit="efficiency"),
        ),
        measure=lambda peer, scale: _simulation(function, peer.workers, scale, peer),
        limit=lambda workers, scale: _simulation(function, workers, scale, None),
        sitting="work",
        skips=lambda peer: needs(*modules),
    )


CASES = (
    Case(
        name="efficiency",
        figures=tuple(
            figure
            for name in LENGTHS
            for figure in (
                Figure(
                    name=name, title=f"{name} jobs: efficiency of the cores; limit: plain processes", unit="efficiency"
                ),
                Figure(
                    name=f"{name}_plain",
                    title=f"{name} jobs: the same, of what plain processes reach",
                    unit="efficiency",
                ),
            )
        ),
        measure=_lengths_of_peer,
        limit=_lengths_of_plain,
        sitting="work",
    ),
    _simulation_case("numpy", "Monte Carlo with NumPy (examples/ising.py)", simulations.ising, "numpy"),
    _simulation_case("qiskit", "random circuits with Qiskit", simulations.circuits, "qiskit"),
)
