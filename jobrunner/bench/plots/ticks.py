"""Axes of plots: units of time, round numbers on logarithmic axes, and what has room beside one another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

__all__ = ["decimal_ticks", "number_text", "spaced", "time_text", "time_unit"]

#: Seconds and name of each unit, the largest first.
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))

#: What a number of a logarithmic axis may begin with, from many ticks to few.
_LEADING: tuple[tuple[float, ...], ...] = (
    (1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, *(x / 10 for x in range(20, 100, 2))),
    (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8),
    (1, 1.5, 2, 3, 5, 7),
    (1, 2, 5),
    (1, 3),
    (1,),
)


def time_unit(seconds: float) -> tuple[float, str]:
    """The unit in which a time is told: its seconds, and its name.

    Example:
        >>> time_unit(0.02)
        (0.001, 'ms')
    """
    return next((unit for unit in _UNITS if seconds >= unit[0] * (1 - 1e-9)), _UNITS[-1])


def time_text(seconds: float, *, zeros: bool = False) -> str:
    """A time with its unit, of four digits.

    Args:
        seconds: the time.
        zeros: whether zeros at its end are written, too: a measured number has its digits, a tick needs none.

    Example:
        >>> time_text(0.02), time_text(0.02, zeros=True), time_text(1.23456e-6)
        ('20 ms', '20.00 ms', '1.235 µs')
    """
    size, name = time_unit(float(f"{seconds:.4g}"))
    number = float(f"{seconds / size:.4g}")
    if number >= 1000:
        return f"{number:,.0f} {name}"
    return f"{number:#.4g} {name}" if zeros else f"{number:.4g} {name}"


def number_text(number: float) -> str:
    """A number for a tick; a long one has a suffix, and no more than four digits.

    Example:
        >>> number_text(0.5), number_text(10_000), number_text(65536), number_text(2_500_000_000)
        ('0.5', '10k', '65536', '2.5G')
    """
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if max(size, 1e4) <= number < 1e15:
            text = f"{number / size:.4g}"
            return text + suffix if number >= 1e6 or float(text) * size == number else f"{number:.6g}"
    return f"{number:.6g}"


def decimal_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between `low` and `high`, both above 0, for a logarithmic axis: at most `most`.

    Example:
        >>> decimal_ticks(0.008, 12), decimal_ticks(1.5, 30)
        ([0.01, 0.1, 1.0, 10.0], [2.0, 5.0, 10.0, 20.0])
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for leading in _LEADING:
        # By text, since 3 * 10**-6 is not quite 3e-06.
        every = [float(f"{digit}e{power}") for power in powers for digit in leading]
        found = [tick for tick in every if low <= tick <= high]
        if len(found) <= most:
            break
    stride = next(step for step in itertools.count(1) if len(found[::step]) <= most)
    return found[::stride]


def spaced(places: Sequence[float], least: float) -> list[int]:
    """Which of some places, ascending, are `least` apart at least: the first, the last and what fits between.

    Example:
        >>> spaced([0, 1, 2, 5, 9, 10], 2)
        [0, 2, 3, 5]
    """
    kept: list[int] = []
    last = len(places) - 1
    for number, place in enumerate(places):
        if number not in (0, last) and (place - places[kept[-1]] < least or places[last] - place < least):
            continue
        if number != 0 and place - places[kept[-1]] < least:
            continue
        kept.append(number)
    return kept
