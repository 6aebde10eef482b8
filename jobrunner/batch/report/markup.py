"""HTML and SVG that can't be broken out of: whatever is not `Markup` is text, and is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

__all__ = ["Child", "Markup", "element", "join"]


class Markup(str):
    """Text that is HTML already: made by `element` and `join`, or a constant of the page."""

    __slots__ = ()


#: What may stand in an element: text, markup (which is text), or nothing.
Child: TypeAlias = str | None

_EMPTY = frozenset({"br", "col", "meta"})
#: Control characters, which HTML forbids, and half surrogates, which UTF-8 can't hold.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
#: Characters that turn the direction of what follows them, with which a text can pose as another.
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")


def element(tag: str, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """An element.

    Args:
        tag: its name.
        children: what it holds; text is escaped.
        attributes: their values, escaped; True stands for an attribute without a value, None and False for none.  An
            underscore stands for a hyphen, one at the end for nothing (``class_``).

    Example:
        >>> element("td", "<b>", class_="x", data_tip='"1"')
        '<td class="x" data-tip="&quot;1&quot;">&lt;b&gt;</td>'
    """
    parts = [f"<{tag}"]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        name = name.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(f" {name}")
        else:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            parts.append(f' {name}="{_escape(text)}"')
    parts.append(">")
    if tag in _EMPTY:
        return Markup("".join(parts))
    return Markup(f"{''.join(parts)}{join(children)}</{tag}>")


def join(children: Iterable[Child]) -> Markup:
    """What stands one after the other.

    Example:
        >>> join(["a < b", element("br")])
        'a &lt; b<br>'
    """
    return Markup(
        "".join(child if isinstance(child, Markup) else _escape(child) for child in children if child is not None)
    )


def _escape(text: str) -> str:
    text = _UNPRINTABLE.sub("\ufffd", text)
    text = _TURNING.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
    return html.escape(text, quote=True)
