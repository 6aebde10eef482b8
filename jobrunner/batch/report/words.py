"""Numbers, durations, sizes and moments as people read them."""

from __future__ import annotations

import datetime
import json
import math
from typing import Any

__all__ = [
    "clock",
    "count",
    "digits",
    "duration",
    "moment",
    "number",
    "offset_s",
    "percent",
    "short",
    "size",
    "spell",
    "value",
    "zone",
]


def number(value: float, digits: int = 4) -> str:
    """A number of so many significant digits, with a true minus sign.

    Example:
        >>> number(0.1 + 0.2), number(1234567.0), number(-1.5), number(2e-7)
        ('0.3', '1.235×10⁶', '−1.5', '2×10⁻⁷')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e-4 <= abs(value) < 10 ** max(digits, 5):
        text = f"{value:.{max(digits, math.floor(math.log10(abs(value))) + 1)}g}"
    else:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = f"{mantissa}×10{raised}" if mantissa not in ("1", "-1") else f"{mantissa[:-1]}10{raised}"
    return text.replace("-", "−")


def count(value: int) -> str:
    """A whole number, its thousands apart.

    Example:
        >>> count(50000)
        '50,000'
    """
    return f"{value:,}"


def spell(value: int, one: str, many: str | None = None) -> str:
    """A count with its noun.

    Example:
        >>> spell(1, "job"), spell(2000, "job")
        ('1 job', '2,000 jobs')
    """
    return f"{count(value)} {one if value == 1 else many or one + 's'}"


def percent(part: float) -> str:
    """A part of one, in percent.

    Example:
        >>> percent(0.987), percent(0.0012)
        ('99 %', '0.1 %')
    """
    return f"{100 * part:.0f} %" if part >= 0.0995 or part == 0 else f"{100 * part:.1f} %"


def duration(seconds: float) -> str:
    """A duration in the unit that suits it.

    Example:
        >>> duration(0.0021), duration(0.9999), duration(90), duration(5400), duration(200000)
        ('2.1 ms', '1 s', '1 min 30 s', '1 h 30 min', '2 d 8 h')
    """
    for bound, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (60.0, 1.0, "s")):
        if seconds * factor < (999.5 if factor > 1 else 59.95) and seconds < bound:
            return "0 s" if seconds == 0 else f"{seconds * factor:.3g} {unit}"
    for large, small, names in ((60, 1, ("min", "s")), (3600, 60, ("h", "min")), (86400, 3600, ("d", "h"))):
        parts = round(seconds / small)
        if parts * small < large * (60 if large == 60 else 24) or large == 86400:
            whole, rest = divmod(parts, large // small)
            return f"{count(whole)} {names[0]}" + (f" {rest} {names[1]}" if rest else "")
    raise AssertionError("the last unit takes all")


def digits(value: float, step: float, least: int = 1) -> int:
    """How many significant digits tell `value` apart from what is `step` away: at least `least`, at most 15.

    Example:
        >>> digits(21.52, 0.02), digits(5.0, 1.0), digits(5.0, 1.0, least=3)
        (5, 3, 3)
    """
    if value == 0 or not 0 < step < math.inf:
        return least
    return min(15, max(least, math.ceil(math.log10(abs(value)) - math.log10(step) + 1.5)))


def short(seconds: float, step: float = math.inf) -> str:
    """A duration for a tick: one number.

    Args:
        seconds: the duration.
        step: how far apart ticks are, in seconds; they are told apart.

    Example:
        >>> short(0.002), short(0.5), short(90), short(7200)
        ('2 ms', '0.5 s', '1:30 min', '2 h')
        >>> short(21.602, step=0.001), short(90.2, step=0.1), short(3605, step=5)
        ('21.602 s', '1:30.2 min', '1:00:05 h')
    """
    if 60 <= seconds < 3600 and step < 0.999:
        return f"{_clockwise(seconds, step)} min"
    if seconds >= 3600 and step < 59.9:
        return f"{_clockwise(seconds, step)} h"
    end = 86400 * 3 if step > 8639 else math.inf
    for reach, large, unit in ((3600, 60, "min"), (end, 3600, "h")):
        if large <= seconds < reach and round(seconds / (large // 60)) % 60:
            whole, rest = divmod(round(seconds / (large // 60)), 60)
            return f"{whole}:{rest:02d} {unit}"
    for bound, factor, unit in ((1e-3, 1e6, "µs"), (0.1, 1e3, "ms"), (60, 1.0, "s"), (3600, 1 / 60, "min")):
        if seconds < bound * (1 - 1e-9):
            return "0" if seconds == 0 else f"{seconds * factor:.{digits(seconds, step, 4)}g} {unit}"
    factor, unit = (3600, "h") if seconds < end else (86400, "d")
    return f"{seconds / factor:.{digits(seconds, step, 4)}g} {unit}"


def _clockwise(seconds: float, step: float) -> str:
    """Hours, minutes and seconds with as many decimals as ticks `step` apart need."""
    decimals = _decimals(step)
    whole, rest = divmod(round(seconds * 10**decimals), 60 * 10**decimals)
    last = f"{rest / 10**decimals:0{3 + decimals if decimals else 2}.{decimals}f}"
    return f"{whole // 60}:{whole % 60:02d}:{last}" if seconds >= 3600 else f"{whole}:{last}"


def _decimals(step: float) -> int:
    """Decimals of a second that tell moments `step` seconds apart."""
    return min(6, max(0, -math.floor(math.log10(step) + 1e-6)))


_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def size(bytes_: float, *, step: float = math.inf, unit: str | None = None) -> str:
    """A size in binary units.

    Args:
        bytes_: the size.
        step: how far apart ticks are, in bytes; they are told apart.
        unit: the unit; None: the one that suits the size.

    Example:
        >>> size(0), size(5 * 2**20), size(1.5 * 2**30), size(999.9 * 2**20)
        ('0 B', '5 MiB', '1.5 GiB', '0.976 GiB')
        >>> size(21.52 * 2**20, step=0.02 * 2**20), size(1500 * 2**20, unit="MiB")
        ('21.52 MiB', '1500 MiB')
    """
    if bytes_ == 0:
        return "0 B"
    known = digits(bytes_, step, 3)
    for name in _SIZES:
        if name == unit or (unit is None and bytes_ < 999.5) or name == _SIZES[-1]:
            break
        bytes_ /= 1024
    return f"{bytes_:.{known}g} {name}" if bytes_ < 10**known - 0.5 else f"{bytes_:.0f} {name}"


def moment(seconds: float) -> str:
    """A moment in the local time of the machine that makes the report."""
    return _local(seconds).strftime("%Y-%m-%d %H:%M:%S")


def clock(seconds: float, step: float) -> str:
    """A moment for the tick of an axis whose ticks are `step` seconds apart: the date at midnight, else the time."""
    there = _local(seconds)
    if step >= 86400 or (there.hour, there.minute, there.second, there.microsecond) == (0, 0, 0, 0):
        return f"{there.day} {there:%b}"
    if step < 1:
        return f"{there:%M:%S}.{there:%f}"[: 6 + _decimals(step)]
    return there.strftime("%H:%M" if step >= 60 else "%H:%M:%S")


def zone(seconds: float) -> str:
    """The local time zone then, as its offset.

    Example:
        >>> zone(0).startswith("UTC")
        True
    """
    offset = _local(seconds).strftime("%z")
    return "UTC" if offset == "+0000" else f"UTC{offset[:3]}:{offset[3:5]}"


def offset_s(seconds: float) -> float:
    """Seconds by which local time is ahead of UTC then."""
    offset = _local(seconds).utcoffset()
    return offset.total_seconds() if offset is not None else 0.0


def _local(seconds: float) -> datetime.datetime:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).astimezone()
    except (OverflowError, ValueError, OSError):  # a clock that is far off
        return datetime.datetime.fromtimestamp(0, datetime.timezone.utc)


def value(found: Any, width: int = 200) -> str:
    """A parameter's value, shortened.

    Example:
        >>> value(0.1), value("fast"), value([1, 2])
        ('0.1', 'fast', '[1, 2]')
    """
    text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    return text if len(text) <= width else f"{text[:width]}…"
