"""What makes samples doubtful, in plain sentences, as pyperf and hyperfine say it.

Each check is a function of its own that gives a sentence or None.  All but that of few samples are quiet about steady
ones: of 5000 series of normal noise of 1 %, with 2 to 100 samples, `drift` warned of 0.9 % at most (it is 1 % by its
making), and none of the others of any.  With noise of 3 %, `slow_first` and `outliers` warn of 3 % and 2 % of series of
five samples, and of fewer in longer ones.

- pyperf: `format_checks` in ``pyperf/_cli.py`` of version 2.11, and https://pyperf.readthedocs.io/en/latest/analyze.html
- hyperfine: ``src/outlier_detection.rs`` and ``src/output/warnings.rs`` of https://github.com/sharkdp/hyperfine
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

from jobrunner.bench.intervals import student_quantile

__all__ = ["drift", "few_samples", "outliers", "slow_extreme", "slow_first", "spread", "warnings_of"]

_FEW = 5
"""So many are needed for an interval of the median that assumes nothing, at 94 %: see `jobrunner.bench.intervals`."""

_OUTLIER = 10 * 1.4826
"""Median absolute deviations from the median; 1.4826 of them are a standard deviation of a normal distribution."""

_FIRST = 3.5 * 1.4826

_NOTABLE = 0.05
"""Less than this share of the median is no matter, however steady the other samples are."""


def warnings_of(samples: Sequence[float]) -> list[str]:
    """All that is doubtful about a series of samples.

    Args:
        samples: seconds, each above 0, in the order in which they were taken; may be empty.

    Returns:
        A sentence for each check that isn't content, without a full stop.  A slow first sample is told as such only:
        the other checks, but that of few samples, then look at the rest.

    Example:
        >>> warnings_of([1.30, 1.01, 0.99, 1.00, 1.02, 1.00])
        ['the first sample took 30 % longer than the median of the others: caches may have been cold, so warm up']
        >>> warnings_of([1.01, 0.99, 1.00, 1.02, 1.00])
        []
    """
    if not samples:
        return []
    first = slow_first(samples)
    rest = samples[1:] if first else samples
    found = (few_samples(samples), first, outliers(rest), spread(rest), slow_extreme(rest), drift(rest))
    return [sentence for sentence in found if sentence is not None]


def few_samples(samples: Sequence[float]) -> str | None:
    """Fewer than five: the interval of the median needs an assumption, or is infinite.

    Example:
        >>> few_samples([1.0, 1.1])
        'only 2 samples: take at least 5, better 20'
    """
    n = len(samples)
    return f"only {n} sample{'s' * (n != 1)}: take at least {_FEW}, better 20" if n < _FEW else None


def outliers(samples: Sequence[float]) -> str | None:
    """Samples farther from the median than 14.8 median absolute deviations, which is hyperfine's bound.

    It is ten standard deviations of normal noise; the modified z-score is that of B. Iglewicz and D. Hoaglin, "How to
    Detect and Handle Outliers", 1993.  Other than hyperfine's, an outlier is at least 5 % off, too, or else steady
    samples of a coarse clock would have many; and of fewer than five samples none is.

    Example:
        >>> outliers([1.0, 1.01, 0.99, 1.02, 1.0, 2.0])
        '1 of 6 samples is an outlier, more than ten standard deviations from the rest: was the machine busy?'
    """
    n = len(samples)
    if n < _FEW:
        return None
    median, bound = _median_and_bound(samples, _OUTLIER)
    count = sum(abs(x - median) > bound for x in samples)
    if not count:
        return None
    subject = f"{count} of {n} samples {'is an outlier' if count == 1 else 'are outliers'}"
    return f"{subject}, more than ten standard deviations from the rest: was the machine busy?"


def slow_first(samples: Sequence[float]) -> str | None:
    """The first sample is the slowest, and far off the others: hyperfine's warning of caches that were cold.

    "Far" is a modified z-score above 3.5 among the others, the bound of Iglewicz and Hoaglin, and 5 %.  Hyperfine's own
    bound is that of outliers; but here the suspect is known before.  Fewer than four others don't tell.

    Example:
        >>> slow_first([1.2, 1.0, 1.01, 0.99, 1.0])
        'the first sample took 20 % longer than the median of the others: caches may have been cold, so warm up'
    """
    if len(samples) < _FEW:
        return None
    first, others = samples[0], samples[1:]
    median, bound = _median_and_bound(others, _FIRST)
    if first <= max(others) or first - median <= bound:
        return None
    longer = _percent(first / median - 1)
    return f"the first sample took {longer} longer than the median of the others: caches may have been cold, so warm up"


def spread(samples: Sequence[float]) -> str | None:
    """The standard deviation is 10 % of the mean or more: pyperf's bound.

    Example:
        >>> spread([1.0, 1.5, 0.8])
        'the standard deviation is 33 % of the mean'
    """
    if len(samples) < 2:
        return None
    share = statistics.stdev(samples) / statistics.fmean(samples)
    return f"the standard deviation is {_percent(share)} of the mean" if share >= 0.1 else None


def slow_extreme(samples: Sequence[float]) -> str | None:
    """The slowest sample is 50 % above the median or more.

    The bound is pyperf's, which compares with the mean; the median does not follow the very sample that is looked at.

    Example:
        >>> slow_extreme([1.0, 1.0, 1.7])
        'the slowest sample is 70 % above the median'
    """
    excess = max(samples) / statistics.median(samples) - 1 if samples else 0.0
    return f"the slowest sample is {_percent(excess)} above the median" if excess >= 0.5 else None


def drift(samples: Sequence[float]) -> str | None:
    """The samples become slower or faster over the run: by their ranks, with p < 0.01, and by more than 2 %.

    The test is that of Spearman's rank correlation of sample and time, with Student's t of n - 2 degrees of freedom
    (M. G. Kendall, "Rank Correlation Methods", 1948); the size is the difference of the medians of the last and the
    first third, whose middles are two thirds of the run apart.  Fewer than eight samples have no trend.

    Example:
        >>> drift([1.00, 1.02, 1.01, 1.03, 1.05, 1.04, 1.06, 1.07, 1.08])
        'the samples drift: the last third took 6 % longer than the first, so the machine changed during the run'
    """
    n = len(samples)
    if n < 8:
        return None
    third = n // 3
    change = statistics.median(samples[-third:]) / statistics.median(samples[:third]) - 1
    if abs(change) <= 0.02 * 2 / 3:
        return None
    rho = _rank_correlation(samples)
    if abs(rho) * math.sqrt(n - 2) <= student_quantile(0.99, n - 2) * math.sqrt(max(0.0, 1 - rho * rho)):
        return None
    how = f"{_percent(abs(change))} {'longer' if change > 0 else 'less'} than the first"
    return f"the samples drift: the last third took {how}, so the machine changed during the run"


def _median_and_bound(samples: Sequence[float], deviations: float) -> tuple[float, float]:
    """The median, and how far from it is far: so many median absolute deviations, and notable at all."""
    median = statistics.median(samples)
    mad = statistics.median(abs(x - median) for x in samples)
    return median, max(deviations * mad, _NOTABLE * median)


def _rank_correlation(samples: Sequence[float]) -> float:
    """Spearman's coefficient of the samples and their places; 0 if they are all equal."""
    n = len(samples)
    ranks = [0.0] * n
    place = 0
    for _, tied in itertools.groupby(sorted(range(n), key=samples.__getitem__), key=samples.__getitem__):
        members = list(tied)
        for i in members:
            ranks[i] = place + (len(members) - 1) / 2
        place += len(members)
    middle = (n - 1) / 2
    both = math.fsum((i - middle) * (rank - middle) for i, rank in enumerate(ranks))
    squares = math.fsum((rank - middle) ** 2 for rank in ranks) * math.fsum((i - middle) ** 2 for i in range(n))
    return both / math.sqrt(squares) if squares else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
