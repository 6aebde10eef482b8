"""The Ising updates: each samples the exact distribution, and the autocorrelation time is that of a known series."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

np = pytest.importorskip("numpy")

from examples import ising  # noqa: E402 - it needs numpy
from examples.bench import ising_updates as updates  # noqa: E402 - so does it

by_algorithm = pytest.mark.parametrize("algorithm", updates.ALGORITHMS)


def enumerated(temperature: float) -> tuple[float, float]:
    """Energy and absolute magnetisation per site of the 4 by 4 lattice, by adding up all its states."""
    states = ((np.arange(2**16)[:, None] >> np.arange(16)) & 1).reshape(-1, 4, 4) * 2 - 1
    energies = -(states * (np.roll(states, 1, 1) + np.roll(states, 1, 2))).sum((1, 2))
    weights = np.exp(-(energies - energies.min()) / temperature)
    weights /= weights.sum()
    return float(weights @ energies) / 16, float(weights @ np.abs(states.sum((1, 2)))) / 16


def sigmas(series: Any, exact: float) -> float:
    """How many standard errors the mean is off."""
    tau, _ = updates.autocorrelation_time(series)
    return float((series.mean() - exact) / (series.std() * math.sqrt(2.0 * tau / series.size)))


@by_algorithm
@pytest.mark.parametrize("temperature", [1.8, updates.CRITICAL_TEMPERATURE, 4.0])
def test_each_algorithm_samples_the_distribution_that_enumeration_gives(algorithm: str, temperature: float) -> None:
    lattices = 8 if algorithm == "checkerboard" else 1
    chain = updates.observe(algorithm, 4, temperature, steps=6000 // lattices, seed=11, lattices=lattices)
    energy, magnetisation = enumerated(temperature)
    assert abs(sigmas(chain.energies, energy)) < 4
    assert abs(sigmas(np.abs(chain.magnetisations), magnetisation)) < 4


@by_algorithm
def test_each_algorithm_has_the_exact_energy_of_a_larger_lattice(algorithm: str) -> None:
    lattices = 8 if algorithm == "checkerboard" else 1
    chain = updates.observe(algorithm, 8, steps=3000 // lattices, seed=3, lattices=lattices)
    assert abs(sigmas(chain.energies, ising.finite_energy(8, updates.CRITICAL_TEMPERATURE))) < 4


def test_both_metropolis_updates_are_the_same_chain() -> None:
    """At nearly zero temperature no chance is left, so that they must agree spin by spin."""
    rng = random.Random(2)
    for _ in range(5):
        spins = [rng.choice((-1, 1)) for _ in range(64)]
        lattice = np.array(spins, dtype=np.int8)[:, None]
        for _ in range(3):
            updates._metropolis_sweep(spins, 8, 0.01, random.Random(1))
            updates._checkerboard_sweep(lattice, 8, 0.01, np.random.default_rng(1))
            assert lattice[:, 0].tolist() == spins


def test_a_cluster_is_all_that_equals_at_zero_temperature_and_a_single_spin_at_infinite_temperature() -> None:
    spins = [1] * 32 + [-1] * 32  # two stripes: of one, every spin is reached
    assert updates._flip_cluster(spins, 8, 0.01, random.Random(1)) == 32
    assert abs(sum(spins)) == 64
    assert updates._flip_cluster(spins, 8, 1e12, random.Random(1)) == 1
    assert abs(sum(spins)) == 62


def test_neighbours_are_those_on_the_torus() -> None:
    size = 6
    for site, neighbours in enumerate(updates._neighbours(size)):
        row, column = divmod(site, size)
        expected = {
            ((row + down) % size, (column + right) % size) for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0))
        }
        assert {divmod(neighbour, size) for neighbour in neighbours} == expected
    visited = [visit[0] for visit in updates._visits(size)]
    assert sorted(visited) == list(range(size**2))
    assert all(sum(divmod(site, size)) % 2 == (i >= 18) for i, site in enumerate(visited))


@by_algorithm
def test_an_update_leaves_its_lattice_alone_and_repeats_by_its_seed(algorithm: str) -> None:
    update: Callable[..., dict[str, float]] = updates.ALGORITHMS[algorithm]
    start = updates.equilibrated(8, seed=5)
    before = list(start["spins"])
    first, second = update(**start, sweeps=5), update(**start, sweeps=5)
    assert start["spins"] == before
    assert first == second
    assert 5 <= first["sweeps"] <= (6 if algorithm == "wolff" else 5)
    others = [update(**start, sweeps=5, seed=seed) for seed in range(2, 6)]
    assert any(other["energy"] != first["energy"] for other in others)


@pytest.mark.parametrize("temperature", [1.5, updates.CRITICAL_TEMPERATURE, 8.0])
def test_equilibrated_lattices_have_the_exact_energy_on_the_average(temperature: float) -> None:
    lattices = [updates.equilibrated(8, temperature, seed)["spins"] for seed in range(200)]
    energies = updates._measured(np.array(lattices, dtype=np.int8).T, 8)[0]
    assert abs(energies.mean() - ising.finite_energy(8, temperature)) < 4 * energies.std() / math.sqrt(200)
    assert updates.equilibrated(8, temperature, seed=1)["spins"] == lattices[1]


def autoregressive(phi: float, steps: int, chains: int) -> Any:
    """x_t = phi x_t-1 + noise, from its stationary distribution on: rho(t) = phi^t."""
    rng = np.random.default_rng(8)
    x = np.empty((steps, chains))
    x[0] = rng.standard_normal(chains) / math.sqrt(1 - phi**2)
    for t in range(1, steps):
        x[t] = phi * x[t - 1] + rng.standard_normal(chains)
    return x


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9, 0.97])
def test_the_autocorrelation_time_of_an_autoregressive_series_is_known(phi: float) -> None:
    exact = 0.5 + phi / (1 - phi)
    for series in (autoregressive(phi, 5000, 20), autoregressive(phi, 20_000, 1)[:, 0]):
        tau, error = updates.autocorrelation_time(7.0 + 3.0 * series)
        assert abs(tau - exact) < 3 * error
        assert error < 0.25 * exact


def test_the_error_of_an_autocorrelation_time_is_the_spread_of_such_times() -> None:
    estimates = [updates.autocorrelation_time(column) for column in autoregressive(0.8, 4000, 60).T]
    taus, errors = np.array(estimates).T
    assert taus.std(ddof=1) == pytest.approx(errors.mean(), rel=0.35)


@pytest.mark.parametrize(
    "series",
    [[], 1.0, [2.0], [0.1] * 1000, np.zeros((2, 2, 2)), np.arange(1000.0), autoregressive(0.99, 2000, 1)],
    ids=["empty", "number", "one value", "constant", "three axes", "ramp", "20 times its time"],
)
def test_a_series_without_an_autocorrelation_time_is_refused(series: Any) -> None:
    with pytest.raises(ValueError, match=r"not all the same|not enough"):
        updates.autocorrelation_time(series)


def test_wolff_costs_fewer_sweeps_for_an_independent_configuration() -> None:
    metropolis, wolff = (updates.cost(algorithm, 16, steps=1000) for algorithm in ("metropolis", "wolff"))
    assert metropolis["tau_sweeps"] > 4 * wolff["tau_sweeps"]
    for result in (metropolis, wolff):
        expected = 2 * result["tau_sweeps"] * result["ms_per_sweep"]
        assert result["ms_per_independent"] == pytest.approx(expected) and expected > 0


@by_algorithm
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 2}, "size must be even"),
        ({"size": 5}, "size must be even"),
        ({"size": 4, "temperature": 0.0}, "temperature must be above 0"),
        ({"size": 4, "temperature": math.nan}, "temperature must be above 0"),
        ({"size": 4, "sweeps": 0}, "sweeps must be at least 1"),
        ({"size": 4, "spins": [1] * 15}, "16 times"),
        ({"size": 4, "spins": [1] * 15 + [0]}, r"not 16 of \[0, 1\]"),
    ],
)
def test_arguments_outside_their_range_are_refused(algorithm: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        updates.ALGORITHMS[algorithm](**arguments)


def test_unknown_algorithms_and_empty_chains_are_refused() -> None:
    for function in (updates.cost, updates.observe):
        with pytest.raises(ValueError, match="one of metropolis, checkerboard, wolff, not 'glauber'"):
            function("glauber", 4)
    with pytest.raises(ValueError, match="at least 1 step and 1 lattice"):
        updates.observe("wolff", 4, steps=0)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        updates.equilibrated(4, -1.0)


def test_as_a_script_it_prints_a_row_for_each_size_and_algorithm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = {"ms_per_sweep": 0.25, "tau_sweeps": 40.0, "tau_error": 2.0, "ms_per_independent": 20.0}
    monkeypatch.setattr(updates, "cost", lambda algorithm, size: result)
    updates.main()
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["size", "algorithm", "ms/sweep"]
    assert [row.split()[:2] for row in rows] == [[str(n), name] for n in (8, 16, 32) for name in updates.ALGORITHMS]
    assert all(row.split()[2:] == ["0.250", "40.0", "±2.0", "20.00"] for row in rows)
