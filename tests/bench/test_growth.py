"""Growth: the law that the times follow is named, and nothing is said that they don't bear."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.bench.growth import Growth, fit_growth

SIZES = [1e3, 1e4, 1e5, 1e6]


def measure(
    law: Callable[[float], float],
    sizes: Sequence[float] = SIZES,
    *,
    rounds: int = 20,
    noise: float = 0.02,
    seed: int = 1,
) -> Growth:
    rng = random.Random(seed)
    sampled = [[1e-6 * law(size) * rng.lognormvariate(0, noise) for size in sizes] for _ in range(rounds)]
    growth = fit_growth(sizes, sampled)
    assert growth is not None
    return growth


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("constant", lambda n: 1),
        ("log n", lambda n: math.log(n)),
        ("sqrt n", lambda n: math.sqrt(n)),
        ("n", lambda n: n),
        ("n log n", lambda n: n * math.log(n)),
        ("n^1.5", lambda n: n**1.5),
        ("n^2", lambda n: n**2),
        ("n^2 log n", lambda n: n**2 * math.log(n)),
        ("n^3", lambda n: n**3),
    ],
)
def test_the_law_that_the_times_follow_is_the_only_one_named(name: str, law: Callable[[float], float]) -> None:
    growth = measure(law)
    assert growth.names == (name,)
    assert growth.text.startswith(name)


def test_the_law_that_the_times_follow_is_seldom_excluded() -> None:
    missing = sum("n" not in measure(lambda n: n, rounds=8, seed=seed).names for seed in range(60))
    assert missing <= 8


def test_doubling_with_each_unit_is_named() -> None:
    assert measure(lambda n: 2**n, range(4, 21, 2)).text == "2^n"


def test_a_law_with_a_logarithm_may_as_well_be_a_power() -> None:
    growth = measure(lambda n: n * math.log(n), [1e3, 2e3, 4e3, 8e3, 16e3])
    assert growth.text == f"n log n or n^{growth.exponent.value:.2f}"


def test_a_power_without_a_name_is_told_with_its_interval() -> None:
    growth = measure(lambda n: n**1.37)
    assert growth.names == ()
    assert growth.text == f"n^1.37 ({growth.exponent.low:.2f} to {growth.exponent.high:.2f})"
    assert not growth.exponent.excludes(1.37)


def test_a_bend_is_no_power() -> None:
    assert measure(lambda n: 3e4 + n).text == "rises from n^0.1 to n^0.9: no single power"
    assert measure(lambda n: 3e4 + n).names == ()
    assert measure(lambda n: max(3e4, n)).text == "rises from n^0.0 to n^1.0: no single power"
    assert measure(lambda n: n / (1 + n / 3e4)).text == "falls from n^0.9 to n^0.1: no single power"


def test_few_noisy_rounds_leave_more_open() -> None:
    clear, vague = measure(lambda n: n), measure(lambda n: n, SIZES[:3], rounds=2, noise=0.3)
    assert vague.exponent.high - vague.exponent.low > 5 * (clear.exponent.high - clear.exponent.low)


def test_one_round_of_three_sizes_shows_no_bend() -> None:
    growth = measure(lambda n: n * (1.3 if n == 1e4 else 1), SIZES[:3], rounds=1, noise=0)
    assert not growth.bent
    assert "n" in growth.names


def test_the_line_through_exact_powers_is_exact() -> None:
    growth = measure(lambda n: 5 * n**2, rounds=3, noise=0)
    assert growth.exponent.value == pytest.approx(2)
    assert growth.factor == pytest.approx(5e-6)
    assert growth.slopes == pytest.approx((2, 2))
    assert growth.text == "n^2"


def test_the_factor_and_the_exponent_are_the_line() -> None:
    growth = measure(lambda n: n**1.2, noise=0.01)
    assert growth.factor * 1e5**growth.exponent.value == pytest.approx(1e-6 * 1e5**1.2, rel=0.02)


def test_sizes_that_failed_are_left_out() -> None:
    rounds: list[list[float | None]] = [
        [1e-3, 1e-2, None, None],
        [None, 1.01e-2, 0.1, None],
        [1.02e-3, 1e-2, 0.101, None],
    ]
    growth = fit_growth(SIZES, rounds)
    assert growth is not None
    assert "n" in growth.names
    assert fit_growth(SIZES, [[1.0, 2.0, None, None]]) is None
    assert fit_growth(SIZES, []) is None


def test_the_order_of_sizes_is_of_no_matter() -> None:
    rounds = [[1e-3, 1.1e-2, 0.1], [1.1e-3, 1e-2, 0.11]]
    assert fit_growth([10, 100, 1000], rounds) == fit_growth([1000, 100, 10], [r[::-1] for r in rounds])


def test_sizes_of_1_have_no_logarithmic_law() -> None:
    growth = measure(lambda n: n, [1, 2, 4, 8], noise=0.5, rounds=3)
    assert not any("log" in name for name in growth.names)


@pytest.mark.parametrize("sizes", [[1, 1, 2], [0, 1, 2], [-1, 1, 2], [1, 2, math.inf]])
def test_sizes_are_distinct_and_positive(sizes: list[float]) -> None:
    with pytest.raises(ValueError, match="distinct positive"):
        fit_growth(sizes, [[1.0, 1.0, 1.0]])


def test_a_round_has_a_place_for_each_size() -> None:
    with pytest.raises(ValueError, match="3 sizes"):
        fit_growth([1, 2, 3], [[1.0, 1.0]])


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.lists(st.floats(1e-5, 10), min_size=4, max_size=4), min_size=1, max_size=5),
    st.floats(0.01, 100),
)
def test_another_unit_of_time_changes_the_factor_only(rounds: list[list[float]], unit: float) -> None:
    growth, scaled = fit_growth(SIZES, rounds), fit_growth(SIZES, [[unit * x for x in r] for r in rounds])
    assert growth is not None and scaled is not None
    assert scaled.exponent.value == pytest.approx(growth.exponent.value, abs=1e-9)
    assert scaled.exponent.low == pytest.approx(growth.exponent.low, rel=1e-6, abs=1e-6)
    assert scaled.factor == pytest.approx(unit * growth.factor)
    assert not growth.exponent.excludes(growth.exponent.value)
    assert growth.text


def test_what_doubles_over_three_sizes_is_not_called_constant() -> None:
    rng = random.Random(3)
    rounds = [[mean * rng.gauss(1.0, 0.05) for mean in (3.9, 5.3, 8.4)] for _ in range(10)]
    found = fit_growth([0.01, 1, 100], rounds)
    assert found is not None
    assert "constant" not in found.names
    assert found.text.startswith("n^0.0")
