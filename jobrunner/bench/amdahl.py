"""How a batch scales with its workers: speedups, efficiencies, and the serial fraction of Amdahl's law.

Amdahl's law (G. M. Amdahl, AFIPS Conf. Proc. 30 (1967) 483) says that w workers need the time

    T(w) = a * (s + (1 - s) / w)

where a is the time of one, and s the share of it that only one can work at.  Both are fitted: the law is a straight
line in 1/w, ``p + q / w`` with ``s = p / (p + q)``, and the squares of relative residuals are least, since noise is a
share of the time.  To fix a at the measured T(1) would be simpler, but the error of that one time would be in all
speedups, and it needs the width 1.

The interval of s is that of the noise of samples (`jobrunner.bench.intervals.resampled_half`).  Whether the law holds
at all is another question: `Amdahl.deviation` answers it, and the text says so where the law misses by more than noise
does.  In simulated runs of 2 to 20 rounds, with noise of 2 % and with or without a drift of 10 %, the interval from
five widths excluded the true s in 1 to 6 of 100.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from jobrunner.bench.intervals import Estimate, ratio_interval, resampled_half, resampled_medians

__all__ = ["Amdahl", "fit_amdahl"]

_DEVIATION = 0.05
"""How far the measured times may be off the law, as a share, before the text tells it."""


@dataclass(frozen=True, kw_only=True)
class Amdahl:
    """A fitted serial fraction, and the speedups that it was fitted to.

    Attributes:
        serial: the share of one worker's time that does not get shorter with more, with its interval.  Below 0 if w
            workers are more than w times as fast; 1 if more workers bring nothing, above if they slow it down.
        seconds: the time of one worker in the fitted law; it may be extrapolated.
        widths: the numbers of workers that have samples, ascending.
        speedups: how many times as fast as the smallest width, for each of `widths`, paired over rounds; the first is
            1.
        efficiencies: the speedups, divided by how many times as many workers there are; the first is 1.
        deviation: the largest difference of a measured time (the median) from the law, as a share of the law's.
        text: what can be said, in a few words.

    The law's time at w workers is ``seconds * (serial.value + (1 - serial.value) / w)``.
    """

    serial: Estimate
    seconds: float
    widths: tuple[int, ...]
    speedups: tuple[Estimate, ...]
    efficiencies: tuple[Estimate, ...]
    deviation: float
    text: str


def fit_amdahl(
    widths: Sequence[int], rounds: Sequence[Sequence[float | None]], *, confidence: float = 0.95
) -> Amdahl | None:
    """Fits Amdahl's law to the times that one batch took with several numbers of workers.

    Args:
        widths: distinct numbers of workers, in any order.
        rounds: ``rounds[i][j]`` is the seconds that the batch took with ``widths[j]`` workers in round i; None if there
            is no sample.  A width without any sample is left out.
        confidence: of the intervals, between 0 and 1.

    Returns:
        The fit; None if fewer than two widths have samples.  With one round nothing is known of the noise, and the
        intervals are infinite.  So is that of a speedup whose widths share only one round, or none.

    Raises:
        ValueError: widths are not distinct and positive, or a round has another number of samples than there are
            widths.

    Example:
        >>> rounds = [[level * (0.1 + 0.9 / w) for w in (1, 2, 4, 8)] for level in (10.0, 10.1, 10.2)]
        >>> amdahl = fit_amdahl([1, 2, 4, 8], rounds)
        >>> amdahl.text
        'serial fraction 10.0 % (10.0 % to 10.0 %)'
        >>> [round(speedup.value, 2) for speedup in amdahl.speedups]
        [1.0, 1.82, 3.08, 4.71]
    """
    if len(set(widths)) < len(widths) or not all(width >= 1 for width in widths):
        raise ValueError(f"widths must be distinct numbers of workers, not {list(widths)}")
    if any(len(samples) != len(widths) for samples in rounds):
        raise ValueError(f"each round needs one sample, or None, of each of the {len(widths)} widths")
    kept = [j for j in sorted(range(len(widths)), key=widths.__getitem__) if any(r[j] is not None for r in rounds)]
    if len(kept) < 2:
        return None
    ordered = tuple(widths[j] for j in kept)
    columns = [[r[j] for r in rounds] for j in kept]
    levelled, level = _levelled(columns)
    medians = [statistics.median(x for x in column if x is not None) for column in zip(*levelled, strict=True)]
    a, s = _line(ordered, medians)
    law = [a * (s + (1 - s) / w) for w in ordered]
    deviation = max(abs(m / t - 1) for m, t in zip(medians, law, strict=True))
    draws = resampled_medians(levelled)
    serials = [_line(ordered, drawn)[1] for drawn in draws]
    half = resampled_half(serials, len(rounds), confidence=confidence) if len(rounds) > 1 else math.inf
    serial = Estimate(value=s, low=s - half, high=s + half)
    speedups = tuple(_speedup(columns[0], column, confidence) for column in columns)
    efficiencies = tuple(_scaled(e, ordered[0] / w) for e, w in zip(speedups, ordered, strict=True))
    noise = max(
        resampled_half([math.log(drawn[j]) for drawn in draws], len(rounds), confidence=confidence)
        for j in range(len(ordered))
    )
    misses = deviation > max(noise, _DEVIATION) and len(rounds) > 1
    return Amdahl(
        serial=serial,
        seconds=a * level,
        widths=ordered,
        speedups=speedups,
        efficiencies=efficiencies,
        deviation=deviation,
        text=_text(serial) + (f"; up to {deviation:.0%} off Amdahl's law".replace("%", " %") if misses else ""),
    )


def _line(widths: Sequence[int], times: Sequence[float]) -> tuple[float, float]:
    """The time of one worker and the serial fraction, by least squares of relative residuals of p + q / w."""
    # Each equation p + q / w = t is divided by t, and so says u * p + v * q = 1.
    u = [1 / t for t in times]
    v = [1 / (w * t) for w, t in zip(widths, times, strict=True)]
    uu, uv, vv = (math.fsum(x * y for x, y in zip(xs, ys, strict=True)) for xs, ys in ((u, u), (u, v), (v, v)))
    su, sv = math.fsum(u), math.fsum(v)
    p = su * vv - sv * uv
    q = sv * uu - su * uv
    return (p + q) / (uu * vv - uv * uv), p / (p + q)


def _levelled(columns: Sequence[Sequence[float | None]]) -> tuple[list[list[float | None]], float]:
    """The rounds, each divided by the geometric mean of its samples; and the median of what they were divided by.

    The serial fraction is one of ratios only, so it stays; but a drift over rounds is no noise any more.  If a round
    lacks a sample its mean is of other widths, and nothing is divided.
    """
    rounds = [list(samples) for samples in zip(*columns, strict=True)]
    whole = [[x for x in samples if x is not None] for samples in rounds]
    if any(len(samples) < len(columns) for samples in whole):
        return rounds, 1.0
    levels = [statistics.geometric_mean(samples) for samples in whole]
    return [[x / level for x in samples] for samples, level in zip(whole, levels, strict=True)], statistics.median(
        levels
    )


def _speedup(first: Sequence[float | None], other: Sequence[float | None], confidence: float) -> Estimate:
    pairs = [(a, b) for a, b in zip(first, other, strict=True) if a is not None and b is not None]
    if not pairs:
        value = statistics.median(a for a in first if a is not None) / statistics.median(
            b for b in other if b is not None
        )
        return Estimate(value=value, low=0.0, high=math.inf)
    if first is other:
        return Estimate(value=1.0, low=1.0, high=1.0)
    return ratio_interval([a for a, _ in pairs], [b for _, b in pairs], paired=True, confidence=confidence)


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    return Estimate(value=estimate.value * factor, low=estimate.low * factor, high=estimate.high * factor)


def _text(serial: Estimate) -> str:
    if math.isinf(serial.high):
        return f"serial fraction about {_percent(serial.value)}, from one round"
    if serial.low <= 0 and serial.high >= 1:
        return f"serial fraction about {_percent(serial.value)}, but the runs vary too much to tell"
    if serial.high < 0:
        return "no serial part: more than w times as fast with w workers"
    if serial.low <= 0:
        return f"no serial part seen (at most {_percent(serial.high)})"
    if serial.high >= 1:
        return f"no speedup seen (serial fraction at least {_percent(serial.low)})"
    return f"serial fraction {_percent(serial.value)} ({_percent(serial.low)} to {_percent(serial.high)})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
