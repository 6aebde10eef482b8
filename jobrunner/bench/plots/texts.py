"""Text on plots: names of others, which may be long, alike, or hold what would steer a renderer."""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from jobrunner.bench.result import short_names
from jobrunner.texts import printable

__all__ = ["labels", "point_text", "shorten"]

_ELLIPSIS = "…"

#: Places that the name of a parameter may take, and its value.
_NAME_MOST, _VALUE_MOST = 18, 22


def shorten(text: str, width: int) -> str:
    """`text`, `printable`, in at most `width` places; what is too much is left out in its middle.

    A letter of East Asian scripts takes two places.

    Example:
        >>> shorten("module:a_function_of_many_words", 16)
        'module:a…y_words'
    """
    line = printable(text)
    if _places(line) <= width:
        return line
    end = _start(line[::-1], (width - 1) // 2)[::-1]
    return _start(line, width - 1 - _places(end)) + _ELLIPSIS + end


def _places(text: str) -> int:
    return sum(map(_place, text))


def _place(letter: str) -> int:
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _start(text: str, width: int) -> str:
    """As much of the beginning as there is room for."""
    ends = itertools.accumulate(map(_place, text))
    return text[: sum(1 for _ in itertools.takewhile(lambda end: end <= width, ends))]


def labels(names: Sequence[str], width: int) -> dict[str, str]:
    """A label of each implementation: its name without its module, if no two are alike then, in `width` places.

    Those that would be alike for being shortened are numbered.

    Example:
        >>> labels(["sort:merge", "sort:quick"], 20)
        {'sort:merge': 'merge', 'sort:quick': 'quick'}
        >>> labels(["a:merge_sort_of_lists", "a:merge_tree_of_lists"], 12)
        {'a:merge_sort_of_lists': 'merge_…lists', 'a:merge_tree_of_lists': 'mer…sts (2)'}
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name, short in short_names(names).items():
        label, number = shorten(short, width), 1
        while label in taken:
            number += 1
            label = f"{shorten(short, width - 5)} ({number})"
        taken.add(label)
        found[name] = label
    return found


def point_text(parameters: Mapping[str, Any], names: Sequence[str]) -> str:
    """Some of a point's parameters as one line.

    Args:
        parameters: the point.
        names: those that are told, in this order.

    Example:
        >>> point_text({"size": 16, "mode": "fast", "seed": 1}, ["size", "mode"])
        'size=16 mode=fast'
    """
    return " ".join(f"{shorten(name, _NAME_MOST)}={_value(parameters[name])}" for name in names if name in parameters)


def _value(value: Any) -> str:
    return shorten(value if isinstance(value, str) else json.dumps(value, default=repr), _VALUE_MOST)
