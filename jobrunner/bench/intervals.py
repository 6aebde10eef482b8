"""What samples of durations tell: summaries, and intervals of medians and of their ratios.

The intervals are made of order statistics: for n samples, whatever their distribution, the median lies between the k-th
smallest and the k-th largest with the probability that n tosses of a coin give from k to n - k heads (W. R. Thompson,
Ann. Math. Statist. 7 (1936) 122).  Only a few confidences can be had in this way; those between are got by
interpolation of neighbouring ranks (T. P. Hettmansperger and S. J. Sheather, Stat. Probab. Lett. 4 (1986) 75), here of
logarithms, so that the interval of b/a is the inverse of that of a/b.  No random numbers are needed, so the same
samples always give the same interval.

- *Paired* samples: element i of both series is from round i.  A round's ratio knows nothing of what slowed the whole
  round, so the interval is that of the median of the rounds' ratios.  (The ratio of the two medians, bootstrapped over
  rounds, has no such property: under a drift of 10 % and noise of 1 % its interval is twice as wide.)
- *Unpaired*: from the intervals of both medians, as the bounds of a difference of logarithms are got from the bounds of
  its terms (G. Y. Zou and A. Donner, Stat. Med. 27 (2008) 1693, "MOVER").
- Fewer than six samples have no two order statistics that far apart (at 95 %).  Then the interval reaches from the
  smallest to the largest or as far as Student's t of the logarithms does, whichever is farther.  One sample tells
  nothing of its error: its interval is from 0 to infinity.

False claims, in per cent: how often the interval of two series of the same distribution excludes 1 (nominally 5, 10 000
simulated runs each, so ±0.4):

=======================================  ======  ======  ======  ======  ======
rounds                                        3       5      10      20      50
=======================================  ======  ======  ======  ======  ======
paired: normal, 2 %                         5.0     4.0     5.7     4.8     5.1
paired: lognormal, 20 %                     5.4     3.8     5.1     5.2     4.7
paired: 5 % of samples 10-50 % slower       3.9     2.2     5.0     5.0     5.1
paired: exponential above a minimum         3.2     2.9     5.0     5.1     4.9
paired: of seven values                     4.8     2.6     3.2     2.1     0.5
paired: drift of 10 % over all rounds       5.1     4.0     5.0     5.2     5.2
paired: step of 10 % at a random round      4.9     4.1     5.4     5.0     5.1
unpaired: normal, 2 %                       1.0     1.6     2.8     3.1     3.2
unpaired: lognormal, 20 %                   1.3     1.6     2.7     2.9     3.8
unpaired: 5 % of samples 10-50 % slower     0.8     0.9     2.6     3.0     3.3
unpaired: of seven values                   1.0     1.6     2.9     2.3     1.8
=======================================  ======  ======  ======  ======  ======

Equal samples, such as those of a coarse clock, make it more careful, except with two rounds (8 to 13 %): by chance both
may be equal, and an interval of samples that are all equal has no width.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

__all__ = [
    "Estimate",
    "Summary",
    "median_interval",
    "ratio_interval",
    "relative_error",
    "resampled_half",
    "resampled_medians",
    "student_quantile",
    "summarise",
]

_SEED = 20150811
"""Of the resampling: any number does, but always the same, so that the same samples give the same interval."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its confidence interval, of 95 % unless another was asked for.

    Attributes:
        value: the estimate; it lies in the interval.
        low: the interval's lower bound.
        high: its upper bound; may be infinite.

    Example:
        >>> Estimate(value=1.02, low=0.99, high=1.05).excludes(1.0)
        False
    """

    value: float
    low: float
    high: float

    def excludes(self, x: float) -> bool:
        """Whether `x` lies outside of the interval; its bounds belong to it."""
        return not self.low <= x <= self.high


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What is told of a series of samples; all in the samples' unit, seconds.

    Attributes:
        count: how many samples.
        minimum: the smallest.
        p5: the 5th percentile; this and the others by linear interpolation between order statistics.
        p25: the 25th percentile.
        median: the 50th percentile.
        p75: the 75th percentile.
        p95: the 95th percentile.
        maximum: the largest.
        mean: the arithmetic mean.
        stdev: the sample standard deviation, with n - 1; None for one sample.
        mad: the median absolute deviation from the median; unscaled, so 0.6745 standard deviations of a normal
            distribution.
    """

    count: int
    minimum: float
    p5: float
    p25: float
    median: float
    p75: float
    p95: float
    maximum: float
    mean: float
    stdev: float | None
    mad: float


def summarise(samples: Sequence[float]) -> Summary:
    """Count, percentiles, mean and spread of `samples`.

    The percentile p of n samples is the one at the place ``(n - 1) * p / 100``, counted from 0 in ascending order, and
    between two samples it is linear: definition 7 of R. J. Hyndman and Y. Fan, The American Statistician 50 (1996) 361,
    which is the default of NumPy and R.

    Args:
        samples: at least one, finite and above 0; their order is of no matter.

    Raises:
        ValueError: there is no sample, or one is no positive finite number.

    Example:
        >>> summary = summarise([0.4, 0.1, 0.2, 0.3, 0.5])
        >>> summary.p25, summary.median, summary.p95
        (0.2, 0.3, 0.48)
    """
    _check(samples)
    ordered = sorted(samples)
    median = statistics.median(ordered)
    return Summary(
        count=len(ordered),
        minimum=ordered[0],
        p5=_percentile(ordered, 5),
        p25=_percentile(ordered, 25),
        median=median,
        p75=_percentile(ordered, 75),
        p95=_percentile(ordered, 95),
        maximum=ordered[-1],
        mean=statistics.fmean(ordered),
        stdev=statistics.stdev(ordered) if len(ordered) > 1 else None,
        mad=statistics.median(abs(x - median) for x in ordered),
    )


def median_interval(samples: Sequence[float], *, confidence: float = 0.95) -> Estimate:
    """The median of `samples`, and the interval in which that of the distribution is.

    Nothing is assumed of the distribution from six samples on (at 95 %); see the module for fewer.

    Args:
        samples: at least one, finite and above 0; their order is of no matter.
        confidence: how probably the interval holds the median, between 0 and 1.

    Returns:
        The median with its interval: of zero width if all samples are equal, and from 0 to infinity for one sample.

    Raises:
        ValueError: there is no sample, one is no positive finite number, or the confidence is out of range.

    Example:
        >>> estimate = median_interval([1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
        >>> estimate.value, round(estimate.low, 3), round(estimate.high, 3)
        (1.25, 1.035, 1.463)
        >>> median_interval([1.0])
        Estimate(value=1.0, low=0.0, high=inf)
    """
    _check(samples)
    value = statistics.median(samples)
    low, high = _bounds(sorted(samples), confidence)
    return Estimate(value=value, low=min(low, value), high=max(high, value))


def ratio_interval(
    numerator: Sequence[float], denominator: Sequence[float], *, paired: bool, confidence: float = 0.95
) -> Estimate:
    """How many times as large the numerator's samples are, with an interval.

    The numerator and the denominator exchanged give the inverse.

    Args:
        numerator: at least one sample, finite and above 0.
        denominator: likewise.
        paired: element i of both is from the same round, so that what slowed the whole round cancels: the estimate is
            the median of the rounds' ratios (the middle two's geometric mean if their number is even).  Otherwise it is
            the ratio of the medians, and the order of the samples is of no matter.
        confidence: how probably the interval holds the ratio, between 0 and 1.

    Returns:
        The ratio with its interval, from 0 to infinity where there is only one sample.  Paired, it may differ a little
        from the ratio of the two medians.

    Raises:
        ValueError: a series has no sample or one that is no positive finite number, they are paired and differ in
            length, or the confidence is out of range.

    Example:
        >>> slowing = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
        >>> ratio_interval([2 * x for x in slowing], slowing, paired=True)
        Estimate(value=2.0, low=2.0, high=2.0)
    """
    _check(numerator)
    _check(denominator)
    if paired:
        if len(numerator) != len(denominator):
            raise ValueError(
                f"paired series need one sample of each in every round: {len(numerator)} and {len(denominator)} given"
            )
        ratios = sorted(a / b for a, b in zip(numerator, denominator, strict=True))
        _check(ratios)
        value = _between(ratios[(len(ratios) - 1) // 2], ratios[len(ratios) // 2], 0.5)
        low, high = _bounds(ratios, confidence)
        return Estimate(value=value, low=min(low, value), high=max(high, value))
    above = median_interval(numerator, confidence=confidence)
    below = median_interval(denominator, confidence=confidence)
    value = above.value / below.value
    return Estimate(
        value=value,
        low=value / _combined(_quotient(above.value, above.low), below.high / below.value),
        high=value * _combined(above.high / above.value, _quotient(below.value, below.low)),
    )


def relative_error(samples: Sequence[float]) -> float:
    """The standard error of the median, as a share of the median.

    The width of the 95 % interval divided by that of a normal distribution of standard deviation 1 (J. W. McKean and
    R. M. Schrader, Commun. Stat. Simul. Comput. 13 (1984) 751).  It is an estimate with an error of its own, of some
    30 % for 20 samples; who stops as soon as it is below a target stops a little too early on average.

    Args:
        samples: finite and above 0; may be empty.

    Returns:
        The relative standard error; infinite for fewer than three samples, which tell too little of it.

    Raises:
        ValueError: a sample is no positive finite number.

    Example:
        >>> round(relative_error([0.99, 1.0, 1.01] * 10), 4)
        0.0039
        >>> relative_error([1.0, 1.0])
        inf
    """
    if len(samples) < 3:
        return math.inf
    estimate = median_interval(samples)
    return (estimate.high - estimate.low) / (2 * statistics.NormalDist().inv_cdf(0.975)) / estimate.value


def resampled_half(values: Sequence[float], rounds: int, *, confidence: float = 0.95) -> float:
    """Half the interval of what was computed from resampled rounds.

    Student's t with n - 1 degrees of freedom times the standard deviation over draws, times ``sqrt(n / (n - 1))``,
    since draws from n rounds spread that much too little (T. Hesterberg, The American Statistician 69 (2015) 371): with
    few rounds, percentiles of draws would be much too near one another.

    Args:
        values: what was computed from each of the draws of `resampled_medians`.
        rounds: how many there were to draw from.
        confidence: of the interval, between 0 and 1.

    Returns:
        How far the interval reaches to both sides; 0 for fewer than two rounds, which tell nothing of the noise.

    Example:
        >>> round(resampled_half([0.99, 1.0, 1.01], rounds=20), 4)
        0.0215
    """
    if rounds < 2 or len(values) < 2:
        return 0.0
    return student_quantile(confidence, rounds - 1) * math.sqrt(rounds / (rounds - 1)) * statistics.stdev(values)


def resampled_medians(rounds: Sequence[Sequence[float | None]], *, count: int = 500) -> list[list[float]]:
    """The medians of all series, for rounds drawn with replacement: the bootstrap over rounds.

    All samples of a round are drawn together, so what slowed the whole round stays common to all series (B. Efron and
    R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, section 8.3).

    Args:
        rounds: ``rounds[i][j]`` is the sample of series j in round i, None if there is none.  All have the same length.
        count: how many draws; fewer if there are many samples, to take a second at most, or if a series has so few that
            draws have none of it.

    Returns:
        For each draw, the median of each series.

    Example:
        >>> draws = resampled_medians([[1.0, 2.0], [3.0, 6.0], [2.0, 4.0]])
        >>> len(draws), all(b == 2 * a for a, b in draws)
        (500, True)
    """
    if not rounds:
        return []
    rng = random.Random(_SEED)  # noqa: S311 - a simulation, no secret
    columns = list(zip(*rounds, strict=True))
    count = min(count, max(100, 1_000_000 // max(1, len(rounds) * len(columns))))
    places = range(len(rounds))
    draws = []
    for _ in range(count):
        drawn = rng.choices(places, k=len(rounds))
        series = [[x for x in map(column.__getitem__, drawn) if x is not None] for column in columns]
        if all(series):
            draws.append([statistics.median(samples) for samples in series])
    return draws


@lru_cache(maxsize=256)
def student_quantile(confidence: float, degrees: int) -> float:
    """The t for which Student's distribution has the share `confidence` between -t and t.

    By bisection of the finite series 26.7.3 and 26.7.4 of M. Abramowitz and I. A. Stegun, "Handbook of Mathematical
    Functions", 1964, in which t is ``sqrt(degrees) * tan(angle)``; from 200 degrees on by the first two terms of the
    expansion 26.7.5 about the normal quantile, to six digits.

    Args:
        confidence: between 0 and 1.
        degrees: of freedom, at least 1.

    Raises:
        ValueError: one of them is out of range.

    Example:
        >>> [round(student_quantile(0.95, degrees), 3) for degrees in (1, 2, 10, 1000)]
        [12.706, 4.303, 2.228, 1.962]
    """
    if not 0 < confidence < 1 or degrees < 1:
        raise ValueError(f"no quantile of Student's t for confidence {confidence} and {degrees} degrees of freedom")
    if degrees >= 200:
        z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
        return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_share(middle, degrees) < confidence else (low, middle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _student_share(angle: float, degrees: int) -> float:
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = 0.0
    for power in range(2 + odd, degrees + 1, 2):
        total += term
        term *= cosine * cosine * (power - 1) / power
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _check(samples: Sequence[float]) -> None:
    if not samples:
        raise ValueError("there is no sample")
    for sample in samples:
        if not 0 < sample < math.inf:
            raise ValueError(f"a sample must be a positive finite number of seconds, not {sample!r}")


def _percentile(ordered: Sequence[float], percent: int) -> float:
    # In whole numbers, so that a place which is a sample's is found to be one.
    place, rest = divmod((len(ordered) - 1) * percent, 100)
    if not rest:
        return ordered[place]
    return ordered[place] + (ordered[place + 1] - ordered[place]) * (rest / 100)


def _bounds(ordered: Sequence[float], confidence: float) -> tuple[float, float]:
    """The interval of the median of samples in ascending order."""
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence is between 0 and 1, not {confidence}")
    n = len(ordered)
    if n == 1:
        return 0.0, math.inf
    ranks = _ranks(n, confidence)
    if ranks is not None:
        k, share = ranks
        return _between(ordered[k - 1], ordered[k], share), _between(ordered[n - k], ordered[n - k - 1], share)
    if ordered[0] == ordered[-1]:
        return ordered[0], ordered[0]
    logs = [math.log(x) for x in ordered]
    reach = student_quantile(confidence, n - 1) * statistics.stdev(logs) / math.sqrt(n)
    middle = statistics.fmean(logs)
    return min(ordered[0], _exp(middle - reach)), max(ordered[-1], _exp(middle + reach))


@lru_cache(maxsize=1024)
def _ranks(n: int, confidence: float) -> tuple[int, float] | None:
    """Between which order statistics the bounds are: the k-th and the next, and the share of the way to the latter.

    None if even the smallest and the largest are too near each other for this confidence.
    """
    outside = 0.0  # the probability that the median is below the k-th or above the k-th largest
    for k in range(1, n // 2 + 2):
        further = outside + 2 * math.exp(math.lgamma(n + 1) - math.lgamma(k) - math.lgamma(n - k + 2) - n * math.log(2))
        if 1 - further < confidence:
            break
        outside = further
    k -= 1  # the last whose interval has the confidence
    if k == 0:
        return None
    if 2 * k >= n:  # the middle two: nothing lies between them
        return k, 0.0
    inner = (1 - outside - confidence) / (further - outside)
    return k, (n - k) * inner / (k + (n - 2 * k) * inner)


def _between(start: float, end: float, share: float) -> float:
    """A share of the way from one number to another, on a logarithmic scale; exact if both are equal."""
    return start if start == end or share == 0 else start * (end / start) ** share


def _combined(*factors: float) -> float:
    """The factor by which a product is uncertain whose terms are so by these factors, independently."""
    return _exp(math.hypot(*(math.log(factor) for factor in factors)))


def _quotient(a: float, b: float) -> float:
    return a / b if b > 0 else math.inf


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf
