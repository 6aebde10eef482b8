"""Text of others for a terminal or a plot: what a job printed or raised must not steer what shows it."""

from __future__ import annotations

import re
from datetime import datetime

__all__ = ["date_and_time", "plural", "printable", "printable_lines"]

# The control characters of ASCII and Latin-1 (ESC among them), those that turn the direction of writing or end a line
# in Unicode, halves of surrogate pairs, and what is no character at all, which XML refuses.
_CONTROL = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff\\ufffe\\uffff]"
)
_CONTROL_IN_LINES = re.compile(f"(?![\\n\\t]){_CONTROL.pattern}")


def printable(text: str) -> str:
    """`text` with its control characters written as Python writes them.

    Example:
        >>> print(printable("red: \\x1b[31m, two\\nlines"))
        red: \\x1b[31m, two\\nlines
    """
    return _CONTROL.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """`text` with its control characters written as Python writes them, but for tabs and the ends of lines.

    A carriage return, with which programs print a line anew, ends a line.

    Example:
        >>> print(printable_lines("10 %\\r20 %\\r\\n\\x1b[2Jend"))
        10 %
        20 %
        \\x1b[2Jend
    """
    return _CONTROL_IN_LINES.sub(_escaped, text.replace("\r\n", "\n").replace("\r", "\n"))


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")


def date_and_time(at: float) -> str:
    """A moment, in UTC epoch seconds, for people: in the local time zone."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


def plural(count: int, noun: str) -> str:
    """A number of things.

    Example:
        >>> plural(1, "point"), plural(1200, "point")
        ('1 point', '1,200 points')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
