"""European call options by Monte Carlo, against the Black-Scholes formula.

Each option is one job; run it with::

    python examples/option_pricing.py

or, over any grid of options::

    jobrunner run examples/option_pricing.py:price_call -p spot=100 -p strike=80:120:10 -p volatility=0.1,0.2,0.4 \
        -p rate=0.03 -p years=1

Sources: F. Black and M. Scholes, J. Political Economy 81, 637 (1973) for the formula; P. Glasserman, Monte Carlo
Methods in Financial Engineering (2003), section 4.2, for antithetic variates.
"""

from __future__ import annotations

import math

import numpy as np


def price_call(
    spot: float,
    strike: float,
    volatility: float,
    rate: float,
    years: float,
    rng: np.random.Generator,
    paths: int = 2_000_000,
) -> dict[str, float]:
    """Price a European call by simulating the stock's price at expiry.

    Args:
        spot: the stock's price today.
        strike: the price at which the option buys it.
        volatility: standard deviation of the stock's log return in one year, such as 0.2.
        rate: risk-free interest, continuously compounded, per year.
        years: time to expiry.
        rng: where the random numbers come from.
        paths: simulated prices; each normal draw z is used as z and as -z (antithetic), so half as many are drawn.

    Returns:
        ``price`` and its standard error ``price_error``, the ``exact`` price, and how many standard errors ``sigmas``
        lie between them.

    Raises:
        ValueError: a price, the volatility or the time is not above 0, or there are fewer than 4 paths.
    """
    if min(spot, strike, volatility, years) <= 0 or paths < 4:
        raise ValueError("spot, strike, volatility and years must be above 0, and paths at least 4")
    drift = (rate - volatility**2 / 2.0) * years
    z = rng.standard_normal(paths // 2) * (volatility * math.sqrt(years))
    pay_offs = [np.maximum(spot * np.exp(drift + shock) - strike, 0.0) for shock in (z, -z)]
    # The two of a pair are correlated, so the pair's mean is the independent sample.
    samples = math.exp(-rate * years) * (pay_offs[0] + pay_offs[1]) / 2.0
    price = float(samples.mean())
    error = float(samples.std(ddof=1)) / math.sqrt(len(samples))
    exact = black_scholes_call(spot, strike, volatility, rate, years)
    return {"price": price, "price_error": error, "exact": exact, "sigmas": (price - exact) / error if error else 0.0}


def black_scholes_call(spot: float, strike: float, volatility: float, rate: float, years: float) -> float:
    """The Black-Scholes price of a European call; parameters as for `price_call`.

    Example:
        >>> round(black_scholes_call(spot=100, strike=100, volatility=0.2, rate=0.05, years=1), 4)
        10.4506
    """
    spread = volatility * math.sqrt(years)
    d1 = (math.log(spot / strike) + (rate + volatility**2 / 2.0) * years) / spread
    return spot * _normal_cdf(d1) - strike * math.exp(-rate * years) * _normal_cdf(d1 - spread)


def _normal_cdf(x: float) -> float:
    return math.erfc(-x / math.sqrt(2.0)) / 2.0


def main() -> None:
    """Price a grid of options on all cores and print them beside the formula."""
    from jobrunner import PrimitiveJob, gather

    grid = [(strike, volatility) for strike in (80.0, 100.0, 120.0) for volatility in (0.1, 0.2, 0.4)]
    seeds = np.random.SeedSequence(1973).spawn(len(grid))
    jobs = [
        PrimitiveJob(price_call, 100.0, strike, volatility, rate=0.03, years=1.0, rng=np.random.default_rng(seed))
        for (strike, volatility), seed in zip(grid, seeds, strict=True)
    ]
    for job in jobs:
        job.submit()
    print("strike  volatility    Monte Carlo         exact  sigmas")
    for (strike, volatility), result in zip(grid, gather(jobs), strict=True):
        estimate = f"{result['price']:8.4f} ±{result['price_error']:.4f}"
        print(f"{strike:6.0f}  {volatility:10.1f}  {estimate}  {result['exact']:10.4f}  {result['sigmas']:+6.1f}")


if __name__ == "__main__":
    main()
