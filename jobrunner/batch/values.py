"""The values of parameters: how a text on the command line names them, and how they are written down.

The grammar of one ``key=text``, first match wins::

    whole JSON            16   0.5   true   null   "fast"   [1, 2]   {"a": 1}      one value
    a range               start:stop   start:stop:step                             its numbers, stop included if hit
    comma-separated       16,32,64   fast,slow   "a,b","c"                         one value an item
    text                  fast                                                     that text

An item of a comma-separated list is JSON if it reads as JSON, else text.  What looks like a range and is none
(``1:2:0``) is an error rather than a text, since it is a typo far more often; quoting makes it text: ``'"1:2:0"'``.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, overload

from jobrunner.errors import SpecError

__all__ = [
    "MAX_POINTS",
    "NumberRange",
    "canonical_json",
    "check_finite",
    "json_text",
    "looks_like_range",
    "parse_range",
    "parse_scalar",
    "parse_values",
    "plain",
]

#: More points than this are taken for a mistake, such as a step with a digit too few.
MAX_POINTS = 10_000_000

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
# Python's spelling of numbers that JSON lacks: .5, 5., +3 (and not 007, which is more often an identifier).
_SCALAR = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)

_RANGE_FORM = "expected a range start:stop or start:stop:step of finite numbers"
_QUOTE_IT = "for the text itself, quote it: '\"{text}\"'"


class NumberRange(Sequence[Any]):
    """The numbers ``(start + i * step) / scale`` for i from 0 to count - 1, computed when asked for.

    Each float is the correctly rounded quotient of two integers, so nothing drifts and the last one is the stop itself.

    Args:
        start: the first number, times `scale`.
        step: the distance, times `scale`.
        count: how many numbers.
        scale: the common denominator; None for whole numbers, which stay ints.

    Example:
        >>> list(NumberRange(15, 1, 3, 10))
        [1.5, 1.6, 1.7]
    """

    def __init__(self, start: int, step: int, count: int, scale: int | None) -> None:
        self._start = start
        self._step = step
        self._count = count
        self._scale = scale

    def terms(self) -> tuple[int, int, int, int | None]:
        """Start, step, count and scale, as they were given."""
        return self._start, self._step, self._count, self._scale

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        numbers = range(self._start, self._start + self._step * self._count, self._step)
        scale = self._scale
        return iter(numbers) if scale is None else (number / scale for number in numbers)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        position = index + self._count if index < 0 else index
        if not 0 <= position < self._count:
            raise IndexError(index)
        number = self._start + position * self._step
        return number if self._scale is None else number / self._scale

    def __repr__(self) -> str:
        return f"<{self._count} numbers from {self[0]} to {self[-1]}>"


def parse_values(key: str, text: str) -> Sequence[Any]:
    """The values that ``-p key=text`` names.

    Args:
        key: the parameter's name, for errors.
        text: what stands behind the equals sign.

    Raises:
        SpecError: nothing stands there, or a range or number that can't be meant; the error names `key`.

    Example:
        >>> list(parse_values("size", "16,32")), list(parse_values("t", "1:2:0.5")), list(parse_values("mode", "fast"))
        ([16, 32], [1.0, 1.5, 2.0], ['fast'])
    """
    text = text.strip()
    if not text:
        raise SpecError("expected a value, found nothing; an empty text is written '\"\"'", key=key)
    whole, value = _read_json(key, text)
    if whole:
        return [value]
    if looks_like_range(text):
        return parse_range(key, text)
    if "," in text:
        return _split_commas(key, text)
    return [_read_item(key, text)]


def parse_scalar(key: str, text: str) -> Any:
    """The one value that `text` is: a JSON number, text, ``true``, ``false`` or ``null``, else the text as it stands.

    So a list, a mapping or a range is a text.  Numbers may be in Python's spelling: ``.5``, ``+3``.

    Args:
        key: the parameter's name, for errors.
        text: what stands in a cell of a table.

    Raises:
        SpecError: it is NaN, an infinity, or a number too large.

    Example:
        >>> [parse_scalar("x", text) for text in ("16", "0.5", "true", "fast", '"16"', "1:2", "007")]
        [16, 0.5, True, 'fast', '16', '1:2', '007']
    """
    return text if text.lstrip()[:1] in ("[", "{") else _read_item(key, text)


def parse_range(key: str, text: str) -> NumberRange:
    """The numbers of ``start:stop`` or ``start:stop:step``; the step is 1 unless given, the stop is included if hit.

    Args:
        key: the parameter's name, for errors.
        text: the range.  If all its numbers are written as whole numbers, its values are ints, else floats.

    Raises:
        SpecError: a part is missing or no finite number, the step is zero or leads away from the stop, or the range
            has more than `MAX_POINTS` numbers.

    Example:
        >>> temperatures = parse_range("temperature", "1.5:3.5:0.1")
        >>> len(temperatures), temperatures[1], temperatures[-1]
        (21, 1.6, 3.5)
        >>> list(parse_range("size", "8:0:-4"))
        [8, 4, 0]
    """

    def wrong(reason: str) -> SpecError:
        return SpecError(f"{text!r}: {reason}; {_RANGE_FORM} ({_QUOTE_IT.format(text=text)})", key=key)

    parts = [part.strip() for part in text.split(":")]
    if len(parts) not in (2, 3):
        raise wrong(f"it has {len(parts)} parts")
    for name, part in zip(("start", "stop", "step"), parts, strict=False):
        if not part:
            raise wrong("the stop is missing, so the range never ends" if name == "stop" else f"the {name} is missing")
        if not _NUMBER.fullmatch(part):
            raise wrong(f"the {name} {part!r} is no finite number")
        # Also keeps the exact arithmetic below small: 1e999999999 has a thousand million digits.
        if not math.isfinite(float(part)):
            raise wrong(f"the {name} {part!r} is too large")
        if float(part) == 0 and re.search("[1-9]", part.lower().partition("e")[0]):
            raise wrong(f"the {name} {part!r} is too small")
    start, stop, step = [Fraction(part) if float(part) else Fraction(0) for part in [*parts, "1"][:3]]
    if step == 0:
        raise wrong("the step is 0, so the range never ends")
    if (stop - start) * step < 0:
        raise wrong(f"the step {step} leads away from the stop, so the range is empty")
    count = (stop - start) // step + 1
    if count > MAX_POINTS:
        raise wrong(f"{_amount(count)} numbers are above the bound of {MAX_POINTS:,}")
    # All as whole numbers over one denominator: exact whatever their digits.
    scale = math.lcm(start.denominator, step.denominator)
    whole = all(_INTEGER.fullmatch(part) for part in parts)
    return NumberRange(int(start * scale), int(step * scale), count, None if whole else scale)


def _amount(count: int) -> str:
    return f"{count:,}" if count < 10**15 else "more than 10^15"


def looks_like_range(text: str) -> bool:
    """Whether `text` is meant as a range: it has colons, no comma or quote, and begins with a number.

    Example:
        >>> looks_like_range("1:2"), looks_like_range("1:2:0"), looks_like_range("http://localhost")
        (True, True, False)
    """
    first, colon, rest = text.partition(":")
    if not colon or "," in text or '"' in text:
        return False
    numeric = _NUMBER.fullmatch(first.strip()) or _NOT_FINITE.fullmatch(first.strip())
    return bool(numeric) or (not first.strip() and bool(_NUMBER.match(rest.strip())))


def _split_commas(key: str, text: str) -> list[Any]:
    # "a,b","c" and [1,2],[3,4] have commas inside their items; as the inside of a JSON list they read right.
    whole, values = _read_json(key, f"[{text}]")
    if whole:
        return list(values)
    items = [item.strip() for item in text.split(",")]
    for item in items:
        if not item:
            raise SpecError(f"an item is missing in {text!r}: expected values between the commas", key=key)
        if looks_like_range(item):
            raise SpecError(
                f"a range can't stand in a list: {item!r} in {text!r}; {_QUOTE_IT.format(text=item)}", key=key
            )
    return [_read_item(key, item) for item in items]


def _read_item(key: str, text: str) -> Any:
    whole, value = _read_json(key, text)
    if whole:
        return value
    bare = text.strip()
    if _NOT_FINITE.fullmatch(bare):
        raise SpecError(f"{bare!r} is no finite number; {_QUOTE_IT.format(text=bare)}", key=key)
    if not _SCALAR.fullmatch(bare):
        return text
    if not _INTEGER.fullmatch(bare):
        return _finite(key, float(bare))
    try:
        return int(bare)
    except ValueError as error:  # Python reads so many digits, and no more
        raise SpecError(f"a number of {len(bare)} digits is too large; quote it for its text", key=key) from error


def _read_json(key: str, text: str) -> tuple[bool, Any]:
    """Whether `text` is one JSON value, and that value."""

    def constant(name: str) -> Any:
        raise SpecError(f"{name} is no finite number", key=key)

    try:
        value = json.loads(text, parse_constant=constant)
    except (ValueError, RecursionError):
        return False, None
    return True, _finite(key, value)


def _finite(key: str, value: Any) -> Any:
    """`value`, in which no number is infinite (as ``1e999`` is once it is a float) or NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"expected finite numbers, found {value}", key=key)
    if isinstance(value, (list, tuple)):
        for item in value:
            _finite(key, item)
    elif isinstance(value, Mapping):
        for item in value.values():
            _finite(key, item)
    return value


def check_finite(key: str, value: Any) -> None:
    """Refuse NaN and infinity in a parameter's value, however deep.

    A NaN equals nothing, itself included, so a point that has one could never be found again.

    Raises:
        SpecError: there is one; the error names `key`.
    """
    _finite(key, value)


def plain(value: Any) -> Any:
    """`value` with NumPy's scalars and arrays as Python's numbers and lists, and tuples as lists, at any depth.

    Other things stay as they are.  NumPy is not imported for this.

    Example:
        >>> plain({"sizes": (16, 32)})
        {'sizes': [16, 32]}
    """
    if isinstance(value, (str, bytes)) or value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    # NumPy's scalars and arrays, and the tensors of other libraries, have both; no other common type does.
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return value.tolist()
    return value


def _default(value: Any) -> Any:
    """What the encoder can't write itself, as what it can."""
    made = plain(value)
    if made is value:
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return made


# One encoder for all texts, since making one takes longer than writing a point.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, default=_default)


def canonical_json(value: Any) -> str:
    """The one JSON text of `value`: keys sorted, no spaces, ASCII; floats in their shortest form that reads back.

    NumPy's numbers and arrays are written as Python's.

    Raises:
        TypeError: something in it has no JSON form.
        ValueError: it holds NaN or an infinity, or itself.

    Example:
        >>> canonical_json({"size": 16, "temperature": 2.5})
        '{"size":16,"temperature":2.5}'
    """
    return _ENCODER.encode(value)


def json_text(key: str, value: Any) -> str:
    """`canonical_json` of a parameter's value, from which the value can be read again.

    Args:
        key: the parameter's name, for errors.
        value: its value.

    Raises:
        SpecError: it holds NaN or an infinity, or something that has no JSON form, such as a mapping whose keys are not
            text; the error names `key`.

    Example:
        >>> json_text("cell", (1, 2.5))
        '[1,2.5]'
    """
    try:
        text = canonical_json(value)
        _check_keys(value)
    except (TypeError, ValueError, RecursionError) as error:
        with contextlib.suppress(RecursionError):  # it contains itself, or nearly so
            check_finite(key, plain(value))
        raise SpecError(
            f"expected what has a JSON form (numbers, text, booleans, None, lists, mappings): {error}", key=key
        ) from error
    return text


def _check_keys(value: Any) -> None:
    """Refuse mappings whose keys JSON would turn into text."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                raise TypeError(f"the key {name!r} of a mapping is no text")
            _check_keys(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_keys(item)
