"""The matrix exponentials: their tables follow from their definitions, and they agree with each other and theory."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

np = pytest.importorskip("numpy")

from examples.bench import matrix_exponential as me  # noqa: E402 - it needs numpy

METHODS = [me.pade, me.taylor, me.eigen]
by_series = pytest.mark.parametrize("method", METHODS[:2])
by_method = pytest.mark.parametrize("method", METHODS)
Method = Callable[[Any], Any]


def shift(size: int) -> Any:
    """Ones above the diagonal: a power series of it has the series' coefficients in its first row."""
    return np.eye(size, k=1)


def off(found: Any, expected: Any) -> float:
    """The relative difference in the 1-norm."""
    return float(me._norm(found - expected) / me._norm(expected))


@pytest.mark.parametrize("degree", me.TAYLOR_THETAS)
def test_taylors_factors_multiply_to_the_series_of_the_exponential(degree: int) -> None:
    size = 2 * degree + 2
    exact = [1.0 / math.factorial(k) if k <= degree else 0.0 for k in range(size)]
    assert me._taylor_polynomial(shift(size), degree)[0] == pytest.approx(exact, rel=0, abs=4e-15)


@pytest.mark.parametrize("order", me.PADE_THETAS)
def test_pades_quotient_has_the_series_of_the_exponential_up_to_twice_its_order(order: int) -> None:
    size = 2 * order + 2
    exact = [1.0 / math.factorial(k) for k in range(size - 1)]
    found = me._pade_approximant(shift(size), order)[0]
    assert found[:-1] == pytest.approx(exact, rel=0, abs=4e-15)
    if order == 3:  # the first coefficient that differs, by (m!)^2 / (2m)! / (2m + 1)!; rounding hides higher orders
        assert found[-1] - 1.0 / math.factorial(7) == pytest.approx(36 / 720 / 5040)


def logarithmic_derivative(polynomial: list[Fraction], terms: int) -> list[Fraction]:
    """The series of p' / p, for p(0) = 1."""
    series: list[Fraction] = []
    for k in range(terms):
        value = (k + 1) * polynomial[k + 1] if k + 1 < len(polynomial) else Fraction(0)
        value -= sum((polynomial[j] * series[k - j] for j in range(1, min(k, len(polynomial) - 1) + 1)), Fraction(0))
        series.append(value)
    return series


def backward_error(numerator: list[Fraction], denominator: list[Fraction], norm: float) -> float:
    """The bound sum |c_k| norm^(k-1) of the relative backward error, log(e^-x r(x)) being sum c_k x^k (Higham 2005)."""
    terms = 70
    above, below = logarithmic_derivative(numerator, terms), logarithmic_derivative(denominator, terms)
    slopes = [float(a - b - (k == 0)) for k, (a, b) in enumerate(zip(above, below, strict=True))]
    return sum(abs(slope) / (k + 1) * norm**k for k, slope in enumerate(slopes))


@pytest.mark.parametrize(("order", "theta"), me.PADE_THETAS.items())
def test_pades_norms_are_the_largest_with_a_backward_error_below_rounding(order: int, theta: float) -> None:
    b = [Fraction(int(c)) for c in me._pade_coefficients(order)]
    numerator = [c / b[0] for c in b]
    denominator = [c * (-1) ** k for k, c in enumerate(numerator)]
    assert backward_error(numerator, denominator, theta) == pytest.approx(2.0**-53, rel=1e-6)


@pytest.mark.parametrize(("degree", "theta"), me.TAYLOR_THETAS.items())
def test_taylors_norms_are_the_largest_with_a_backward_error_below_rounding(degree: int, theta: float) -> None:
    series = [Fraction(1, math.factorial(k)) for k in range(degree + 1)]
    assert backward_error(series, [Fraction(1)], theta) == pytest.approx(2.0**-53, rel=1e-6)


@by_series
@pytest.mark.parametrize("norm", [0.0, 1e-9, 1e-4, 0.01, 0.05, 0.2, 0.25, 0.9, 1.0, 2.0, 5.0, 6.0, 10.9, 11.0, 100.0])
def test_every_order_gives_a_rotation_to_rounding(method: Method, norm: float) -> None:
    exact = np.array([[math.cos(norm), math.sin(norm)], [-math.sin(norm), math.cos(norm)]])
    assert off(method(np.array([[0.0, norm], [-norm, 0.0]])), exact) < 1e-15 * (10 + 10 * norm)


@by_method
def test_the_exponential_of_a_diagonal_matrix_is_that_of_its_entries(method: Method) -> None:
    entries = np.array([-3.0, 0.0, 0.5, 2.0 + 1.0j, -1.0j])
    assert off(method(np.diag(entries)), np.diag(np.exp(entries))) < 1e-13


@by_series
def test_the_series_of_a_nilpotent_matrix_ends(method: Method) -> None:
    exact = sum(np.linalg.matrix_power(2.0 * shift(5), k) / math.factorial(k) for k in range(5))
    assert off(method(2.0 * shift(5)), exact) < 1e-14


@by_method
@pytest.mark.parametrize("angle", [0.001, 0.3, math.pi, 40.0])
def test_a_spin_turns_about_an_axis(method: Method, angle: float) -> None:
    """exp(-i angle/2 n.sigma) = cos(angle/2) - i sin(angle/2) n.sigma."""
    x, y, z = 2 / 7, 3 / 7, 6 / 7
    pauli = np.array([[z, x - 1j * y], [x + 1j * y, -z]])
    exact = math.cos(angle / 2) * np.eye(2) - 1j * math.sin(angle / 2) * pauli
    assert off(method(-0.5j * angle * pauli), exact) < 1e-13


@by_method
@pytest.mark.parametrize(
    "exponent",
    [me.random_exponent(1), me.random_exponent(40, time=0.01), me.random_exponent(64), me.chain_exponent(5, 20.0)],
    ids=["number", "short", "random", "chain"],
)
def test_evolution_is_unitary_and_the_same_by_each_method(method: Method, exponent: Any) -> None:
    before = exponent.copy()
    evolution = method(exponent)
    assert (exponent == before).all()
    assert off(evolution @ evolution.conj().T, np.eye(len(exponent))) < 1e-11
    assert off(evolution, me.pade(exponent)) < 1e-10


@by_method
@pytest.mark.parametrize("kind", ["general", "symmetric", "antisymmetric", "complex", "stochastic"])
def test_each_kind_of_matrix_agrees_and_stays_real(method: Method, kind: str) -> None:
    rng = np.random.default_rng(5)
    a = rng.standard_normal((12, 12))
    matrix = {
        "general": a,
        "symmetric": a + a.T,
        "antisymmetric": a - a.T,
        "complex": a + 1j * rng.standard_normal((12, 12)),
        "stochastic": np.abs(a) - np.diag(np.abs(a).sum(axis=0)),
    }[kind]
    found = method(matrix)
    assert found.dtype == (np.complex128 if kind == "complex" else np.float64)
    assert off(found, me.taylor(matrix)) < 1e-10
    assert np.linalg.det(found) == pytest.approx(cmath.exp(np.trace(matrix)), rel=1e-9)
    if kind == "stochastic":
        assert found.min() >= 0
        assert found.sum(axis=0) == pytest.approx(np.ones(12))


@by_method
@pytest.mark.parametrize("size", [1, 2, 7, 30])
@pytest.mark.parametrize("scale", [1e-5, 0.1, 1.0, 10.0])
def test_each_agrees_with_scipy(method: Method, size: int, scale: float) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng([size, int(scale * 1e5)])
    matrix = scale * rng.standard_normal((size, size)) / math.sqrt(size)
    assert off(method(matrix), linalg.expm(matrix)) < 1e-10
    assert off(method(1j * matrix), linalg.expm(1j * matrix)) < 1e-10


def test_integers_and_lists_are_taken() -> None:
    for method in METHODS:
        assert (
            off(method([[0, 1], [1, 0]]), np.array([[math.cosh(1), math.sinh(1)], [math.sinh(1), math.cosh(1)]]))
            < 1e-14
        )


def test_the_chains_ground_state_has_the_exact_energy() -> None:
    """Free fermions (Pfeuty 1970): at the critical field, -2 / sin(pi / 2N); without one, every bond is satisfied."""
    for sites in (3, 4, 7):
        energies = np.linalg.eigvalsh(me.ising_chain(sites))
        assert energies[0] == pytest.approx(-2.0 / math.sin(math.pi / (2 * sites)))
        assert energies.sum() == pytest.approx(0.0, abs=1e-10)
    assert np.linalg.eigvalsh(me.ising_chain(5, field=0.0))[0] == -5.0
    assert me.chain_exponent(4, time=3.0) == pytest.approx(-3j * me.ising_chain(4))


def test_the_random_hamiltonians_are_reproducible_and_fill_wigners_semicircle() -> None:
    exponent = me.random_exponent(120, seed=3)
    assert (exponent == me.random_exponent(120, seed=3)).all()
    assert (exponent != me.random_exponent(120, seed=4)).any()
    assert (exponent == -exponent.conj().T).all()
    energies = np.linalg.eigvalsh(1j * exponent)
    assert [energies[0], energies[-1]] == pytest.approx([-2.0, 2.0], abs=0.2)
    assert (energies**2).mean() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    "matrix", [[[0.0, 1.0], [0.0, 0.0]], 3.0 * shift(4) + np.eye(4), [[1.0, 1.0], [0.0, 1.0 + 1e-9]]]
)
def test_diagonalisation_refuses_what_lacks_eigenvectors(matrix: Any) -> None:
    with pytest.raises(np.linalg.LinAlgError, match="condition number"):
        me.eigen(matrix)


@by_method
@pytest.mark.parametrize(
    "matrix", [1.0, [1.0, 2.0], np.zeros((2, 3)), np.zeros((0, 0)), [[math.nan]], [[0, math.inf], [0, 0]]]
)
def test_what_is_no_square_matrix_of_finite_numbers_is_refused(method: Method, matrix: Any) -> None:
    with pytest.raises(ValueError, match=r"square|not finite"):
        method(matrix)


def test_sizes_outside_their_range_are_refused() -> None:
    for sites in (2, 13):
        with pytest.raises(ValueError, match="sites must be 3 to 12"):
            me.ising_chain(sites)
    with pytest.raises(ValueError, match="size must be at least 1"):
        me.random_exponent(0)


def test_as_a_script_it_prints_how_far_each_method_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    me.main()
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["time", "1-norm", "method", "not", "unitary", "off", "eigen"]
    assert [row.split()[2] for row in rows] == ["pade", "taylor", "eigen"] * 4
    assert all(float(number) < 1e-8 for row in rows for number in row.split()[3:])
