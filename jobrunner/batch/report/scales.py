"""Axes: round numbers to label them with, and where a value lies on them."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Sequence

__all__ = ["Scale", "familiar_ticks", "linear", "logarithmic", "round_step", "spread_asks_for_log", "time_step"]

#: Steps of time that people count in, in seconds.
_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


@dataclasses.dataclass(frozen=True)
class Scale:
    """Maps values to positions from 0 to 1.

    Attributes:
        least, most: the values at 0 and 1.
        log: whether it is logarithmic.
        ticks: round values within, ascending.
    """

    least: float
    most: float
    log: bool
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """The position of a value."""
        if self.log:
            least = math.log(self.least)
            return (math.log(value) - least) / (math.log(self.most) - least)
        return (value - self.least) / (self.most - self.least)


def round_step(span: float, count: int) -> float:
    """The least of 1, 2, 5 times a power of ten that divides `span` into at most `count` parts.

    Example:
        >>> round_step(10, 5), round_step(0.9, 5)
        (2.0, 0.2)
    """
    power = 10.0 ** math.floor(math.log10(span / count))
    for factor in (1, 2, 5):
        if span / (factor * power) <= count * (1 + 1e-9):
            return factor * power
    return 10 * power


def time_step(span: float, count: int) -> float:
    """The least step of seconds, minutes, hours or days that divides `span` seconds into at most `count` parts.

    Example:
        >>> time_step(3600, 4), time_step(0.4, 4), time_step(864000, 5)
        (900, 0.1, 172800.0)
    """
    if span / count <= 0.5:
        return round_step(span, count)
    if span / count > _TIME_STEPS[-1]:
        return 86400 * max(1.0, round_step(span / 86400, count))
    return _TIME_STEPS[bisect.bisect_left(_TIME_STEPS, span / count * (1 - 1e-9))]


def linear(least: float, most: float, *, ticks: int = 5, whole: bool = False, snug: bool = False) -> Scale:
    """A linear scale that begins and ends at ticks.

    Args:
        least, most: what it has to show; if they are one value, the scale reaches around it.
        ticks: about how many to have.
        whole: whether values are counts, so that no tick lies between two whole numbers.
        snug: whether it ends at the values themselves rather than at ticks.

    Example:
        >>> linear(0, 9.3).ticks
        (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)
    """
    if most <= least:
        around = abs(least) * 0.1 or 1.0
        least, most = least - around, most + around
    span = most - least
    if span <= max(abs(least), abs(most), 1e-290) * 1e-8:  # no digits are left to tell ticks apart
        return Scale(least, most, False, (least,))
    step = round_step(span, ticks)
    if whole:
        step = max(1.0, step)
    if snug:
        first, last = math.ceil(least / step - 1e-6), math.floor(most / step + 1e-6)
    else:
        first, last = math.floor(least / step + 1e-6), math.ceil(most / step - 1e-6)
        least, most = first * step, last * step
    # Rounded to the step's own digits: 3 * 0.1 is not to be told as 0.30000000000000004.
    digits = max(0, 2 - math.floor(math.log10(step)))
    places = [round(index * step, digits) if digits < 300 else index * step for index in range(first, last + 1)]
    return Scale(least, most, False, tuple(places))


def logarithmic(least: float, most: float, *, ticks: int = 6) -> Scale:
    """A logarithmic scale around `least` and `most`, both positive.

    Its ticks are powers of ten, with 2 and 5 times these where it spans few, and some powers only where it spans
    many; where it has less than two of these, those of a linear scale.

    Example:
        >>> logarithmic(0.3, 40).ticks
        (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
    """
    if most <= least:
        least, most = least / 2, most * 2
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    for factors, every in (((1, 2, 5), 1), ((1, 3), 1), *(((1,), every) for every in (1, 2, 3, 5, 10, 20, 50, 100))):
        found = [factor * 10.0**power for power in range(low, high + 1) if power % every == 0 for factor in factors]
        within = tuple(value for value in found if least * (1 - 1e-9) <= value <= most * (1 + 1e-9))
        if len(within) <= ticks:
            break
    if len(within) < 2:  # it is narrow
        within = linear(least, most, snug=True).ticks
    return Scale(least, most, True, within)


def familiar_ticks(least: float, most: float, count: int, *, binary: bool) -> tuple[float, ...]:
    """Ticks of a logarithmic axis of durations, or of sizes: values that people know.

    Args:
        least, most: what lies between, in seconds or bytes.
        count: at most so many, unless even the sparsest choice has more.
        binary: whether these are sizes.

    Example:
        >>> familiar_ticks(0.5, 5000, 6, binary=False)
        (1.0, 10.0, 60.0, 600.0, 3600.0)
        >>> [tick / 2**20 for tick in familiar_ticks(2**20, 2**30, 6, binary=True)]
        [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0]
    """
    if binary:
        choices = [[2.0 ** (power * every) for power in range(60 // every)] for every in (1, 2, 5, 10)]
    else:
        sparse = [*(10.0**power for power in range(-9, 2)), *(60.0 * 10**power for power in (0, 1))]
        sparse += [3600.0 * 10**power for power in range(6)]
        dense = sorted([*sparse, *(3 * value for value in sparse)])
        choices = [dense, sparse, sparse[::2], sparse[::4]]
    within: tuple[float, ...] = ()
    for choice in choices:
        within = tuple(value for value in choice if least * (1 - 1e-9) <= value <= most * (1 + 1e-9))
        if len(within) <= count:
            break
    return within


def spread_asks_for_log(values: Sequence[float], ratio: float) -> bool:
    """Whether sorted values are positive, span more than `ratio`, and lie mostly at the lower end.

    Example:
        >>> spread_asks_for_log([1, 10, 100, 1000], 50), spread_asks_for_log(list(range(1, 1000)), 50)
        (True, False)
    """
    if not values or values[0] < 1e-250 or values[-1] < ratio * values[0]:
        return False
    return values[len(values) // 2] < (values[0] + values[-1]) / 4
