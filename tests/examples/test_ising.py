"""The Ising example: its formulas are exact, its simulation agrees with them, and its check finds what is wrong."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import CommandLine

np = pytest.importorskip("numpy")

from examples import ising  # noqa: E402 - it needs numpy

EXAMPLES = Path(ising.__file__).parent


def enumerated_energy(size: int, temperature: float) -> float:
    """The energy per site by adding up all 2^(size^2) states."""
    sites = size**2
    states = ((np.arange(2**sites)[:, None] >> np.arange(sites)) & 1).reshape(-1, size, size) * 2 - 1
    energies = -(states * (np.roll(states, 1, 1) + np.roll(states, 1, 2))).sum((1, 2))
    weights = np.exp(-(energies - energies.min()) / temperature)
    return float(weights @ energies / weights.sum() / sites)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, ising.CRITICAL_TEMPERATURE, 2.3, 3.0, 10.0])
def test_kaufmans_energy_is_that_of_all_states_added_up(temperature: float) -> None:
    assert ising.finite_energy(4, temperature) == pytest.approx(enumerated_energy(4, temperature), abs=1e-12)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.5, 2.0, 3.0, 10.0])
def test_kaufmans_energy_becomes_onsagers_on_a_large_lattice(temperature: float) -> None:
    assert ising.finite_energy(128, temperature) == pytest.approx(ising.onsager_energy(temperature), abs=1e-12)


def test_onsagers_energy_at_known_points() -> None:
    assert ising.onsager_energy(ising.CRITICAL_TEMPERATURE) == pytest.approx(-math.sqrt(2), abs=1e-9)
    assert ising.onsager_energy(0.01) == pytest.approx(-2.0)
    # High temperature: u = -2 tanh(K) - 8 tanh(K)^3 + ..., by the energy of one bond and of the squares beside it.
    assert ising.onsager_energy(1000.0) == pytest.approx(-2e-3, rel=1e-5)


def test_neighbours_are_those_on_the_torus() -> None:
    """Against the plain lattice: even and odd sites put together, and its four rolled copies added."""
    size = 6
    lattice = np.random.default_rng(1).choice(np.array([-1, 1], dtype=np.int8), (size, size))
    rows, columns = np.indices((size, size))
    expected = sum(np.roll(lattice, shift, axis) for shift, axis in itertools.product((1, -1), (0, 1)))

    def of_colour(array: Any, colour: int) -> Any:
        return array[(rows + columns) % 2 == colour].reshape(1, size, size // 2)

    for colour in (0, 1):
        found = ising._neighbours(of_colour(lattice, 1 - colour), even_sites=colour == 0)
        assert (found == of_colour(expected, colour)).all()


def test_the_simulation_agrees_with_the_exact_solution() -> None:
    points: list[dict[str, Any]] = [
        {"size": 16, "temperature": t} for t in (1.5, 2.0, ising.CRITICAL_TEMPERATURE, 2.6, 3.5)
    ]
    results = [(p, ising.simulate(**p, rng=np.random.default_rng([7, i]), sweeps=1500)) for i, p in enumerate(points)]
    assert ising.check(results) == []


def test_the_check_finds_an_energy_and_a_magnetisation_that_are_off() -> None:
    point: dict[str, Any] = {"size": 16, "temperature": 1.5}
    good = ising.simulate(**point, rng=np.random.default_rng(1), sweeps=500)
    assert ising.check([(point, good)]) == []
    for name in ("energy", "magnetisation"):
        bad = {**good, name: good[name] + 10 * good[f"{name}_error"]}
        (sentence,) = ising.check([(point, bad)])
        assert sentence.startswith(f"{name} at size 16, temperature 1.5")


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": 3, "temperature": 1.0},
        {"size": 2, "temperature": 1.0},
        {"size": 4, "temperature": 0.0},
        {"size": 4, "temperature": math.nan},
        {"size": 4, "temperature": 1.0, "replicas": 1},
        {"size": 4, "temperature": 1.0, "sweeps": 0},
    ],
)
def test_arguments_outside_their_range_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not"):
        ising.simulate(**arguments, rng=np.random.default_rng(1))


@pytest.mark.slow
def test_the_batch_of_the_spec_agrees_with_the_exact_solution(command_line: CommandLine) -> None:
    """The spec as it stands, but with shorter runs."""
    text = (EXAMPLES / "ising.toml").read_text()
    (command_line.directory / "ising.py").write_text((EXAMPLES / "ising.py").read_text())
    (command_line.directory / "ising.toml").write_text(text.replace("sweeps = 4000", "sweeps = 800"))
    ran = command_line.run("run", "ising.toml", "--json")
    assert ran.returncode == 0, ran.stderr
    document = json.loads(ran.stdout)
    assert document["done"] == 42
    assert ising.check((each["parameters"], each["result"]) for each in document["results"]) == []
