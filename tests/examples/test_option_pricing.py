"""The option-pricing example: the formula at known values, and the simulation within its errors."""

from __future__ import annotations

import math

import pytest

np = pytest.importorskip("numpy")

from examples.option_pricing import black_scholes_call, price_call  # noqa: E402 - it needs numpy


def test_the_formula_at_known_values() -> None:
    # J. C. Hull, Options, Futures, and Other Derivatives, the chapter on Black-Scholes-Merton: c = 4.76.
    assert black_scholes_call(spot=42, strike=40, volatility=0.2, rate=0.1, years=0.5) == pytest.approx(4.76, abs=0.005)
    # Without risk the option is worth what it pays.
    assert black_scholes_call(100, 80, 1e-6, 0.05, 1.0) == pytest.approx(100 - 80 * math.exp(-0.05))
    assert black_scholes_call(100, 200, 1e-6, 0.05, 1.0) == pytest.approx(0.0)


@pytest.mark.parametrize("strike", [80.0, 100.0, 120.0])
@pytest.mark.parametrize("volatility", [0.1, 0.4])
def test_the_simulation_agrees_with_the_formula(strike: float, volatility: float) -> None:
    result = price_call(100.0, strike, volatility, 0.03, 1.0, np.random.default_rng(1), paths=200_000)
    assert abs(result["sigmas"]) < 5
    assert 0 < result["price_error"] < 0.1


def test_arguments_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        price_call(100.0, 0.0, 0.1, 0.03, 1.0, np.random.default_rng(1))
