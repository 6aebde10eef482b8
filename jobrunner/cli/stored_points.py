"""Reading many points of a store that others write meanwhile.

A reader that takes its time (``| less``) must not hold a transaction open: SQLite's write-ahead log would grow as long
as it does.  So points are read in parts, each whole before its first is given on, and the next begins where that ended.
Of a part there is never much in memory, however large the results are.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from jobrunner.batch.records import BatchRecord, PointRecord
from jobrunner.batch.store import Store
from jobrunner.cli.table import describe

__all__ = ["STATUSES", "last_outcome", "point_title", "stored_points"]

STATUSES = ("pending", "leased", "done", "failed", "cancelled")

#: A part has at most so many points, and is to have at most about so many bytes of what is not parameters.
_POINTS_MOST = 500
_BYTES = 4 << 20


def last_outcome(store: Store) -> int:
    """The newest outcome's number; with it, `stored_points` gives the same points again."""
    (number,) = store.rows("SELECT coalesce(max(id), 0) FROM outcome")[0]
    return int(number)


def stored_points(
    store: Store,
    batch: BatchRecord,
    *statuses: str,
    results: bool = False,
    reports: bool = False,
    output: bool = False,
    places: Sequence[int] | None = None,
    until: int | None = None,
) -> Iterator[PointRecord]:
    """The points of a batch of which an outcome is known, in their order.

    Args:
        store: the store.
        batch: the batch.
        statuses: only points in one of these; default all.
        results: whether `PointRecord.encoded` is wanted.
        reports: whether `PointRecord.report` is.
        output: whether `PointRecord.stdout` and `stderr` are; then only points that have printed something are given.
        places: only these places, in ascending order.
        until: only outcomes up to this number, see `last_outcome`.
    """
    until = last_outcome(store) if until is None else until
    statuses = statuses or STATUSES
    found: Iterator[int]
    if places is None:
        # Each status by itself has its places in order in an index; several would be sorted, for each part anew.
        found = heapq.merge(*(_places(store, batch, status, until, printed=output) for status in statuses))
    else:
        found = iter(places)
    size = 4
    last = -1
    while True:
        part: list[int] = []
        for place in found:
            if place > last:  # a point whose status changes meanwhile may come twice
                part.append(place)
                last = place
            if len(part) == size:
                break
        if not part:
            return
        # All statuses are named to have SQLite look up each place in the index: of one it would read all places.
        points = list(store.points(batch, *STATUSES, results=results, reports=reports, output=output, places=part))
        weight = sum(map(_weight, points))
        for point in points:
            if point.status in statuses and (not output or point.stdout or point.stderr):
                yield point
        if weight > _BYTES:
            size = max(1, size // 2)
        elif weight < _BYTES // 2:
            size = min(2 * size, _POINTS_MOST)


def _places(store: Store, batch: BatchRecord, status: str, until: int, *, printed: bool) -> Iterator[int]:
    """The places of the points in a status, read in parts."""
    query = "SELECT p.place FROM point p"
    if printed:
        query += " CROSS JOIN outcome o ON o.id = p.outcome AND coalesce(o.stdout, o.stderr) IS NOT NULL"
    query += " WHERE p.batch = ? AND p.status = ? AND p.place > ? AND p.outcome <= ? ORDER BY p.place LIMIT ?"
    last = -1
    while rows := store.rows(query, batch.id, status, last, until, _POINTS_MOST):
        for (last,) in rows:
            yield last


def _weight(point: PointRecord) -> int:
    result = len(point.encoded.data) if point.encoded is not None else 0
    return result + len(point.stdout or "") + len(point.stderr or "")


def point_title(point: PointRecord, batch: BatchRecord) -> str:
    """The point as a heading: its place, and what tells it from others."""
    names = batch.varying or batch.parameters
    parts = [f"point {point.place}"]
    if shown := describe({name: point.parameters[name] for name in names if name in point.parameters}):
        parts.append(shown)
    if batch.replicates > 1:
        parts.append(f"replicate {point.replicate}")
    return ": ".join(parts)
