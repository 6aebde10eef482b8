"""Histograms of what jobs took."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from jobrunner.batch.report.model import Histogram
from jobrunner.batch.report.scales import round_step, spread_asks_for_log

__all__ = ["histogram"]

#: Values that spread over more than this factor, most of them at the lower end, get a logarithmic axis.
_LOG_FROM = 50.0
#: A clock that is off may tell anything.
_LARGEST = 1e30
_LEAST_BINS = 6
_MOST_BINS = 40


def histogram(quantity: str, done: Sequence[float], failed: Sequence[float]) -> Histogram | None:
    """The histogram of a quantity; None where no value is known.

    Args:
        quantity: its name, as in `Histogram`.
        done: its values in jobs that were done.
        failed: its values in jobs that failed.

    Example:
        >>> made = histogram("run_s", [1.0, 1.5, 2.0, 3.0], [])
        >>> made.edges, made.done
        ((1.0, 1.5, 2.0, 2.5, 3.0), (1, 1, 1, 1))
    """
    values = sorted(value for part in (done, failed) for value in part if 0 <= value <= _LARGEST)
    if not values:
        return None
    log = spread_asks_for_log([value for value in values if value > 0], _LOG_FROM)
    edges = _log_edges(values) if log else _edges(values, quantity)
    count = len(values)
    return Histogram(
        quantity=quantity,
        edges=edges,
        done=_count(done, edges),
        failed=_count(failed, edges),
        log=log,
        count=count,
        least=values[0],
        median=(values[(count - 1) // 2] + values[count // 2]) / 2,
        mean=math.fsum(values) / count,
        p95=values[max(0, math.ceil(0.95 * count) - 1)],
        most=values[-1],
    )


def _target(values: Sequence[float]) -> int:
    """How many bins suit so many values: the square root rule, within bounds."""
    return min(_MOST_BINS, max(_LEAST_BINS, math.ceil(math.sqrt(len(values)))))


def _edges(values: Sequence[float], quantity: str) -> tuple[float, ...]:
    """Round edges, so that the ticks of an axis lie on them."""
    least, most = values[0], values[-1]
    # Memory is told in MiB, so its round numbers are those.
    unit = 2.0**20 if quantity.endswith("_bytes") else 1.0
    least, most = least / unit, most / unit
    if most - least <= most * 1e-9:  # one value, but for its last digits
        least, most = (least * 0.75, least * 1.25) if least > 1e-30 else (0.0, 1.0)
    span = most - least
    step = round_step(span, _target(values))
    first = math.floor(least / step + 1e-9)
    last = max(first + 1, math.ceil(most / step - 1e-9))
    return tuple(float(f"{index * step:.12g}") * unit for index in range(first, last + 1))


def _log_edges(values: Sequence[float]) -> tuple[float, ...]:
    """Edges at equal parts of each power of ten; a zero counts in the first bin."""
    positive = values[bisect.bisect_right(values, 0.0) :]
    low, high = math.log10(positive[0]), math.log10(positive[-1])
    parts = next((parts for parts in (10, 5, 4, 3, 2, 1) if (high - low) * parts <= _target(values)), 1)
    first, last = math.floor(low * parts + 1e-9), math.ceil(high * parts - 1e-9)
    return tuple(float(f"{10.0 ** (index / parts):.12g}") for index in range(first, max(first + 1, last) + 1))


def _count(values: Sequence[float], edges: Sequence[float]) -> tuple[int, ...]:
    counts = [0] * (len(edges) - 1)
    for value in values:
        if 0 <= value <= _LARGEST:
            counts[min(len(counts) - 1, max(0, bisect.bisect_right(edges, value) - 1))] += 1
    return tuple(counts)
