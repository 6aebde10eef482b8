"""Metropolis or Wolff?  Two ways, in three implementations, to sample the two-dimensional Ising model near criticality.

The energy is H = -sum over bonds of s_i s_j with s = ±1 on a square torus.  Compared are

- `metropolis`: single spins in plain Python, all even sites and then all odd ones (a checkerboard);
- `checkerboard`: the very same Markov chain, but each half-sweep is a few NumPy operations;
- `wolff`: clusters of spins in plain Python.  A cluster's growth can't be vectorised.

`metropolis` and `wolff` are written alike, over the same lists, so that these two compare the algorithms; beside them,
`checkerboard` tells what NumPy makes of the one that it suits.  A sweep is size^2 attempted flips (Metropolis) or
size^2 flipped spins (Wolff).  Time for 20 sweeps, by the lattice's size, from an equilibrated lattice::

    F=examples/bench/ising_updates.py
    jobrunner bench $F:metropolis $F:checkerboard $F:wolff --setup $F:equilibrated -p size=16,32,64 -p sweeps=20

By that measure Wolff's is the slowest.  But what a simulation needs is independent configurations, and at the critical
temperature the sweeps that a Metropolis chain takes to forget its past grow as size^2.17, while Wolff's hardly do.  The
time per independent configuration is the time per sweep times twice the integrated autocorrelation time, here of the
absolute magnetisation: with its sign, which every cluster turns over, Wolff's would look better still.  As a table, in
less than ten seconds::

    python examples/bench/ising_updates.py

or over any grid, on all cores::

    jobrunner run $F:cost -p algorithm=metropolis,checkerboard,wolff -p size=8,16,32,64

Sources: N. Metropolis et al., J. Chem. Phys. 21, 1087 (1953); U. Wolff, Phys. Rev. Lett. 62, 361 (1989); A. D. Sokal,
in Functional Integration (1997), p. 131, for the autocorrelation time and its window; M. P. Nightingale and H. W. J.
Blöte, Phys. Rev. B 62, 1089 (2000) for the exponent 2.17.
"""

from __future__ import annotations

import functools
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Where the infinite lattice orders: 2 / ln(1 + sqrt 2).
CRITICAL_TEMPERATURE = 2.0 / math.log1p(math.sqrt(2.0))

#: A lattice in the plain-Python functions: +1 or -1 for each site, row after row.
Spins = list[int]

#: Several lattices in the NumPy functions, of shape (sites, lattices): the neighbours of a site are then whole rows.
Lattices = NDArray[np.int8]


def metropolis(
    size: int,
    temperature: float = CRITICAL_TEMPERATURE,
    sweeps: int = 20,
    seed: int = 1,
    spins: Sequence[int] | None = None,
) -> dict[str, float]:
    """Update a lattice by single-spin flips, in plain Python.

    Args:
        size: sites along each side; even, at least 4.
        temperature: in units of the coupling, above 0.
        sweeps: attempted flips, in units of the number of sites.
        seed: for the random numbers.
        spins: the lattice to start from, +1 and -1 row after row; isn't changed.  None: all up.

    Returns:
        Of the lattice in the end, per site, ``energy`` and ``magnetisation``; and ``sweeps``, the work done.

    Raises:
        ValueError: an argument is outside its range.

    Example:
        >>> metropolis(4, temperature=0.1, sweeps=10)
        {'energy': -2.0, 'magnetisation': 1.0, 'sweeps': 10.0}
    """
    lattice = _start(size, temperature, sweeps, spins)
    rng = random.Random(seed)
    for _ in range(sweeps):
        _metropolis_sweep(lattice, size, temperature, rng)
    return _outcome(size, lattice, sweeps)


def checkerboard(
    size: int,
    temperature: float = CRITICAL_TEMPERATURE,
    sweeps: int = 20,
    seed: int = 1,
    spins: Sequence[int] | None = None,
) -> dict[str, float]:
    """Update a lattice by single-spin flips, half of it at once with NumPy; all as for `metropolis`."""
    lattice = np.array(_start(size, temperature, sweeps, spins), dtype=np.int8)[:, None]
    rng = np.random.default_rng(seed)
    for _ in range(sweeps):
        _checkerboard_sweep(lattice, size, temperature, rng)
    return _outcome(size, lattice[:, 0].tolist(), sweeps)


def wolff(
    size: int,
    temperature: float = CRITICAL_TEMPERATURE,
    sweeps: int = 20,
    seed: int = 1,
    spins: Sequence[int] | None = None,
) -> dict[str, float]:
    """Update a lattice by flipping clusters, in plain Python, until at least sweeps * size^2 spins were flipped.

    Arguments and errors are as for `metropolis`.

    Returns:
        As `metropolis` does.  ``sweeps`` is somewhat above what was asked for, as the last cluster is finished.  That
        one is likely to be large, and a lattice with large clusters ordered: no sample to average over; see `observe`.
    """
    lattice = _start(size, temperature, sweeps, spins)
    rng = random.Random(seed)
    flipped = 0
    while flipped < sweeps * size**2:
        flipped += _flip_cluster(lattice, size, temperature, rng)
    return _outcome(size, lattice, flipped / size**2)


def equilibrated(size: int, temperature: float = CRITICAL_TEMPERATURE, seed: int = 1) -> dict[str, Any]:
    """The arguments of an update whose lattice has forgotten its start: set-up for the benchmark.

    Args:
        size: sites along each side; even, at least 4.
        temperature: in units of the coupling, above 0.
        seed: for the random numbers; another one gives another lattice.

    Returns:
        ``size``, ``temperature`` and ``spins``.

    Raises:
        ValueError: an argument is outside its range.
    """
    spins = _start(size, temperature, 1, None)
    # A stream apart from that of an update with the same seed.
    rng = random.Random(f"equilibrated {seed}")
    if temperature > CRITICAL_TEMPERATURE:
        spins = [rng.choice((-1, 1)) for _ in spins]
    # Clusters forget the start near the critical temperature, where one is about half the lattice; sweeps do far from
    # it.  Their number is fixed: to stop once so many spins were flipped is to stop after a large cluster rather than a
    # small one, and so at lattices that are more ordered than they should be.
    for _ in range(40):
        _metropolis_sweep(spins, size, temperature, rng)
        _flip_cluster(spins, size, temperature, rng)
    return {"size": size, "temperature": temperature, "spins": spins}


def cost(
    algorithm: str, size: int, temperature: float = CRITICAL_TEMPERATURE, seed: int = 1, steps: int | None = None
) -> dict[str, float]:
    """The time that an algorithm takes for an independent configuration.

    Args:
        algorithm: "metropolis", "checkerboard" or "wolff".
        size: sites along each side; even, at least 4.
        temperature: in units of the coupling, above 0.
        seed: for the random numbers.
        steps: how long the autocorrelation is followed: sweeps of each of 32 lattices for the first two, which are the
            same Markov chain and are both followed by the faster one, or clusters for Wolff.  None: 4 size^2 sweeps,
            or 6000 clusters.

    Returns:
        ``ms_per_sweep``, measured here and now; ``tau_sweeps``, the integrated autocorrelation time of |m|, and its
        standard error ``tau_error``; and 2 tau * time per sweep, ``ms_per_independent``.

    Raises:
        ValueError: an argument is outside its range, or there are too few steps to tell an autocorrelation time.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, not {algorithm!r}")
    start = equilibrated(size, temperature, seed)
    # Several seeds, as clusters differ; the first call, which makes the tables of neighbours, isn't counted.
    seconds = sweeps = 0.0
    for repetition in range(6):
        began = time.perf_counter()
        outcome = ALGORITHMS[algorithm](**start, seed=seed + repetition)
        if repetition:
            seconds += time.perf_counter() - began
            sweeps += outcome["sweeps"]
    if algorithm == "wolff":
        chain = observe("wolff", size, temperature, steps or 6000, seed)
    else:
        chain = observe("checkerboard", size, temperature, steps or 4 * size**2, seed, lattices=32)
    tau, error = autocorrelation_time(np.abs(chain.magnetisations))
    ms_per_sweep = 1000.0 * seconds / sweeps
    return {
        "ms_per_sweep": ms_per_sweep,
        "tau_sweeps": tau * chain.sweeps_per_step,
        "tau_error": error * chain.sweeps_per_step,
        "ms_per_independent": 2.0 * tau * chain.sweeps_per_step * ms_per_sweep,
    }


@dataclass(frozen=True, kw_only=True)
class Chain:
    """What was measured along independent Markov chains of one algorithm."""

    #: Energy per site, of shape (steps, lattices).
    energies: NDArray[np.float64]
    #: Magnetisation per site, with its sign, of the same shape.
    magnetisations: NDArray[np.float64]
    #: Attempted flips (Metropolis) or flipped spins (Wolff) of a step, over the number of sites.
    sweeps_per_step: float


def observe(
    algorithm: str,
    size: int,
    temperature: float = CRITICAL_TEMPERATURE,
    steps: int = 1000,
    seed: int = 1,
    lattices: int = 1,
) -> Chain:
    """Measure after each step, a sweep or a cluster, from equilibrated lattices on.

    Args:
        algorithm: "metropolis", "checkerboard" or "wolff".
        size: sites along each side; even, at least 4.
        temperature: in units of the coupling, above 0.
        steps: measurements on each lattice.
        seed: for the random numbers.
        lattices: independent chains.

    Raises:
        ValueError: an argument is outside its range.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, not {algorithm!r}")
    if steps < 1 or lattices < 1:
        raise ValueError(f"expected at least 1 step and 1 lattice, not {steps} and {lattices}")
    starts: list[Spins] = [equilibrated(size, temperature, seed + i)["spins"] for i in range(lattices)]
    energies, magnetisations = np.empty((steps, lattices)), np.empty((steps, lattices))
    if algorithm == "checkerboard":
        together = np.array(starts, dtype=np.int8).T.copy()
        generator = np.random.default_rng(seed)
        for step in range(steps):
            _checkerboard_sweep(together, size, temperature, generator)
            energies[step], magnetisations[step] = _measured(together, size)
        return Chain(energies=energies, magnetisations=magnetisations, sweeps_per_step=1.0)
    move = _flip_cluster if algorithm == "wolff" else _metropolis_sweep
    rng = random.Random(seed)
    updates = 0
    for i, spins in enumerate(starts):
        for step in range(steps):
            updates += move(spins, size, temperature, rng)
            measured = _measured(np.array(spins, dtype=np.int8)[:, None], size)
            energies[step, i], magnetisations[step, i] = measured[0][0], measured[1][0]
    sweeps_per_step = updates / (steps * lattices * size**2)
    return Chain(energies=energies, magnetisations=magnetisations, sweeps_per_step=sweeps_per_step)


def autocorrelation_time(series: ArrayLike, factor: float = 5.0) -> tuple[float, float]:
    """The integrated autocorrelation time, 1/2 + sum of rho(t) over t = 1, 2, ..., M, and its standard error.

    The noise of rho would add up for ever, so the sum is cut at Sokal's window: the smallest M >= factor * tau(M).  A
    mean of n values then has the variance of one value times 2 tau / n.

    Args:
        series: of shape (steps,), or (steps, chains) for independent chains with the same mean.
        factor: what is cut off is about exp(-factor) of the sum; more makes the error larger.

    Returns:
        The time and its standard error, sqrt((4 M + 2) / values) of it, both in steps.

    Raises:
        ValueError: the series never changes, or is shorter, all chains together, than 50 times its time.

    Example:
        >>> tau, error = autocorrelation_time(np.random.default_rng(1).standard_normal(10_000))
        >>> abs(tau - 0.5) < 3 * error
        True
    """
    values = np.asarray(series, dtype=np.float64)
    if values.ndim not in (1, 2) or not values.size or np.ptp(values) == 0.0:
        raise ValueError("expected a series, or a column for each chain, of values that are not all the same")
    values = values.reshape(len(values), -1) - values.mean()
    steps = len(values)
    # By Wiener and Khinchin's theorem; as many zeros as values keep its end from meeting its beginning.
    spectrum = np.abs(np.fft.rfft(values, n=2 * steps, axis=0)) ** 2
    covariances = np.fft.irfft(spectrum, n=2 * steps, axis=0)[:steps].sum(axis=1) / (steps - np.arange(steps))
    taus = 0.5 + np.cumsum(covariances[1:] / covariances[0])
    windows = np.arange(1, steps)
    wide_enough = windows >= factor * taus
    first = int(np.argmax(wide_enough)) if wide_enough.any() else -1
    if first < 0 or values.size < 50.0 * taus[first]:
        raise ValueError(f"{values.size} values are not enough to tell the autocorrelation time; use more steps")
    tau, window = float(taus[first]), int(windows[first])
    return tau, abs(tau) * math.sqrt((4.0 * window + 2.0) / values.size)


#: The updates that are compared, by name.
ALGORITHMS: dict[str, Callable[..., dict[str, float]]] = {
    "metropolis": metropolis,
    "checkerboard": checkerboard,
    "wolff": wolff,
}


def _start(size: int, temperature: float, sweeps: int, spins: Sequence[int] | None) -> Spins:
    """A lattice of one's own to update; raises ValueError for what no update can do."""
    if size < 4 or size % 2:
        raise ValueError(f"size must be even and at least 4, not {size}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    if sweeps < 1:
        raise ValueError(f"sweeps must be at least 1, not {sweeps}")
    if spins is None:
        return [1] * size**2
    if len(spins) != size**2 or not set(spins) <= {-1, 1}:
        raise ValueError(f"spins must be {size**2} times +1 or -1, not {len(spins)} of {sorted(set(spins))[:3]}")
    return list(spins)


def _metropolis_sweep(spins: Spins, size: int, temperature: float, rng: random.Random) -> int:
    """Try to flip each spin once; the number of sites."""
    draw = rng.random
    # The chance to flip a spin s whose neighbours sum up to n, by s * n; at 0 and below it is 1.
    chances = {alignment: math.exp(-2.0 * alignment / temperature) for alignment in (2, 4)}
    for site, a, b, c, d in _visits(size):
        spin = spins[site]
        alignment = spin * (spins[a] + spins[b] + spins[c] + spins[d])
        if alignment <= 0 or draw() < chances[alignment]:
            spins[site] = -spin
    return len(spins)


def _flip_cluster(spins: Spins, size: int, temperature: float, rng: random.Random) -> int:
    """Grow a cluster of equal spins from a random site, each bond with its chance, and flip it; its number of sites."""
    draw = rng.random
    bond = -math.expm1(-2.0 / temperature)
    neighbours = _neighbours(size)
    first = rng.randrange(len(spins))
    spin = spins[first]
    # A spin is flipped as it joins, so that it isn't taken for one of those that still may.
    spins[first] = -spin
    cluster = [first]
    for site in cluster:  # which grows meanwhile
        for neighbour in neighbours[site]:
            if spins[neighbour] == spin and draw() < bond:
                spins[neighbour] = -spin
                cluster.append(neighbour)
    return len(cluster)


def _checkerboard_sweep(spins: Lattices, size: int, temperature: float, rng: np.random.Generator) -> None:
    chances = np.exp(np.minimum(-2.0 / temperature * np.arange(-4, 5, 2), 0.0)).astype(np.float32)
    for sites, neighbours in _colours(size):
        own = spins[sites]
        alignment = own * spins[neighbours].sum(axis=0, dtype=np.int8)
        flip = rng.random(own.shape, dtype=np.float32) < chances[(alignment + 4) >> 1]
        spins[sites] = np.where(flip, -own, own)


def _measured(spins: Lattices, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Energy and magnetisation per site of each lattice."""
    sites, neighbours = _colours(size)[0]  # every bond joins an even and an odd site
    energies = -(spins[sites] * spins[neighbours].sum(axis=0, dtype=np.int8)).sum(axis=0, dtype=np.int64)
    return energies / size**2, spins.sum(axis=0, dtype=np.int64) / size**2


def _outcome(size: int, spins: Spins, sweeps: float) -> dict[str, float]:
    energies, magnetisations = _measured(np.array(spins, dtype=np.int8)[:, None], size)
    return {"energy": float(energies[0]), "magnetisation": float(magnetisations[0]), "sweeps": float(sweeps)}


# The tables of neighbours: made once in a process.  `equilibrated` needs them too, so that after it none is timed.


@functools.lru_cache
def _colours(size: int) -> tuple[tuple[NDArray[np.intp], NDArray[np.intp]], ...]:
    """The even sites and, of shape (4, sites), their neighbours; then the odd ones with theirs."""
    rows, columns = np.indices((size, size)).reshape(2, -1)
    shifts = ((0, 1), (0, -1), (1, 0), (-1, 0))
    near = np.stack([(rows + down) % size * size + (columns + right) % size for down, right in shifts])
    by_colour = [np.flatnonzero((rows + columns) % 2 == colour) for colour in (0, 1)]
    return tuple((sites, near[:, sites]) for sites in by_colour)


@functools.lru_cache
def _visits(size: int) -> list[tuple[int, int, int, int, int]]:
    """Each site with its four neighbours, even sites first."""
    return [tuple(visit) for sites, near in _colours(size) for visit in np.vstack([sites, near]).T.tolist()]


@functools.lru_cache
def _neighbours(size: int) -> list[tuple[int, int, int, int]]:
    """The four neighbours of each site, in the sites' order."""
    return [visit[1:] for visit in sorted(_visits(size))]


def main() -> None:
    """The time per sweep and per independent configuration, for three sizes at the critical temperature."""
    print("size  algorithm     ms/sweep  tau in sweeps     ms/independent")
    for size in (8, 16, 32):
        for algorithm in ALGORITHMS:
            result = cost(algorithm, size)
            tau = f"{result['tau_sweeps']:7.1f} ±{result['tau_error']:.1f}"
            times = f"{result['ms_per_sweep']:9.3f}   {tau:16s} {result['ms_per_independent']:9.2f}"
            print(f"{size:4d}  {algorithm:12s} {times}")


if __name__ == "__main__":
    main()
