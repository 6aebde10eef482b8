"""The items of a `map`: taken from the caller's iterables, cut into chunks.

Items are kept as columns, one for each parameter of the function, so that nothing is done or kept per item: no tuple of
its arguments, no number.  A column is a list, or a range, of which a part is a range again: that costs nothing, neither
here nor on the way to a worker.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

__all__ = ["BLOCK", "Items", "Source"]

#: items that are taken and kept as one; a chunk that is such a block costs no copy
BLOCK = 1 << 14
# What can be cut into columns as it is: nobody sees how far it was read.
_SEQUENCES = frozenset({list, tuple, range})


class Items(NamedTuple):
    """Neighbouring items.

    first: the number of the first.
    columns: the arguments, a column for each parameter; all as long as there are items.
    """

    first: int
    columns: tuple[Sequence[Any], ...]

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.columns[0])

    @property
    def end(self) -> int:
        """The number of the item after the last."""
        return self.first + len(self.columns[0])

    def part(self, first: int, end: int) -> Items:
        """Those numbered from `first` up to `end`, exclusive."""
        cut = slice(first - self.first, end - self.first)
        return Items(first, tuple(column[cut] for column in self.columns))

    def joins(self, following: Items) -> bool:
        """Whether `join` can take those in."""
        return all(type(column) is list for items in (self, following) for column in items.columns)

    def join(self, following: Items) -> None:
        """Take in the items that follow these; both are held in lists, these in lists of our own."""
        for column, more in zip(self.columns, following.columns, strict=True):
            column.extend(more)  # type: ignore[attr-defined]


class Source:
    """Where the items come from; used on one thread at a time.

    Args:
        iterables: the arguments of the calls, as for the built-in `map`; the shortest ends it.

    Raises:
        TypeError: one of them is not iterable.

    Attributes:
        taken: how many items were taken.
        complete: whether there are no more.
    """

    def __init__(self, iterables: Sequence[Iterable[Any]]) -> None:
        self.taken = 0
        self.complete = not iterables
        self._width = len(iterables)
        self._sequences: Sequence[Any] | None = None
        if all(type(iterable) in _SEQUENCES for iterable in iterables):
            self._sequences = iterables
        # Row by row, as `zip` does: they may be one and the same iterator.
        self._rows: Iterator[Any] = iter(iterables[0]) if self._width == 1 else zip(*iterables, strict=False)

    def take(self, most: int | None) -> Iterator[Items]:
        """Take items: all that are left, or so many at most."""
        if most is None and self._sequences is not None and not self.taken:
            yield from self._take_sequences(self._sequences)
            return
        left = most
        while not self.complete and left != 0:
            # Few at first, for they may be slow to come.
            wanted = min(BLOCK, max(64, self.taken), BLOCK if left is None else left)
            rows = list(itertools.islice(self._rows, wanted))
            self.complete = len(rows) < wanted
            if left is not None:
                left -= len(rows)
            if rows:
                yield self._taken(self._columns(rows), len(rows))

    def _take_sequences(self, sequences: Sequence[Any]) -> Iterator[Items]:
        self.complete = True
        count = min(map(len, sequences), default=0)
        if all(type(sequence) is range for sequence in sequences):
            if count:
                yield self._taken(tuple(sequence[:count] for sequence in sequences), count)
            return
        for first in range(0, count, BLOCK):
            end = min(first + BLOCK, count)
            yield self._taken(tuple(sequence[first:end] for sequence in sequences), end - first)

    def _columns(self, rows: list[Any]) -> tuple[Sequence[Any], ...]:
        if self._width == 1:
            return (rows,)
        return tuple(list(map(operator.itemgetter(index), rows)) for index in range(self._width))

    def _taken(self, columns: tuple[Sequence[Any], ...], count: int) -> Items:
        items = Items(self.taken, columns)
        self.taken += count
        return items
