"""Parameters as the command line gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobrunner.batch import Points, parse_scalar, parse_values, sweep, zip_points
from jobrunner.batch.points import check_name
from jobrunner.errors import SpecError

__all__ = ["parse_fixed", "parse_parameters"]


def parse_parameters(texts: Sequence[str], zipped: bool) -> Points:
    """The points that ``-p key=values`` describe.

    Args:
        texts: what stands behind each ``-p``, in the grammar of `jobrunner.batch.values`.
        zipped: pair the lists of values instead of taking their product; a single value goes with each pair.

    Raises:
        SpecError: one is no ``key=values``, or a parameter is given twice.
    """
    values: dict[str, Sequence[Any]] = {}
    for text in texts:
        key, rest = _split(text, "-p", "key=values")
        if key in values:
            raise SpecError("the parameter is given twice", key=key)
        values[key] = parse_values(key, rest)
    if not zipped:
        return sweep(**values) if values else Points()
    lists = {key: each for key, each in values.items() if len(each) > 1}
    if not lists:
        raise SpecError("--zip pairs lists of values, and no parameter has more than one value")
    single = {key: each for key, each in values.items() if len(each) == 1}
    return zip_points(**lists) * (sweep(**single) if single else Points())


def parse_fixed(texts: Sequence[str]) -> dict[str, Any]:
    """The parameters that ``--fixed key=value`` give: each one value, whole JSON or text.

    Raises:
        SpecError: one is no ``key=value``, or a parameter is given twice.

    Example:
        >>> parse_fixed(["size=16", "mode=1:2", "cell=[1, 2]"])
        {'size': 16, 'mode': '1:2', 'cell': [1, 2]}
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, rest = _split(text, "--fixed", "key=value")
        if key in found:
            raise SpecError("the parameter is given twice", key=key)
        found[key] = _value(key, rest)
    return found


def _value(key: str, text: str) -> Any:
    if text.lstrip()[:1] not in ("[", "{"):
        return parse_scalar(key, text)
    found = parse_values(key, text)
    if len(found) != 1 or not isinstance(found[0], (list, dict)):
        raise SpecError(f"expected one value as JSON, found {text!r}", key=key)
    return found[0]


def _split(text: str, option: str, form: str) -> tuple[str, str]:
    key, equals, rest = text.partition("=")
    key = key.strip()
    if not equals:
        raise SpecError(f"expected {form}, found {text!r}", key=option)
    check_name(key)
    return key, rest
