"""How time grows with size: the exponent of a power law, and which of the usual laws the samples leave open.

The line is that of least squares through the logarithms of the medians against those of the sizes.  What is known of
its slope is limited twice, and the wider of the two intervals is given:

- by the noise of the samples: rounds are drawn anew (`jobrunner.bench.intervals.resampled_medians`, `resampled_half`);
- by the misfit of the line: Student's t with k - 2 degrees of freedom times the slope's standard error from the
  residuals of the k sizes (N. R. Draper and H. Smith, "Applied Regression Analysis", 3rd ed., 1998, section 1.4).

A law, such as n log n, is a curve on these axes with one free factor.  It is open if the slope of its own line over
these sizes lies in the interval, and the samples don't bend away from it.  The bend is measured by the parabola of
least squares through the differences of the logarithms: a law is excluded if the parabola's middle is more than 10 %
off its ends, and by more than noise explains.

In simulated runs with noise of 1 to 10 %, the law that the times followed was excluded in 2 to 5 of 100.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jobrunner.bench.intervals import Estimate, ratio_interval, resampled_half, resampled_medians, student_quantile

__all__ = ["Growth", "fit_growth"]

_CONSTANT = "constant"

# Logarithms of the laws, simplest first.  Those with log n need sizes above 1, where it is positive.
_LAWS: dict[str, Callable[[float], float]] = {
    _CONSTANT: lambda n: 0.0,
    "log n": lambda n: math.log(math.log(n)),
    "sqrt n": lambda n: math.log(n) / 2,
    "n": lambda n: math.log(n),
    "n log n": lambda n: math.log(n) + math.log(math.log(n)),
    "n^1.5": lambda n: 1.5 * math.log(n),
    "n^2": lambda n: 2 * math.log(n),
    "n^2 log n": lambda n: 2 * math.log(n) + math.log(math.log(n)),
    "n^3": lambda n: 3 * math.log(n),
    "2^n": lambda n: n * math.log(2),
}

_BEND = 0.1
"""How far the middle of the sizes may be off a law, as a share: caches bend the time of any program by so much."""

_NOTABLE = 1.1
"""What changes by less from the smallest size to the largest may be called constant."""

_TOO_MANY = 3
"""A text that leaves more laws open than these says less than the interval does."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """A fitted power law, and what else the samples may be.

    Attributes:
        exponent: b of time = factor * n**b, with its interval.
        factor: seconds at size 1 of the fitted line.
        names: the usual laws that are not excluded, simplest first, of: constant, log n, sqrt n, n, n log n, n^1.5,
            n^2, n^2 log n, n^3, 2^n.  Those with log n need sizes above 1.
        slopes: the exponents between the two smallest sizes and between the two largest.
        bent: the samples bend away from any power law.
        text: what can be said, in a few words.
    """

    exponent: Estimate
    factor: float
    names: tuple[str, ...]
    slopes: tuple[float, float]
    bent: bool
    text: str


def fit_growth(
    sizes: Sequence[float], rounds: Sequence[Sequence[float | None]], *, confidence: float = 0.95
) -> Growth | None:
    """Fits time ~ n**b, and finds out which of the usual laws are open.

    Args:
        sizes: distinct positive numbers, in any order.
        rounds: ``rounds[i][j]`` is the sample of ``sizes[j]`` in round i, in seconds; None if there is none.  A size
            without any sample is left out.
        confidence: of the exponent's interval, between 0 and 1.

    Returns:
        The fit; None if fewer than three sizes have samples.  With one round, nothing is known of the noise, and the
        interval is that of the misfit.

    Raises:
        ValueError: sizes are not distinct and positive, or a round has another number of samples than there are sizes.

    Example:
        >>> rounds = [[level * size**2 * 1e-9 for size in (10, 100, 1000, 10000)] for level in (1.0, 1.02, 0.99)]
        >>> growth = fit_growth([10, 100, 1000, 10000], rounds)
        >>> growth.text, round(growth.exponent.value, 3)
        ('n^2', 2.0)
        >>> fit_growth([10, 100], [[0.1, 1.0]]) is None
        True
    """
    if len(set(sizes)) < len(sizes) or not all(0 < size < math.inf for size in sizes):
        raise ValueError(f"sizes must be distinct positive numbers, not {list(sizes)}")
    if any(len(samples) != len(sizes) for samples in rounds):
        raise ValueError(f"each round needs one sample, or None, of each of the {len(sizes)} sizes")
    kept = [j for j in sorted(range(len(sizes)), key=sizes.__getitem__) if any(r[j] is not None for r in rounds)]
    if len(kept) < 3:
        return None
    ordered = [sizes[j] for j in kept]
    samples = [[r[j] for j in kept] for r in rounds]
    fit = _Fit(ordered, samples, confidence)
    moves = _moves(samples)
    names = tuple(name for name, law in _LAWS.items() if fit.allows(law) and not (moves and name == _CONSTANT))
    bent = fit.bends([0.0] * len(kept))
    slopes = fit.slope_between(0, 1), fit.slope_between(-2, -1)
    return Growth(
        exponent=fit.exponent,
        factor=math.exp(fit.intercept),
        names=names,
        slopes=slopes,
        bent=bent,
        text=_text(fit.exponent, names, slopes, bent),
    )


class _Fit:
    """The line through the medians, and what noise does to it."""

    def __init__(self, sizes: Sequence[float], rounds: Sequence[Sequence[float | None]], confidence: float) -> None:
        self.sizes = sizes
        self.confidence = confidence
        self.x = [math.log(size) for size in sizes]
        self.y = [
            math.log(statistics.median(s for s in column if s is not None)) for column in zip(*rounds, strict=True)
        ]
        self.rounds = len(rounds)
        self.draws = [[math.log(m) for m in medians] for medians in resampled_medians(rounds)]
        self.weights = _slope_weights(self.x)
        self.bend_weights = _bend_weights(self.x)
        slope = _dot(self.weights, self.y)
        self.intercept = statistics.fmean(self.y) - slope * statistics.fmean(self.x)
        half = max(self._noise(self.weights), self._misfit(slope))
        self.exponent = Estimate(value=slope, low=slope - half, high=slope + half)

    def _noise(self, weights: Sequence[float]) -> float:
        """Half the interval of the sum of the logarithms with these weights; 0 if nothing is known of it."""
        moved = [_dot(weights, draw) for draw in self.draws]
        return resampled_half(moved, self.rounds, confidence=self.confidence)

    def _misfit(self, slope: float) -> float:
        """Half the slope's interval, from the residuals."""
        residuals = [y - self.intercept - slope * x for x, y in zip(self.x, self.y, strict=True)]
        degrees = len(self.x) - 2
        variance = math.fsum(r * r for r in residuals) / degrees
        return student_quantile(self.confidence, degrees) * math.sqrt(variance * math.fsum(w * w for w in self.weights))

    def allows(self, law: Callable[[float], float]) -> bool:
        """Whether the samples leave this law open."""
        try:
            logs = [law(size) for size in self.sizes]
        except ValueError:  # the logarithm of what is not positive
            return False
        # A law's own slope may differ from the exponent by what floats do, even where the interval has no width.
        inside = abs(_dot(self.weights, logs) - self.exponent.value) <= self.exponent.high - self.exponent.value + 1e-9
        return inside and not self.bends(logs)

    def bends(self, logs: Sequence[float]) -> bool:
        """Whether the samples bend away from a curve, given by its logarithms."""
        if self.rounds < 2 and len(self.x) < 4:
            return False  # three points, of which nothing is known but that they are there
        differences = [y - log for y, log in zip(self.y, logs, strict=True)]
        bend = _dot(self.bend_weights, differences)
        noise = self._noise(self.bend_weights) if self.rounds > 1 else self._bend_misfit(differences, bend)
        return abs(bend) > max(noise, math.log1p(_BEND))

    def _bend_misfit(self, differences: Sequence[float], bend: float) -> float:
        """Half the interval of the bend from the parabola's own residuals, where there is one round only."""
        basis = _bend_basis(self.x)
        curved = [d - bend * b for d, b in zip(differences, basis, strict=True)]
        slope, level = _dot(self.weights, curved), statistics.fmean(curved)
        middle = statistics.fmean(self.x)
        residuals = [c - level - slope * (x - middle) for c, x in zip(curved, self.x, strict=True)]
        degrees = len(self.x) - 3
        variance = math.fsum(r * r for r in residuals) / degrees
        spread = math.sqrt(variance * math.fsum(w * w for w in self.bend_weights))
        return student_quantile(self.confidence, degrees) * spread

    def slope_between(self, i: int, j: int) -> float:
        return (self.y[j] - self.y[i]) / (self.x[j] - self.x[i])


def _slope_weights(x: Sequence[float]) -> list[float]:
    """The weights of y in the slope of least squares."""
    middle = statistics.fmean(x)
    total = math.fsum((a - middle) ** 2 for a in x)
    return [(a - middle) / total for a in x]


def _bend_basis(x: Sequence[float]) -> list[float]:
    """The parabola that is 0 at both ends and 1 in the middle."""
    middle, half = (x[0] + x[-1]) / 2, (x[-1] - x[0]) / 2
    return [1 - ((a - middle) / half) ** 2 for a in x]


def _bend_weights(x: Sequence[float]) -> list[float]:
    """The weights of y in the height of the middle of least squares' parabola above the line through its ends."""
    basis = _bend_basis(x)
    level, slope, middle = statistics.fmean(basis), _dot(_slope_weights(x), basis), statistics.fmean(x)
    rest = [b - level - slope * (a - middle) for a, b in zip(x, basis, strict=True)]  # what no line explains of it
    total = math.fsum(r * r for r in rest)
    return [r / total for r in rest]


def _dot(weights: Sequence[float], values: Sequence[float]) -> float:
    return math.fsum(w * v for w, v in zip(weights, values, strict=True))


def _moves(rounds: Sequence[Sequence[float | None]]) -> bool:
    """Whether the largest size takes notably more, or less, than the smallest: few sizes leave a line much room."""
    pairs = [(row[-1], row[0]) for row in rounds]
    both = [(last, first) for last, first in pairs if last is not None and first is not None]
    if not both:
        return False
    ratio = ratio_interval([last for last, _ in both], [first for _, first in both], paired=True)
    return ratio.excludes(1.0) and not 1 / _NOTABLE < ratio.value < _NOTABLE


def _text(exponent: Estimate, names: tuple[str, ...], slopes: tuple[float, float], bent: bool) -> str:
    first, last = (round(slope, 1) + 0.0 for slope in slopes)  # no -0.0
    if not names and bent and first != last:
        return f"{'rises' if last > first else 'falls'} from n^{first:.1f} to n^{last:.1f}: no single power"
    if not 0 < len(names) <= _TOO_MANY:
        digits = _digits(exponent)
        low, high = f"{exponent.low:.{digits}f}", f"{exponent.high:.{digits}f}"
        return f"n^{exponent.value:.{digits}f} ({low} to {high})"
    powers = not all("log" in name or name == "2^n" for name in names)
    # A law with a logarithm looks like a power over a few sizes: which of both it is, nobody can tell.
    also = () if powers or bent else (f"n^{exponent.value:.{_digits(exponent)}f}",)
    named = [*names, *also]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} or {named[-1]}"


def _digits(exponent: Estimate) -> int:
    """One digit where the interval is wide, two otherwise."""
    return 1 if exponent.high - exponent.low > 0.4 else 2
