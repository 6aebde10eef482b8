"""Tables of a report: the numbers behind the charts, and facts by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jobrunner.batch.report import words
from jobrunner.batch.report.markup import Child, Markup, element

__all__ = ["Cell", "behind", "facts", "nested", "table"]

_ROWS = 200


class Cell(NamedTuple):
    """A cell of numbers.

    Attributes:
        text: what it shows.
        key: what its column is sorted by.
    """

    text: str
    key: float | None


def table(heads: Sequence[str], rows: Iterable[Sequence[Child | Cell]]) -> Markup:
    """A table that is sorted by a click on a head.

    Args:
        heads: the columns.
        rows: their cells.  A column of `Cell` is aligned at the right.
    """
    listed = list(rows)
    numeric = {place for row in listed for place, cell in enumerate(row) if isinstance(cell, Cell)}
    head = element(
        "tr",
        *(element("th", name, scope="col", class_="n" if at in numeric else None) for at, name in enumerate(heads)),
    )
    body = [element("tr", *(_cell(cell, place in numeric) for place, cell in enumerate(row))) for row in listed[:_ROWS]]
    made = element(
        "div",
        element("table", element("thead", head), element("tbody", *body), class_="sortable"),
        class_="scroll",
        role="region",
        aria_label="table",
        tabindex="0",
    )
    if len(listed) > _ROWS:
        made = element("div", made, element("p", f"The first {_ROWS} of {words.count(len(listed))} rows."))
    return made


def _cell(cell: Child | Cell, numeric: bool) -> Markup:
    if isinstance(cell, Cell):
        return element("td", cell.text, class_="n", data_key=cell.key if cell.key is not None else "")
    return element("td", cell, class_="n" if numeric else None)


def behind(heads: Sequence[str], rows: Iterable[Sequence[Child | Cell]]) -> Markup:
    """A table that a click opens: the numbers of the chart above it."""
    return element("details", element("summary", "Show as a table"), table(heads, rows))


def facts(rows: Iterable[tuple[str, Child]]) -> Markup:
    """Names with their values; rows without a value are left out."""
    body = [
        element("tr", element("th", name, scope="row"), element("td", value))
        for name, value in rows
        if value is not None
    ]
    return element("table", element("tbody", *body), class_="facts")


def nested(values: Mapping[str, Any]) -> Markup:
    """Whatever a mapping holds: short values first, mappings in it to be opened."""
    plain = [
        (name.replace("_", " "), _plain(name, value))
        for name, value in values.items()
        if value is not None and not isinstance(value, Mapping)
    ]
    parts: list[Child] = [facts(plain)] if plain else []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            title = f"{name.replace('_', ' ')} ({len(value)})"
            parts.append(element("details", element("summary", title), nested(value)))
    return element("div", *parts)


def _plain(name: str, value: Any) -> Markup:
    if name.endswith("_bytes") and isinstance(value, (int, float)):
        return element("span", words.size(value))
    if isinstance(value, bool):
        return element("span", "yes" if value else "no")
    if isinstance(value, (int, float)):
        return element("span", str(value))
    return element("code", words.value(value, 500))
