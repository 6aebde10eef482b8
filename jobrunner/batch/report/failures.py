"""What failed, by cause, with enough of each to see why."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from jobrunner.batch.records import BatchRecord, PointRecord
from jobrunner.batch.report.model import Failure, FailureGroup, Failures
from jobrunner.batch.store import Store
from jobrunner.storage.connection import store_errors

__all__ = ["read_failures"]

#: Failures told one by one.
SHOWN = 100
#: Causes that are told apart; what comes after these is one group.
_GROUPS = 50
_CAUSE = 500
_STACK = 4_000
_STDERR = 1_500


@dataclasses.dataclass
class _Group:
    cause: str
    count: int = 0
    places: list[int] = dataclasses.field(default_factory=list)


def read_failures(store: Store, batch: BatchRecord) -> Failures:
    """The points that failed."""
    groups: dict[str, _Group] = {}
    total = 0
    query = f"""
        SELECT p.place, substr(o.error, 1, {_CAUSE}) FROM point p LEFT JOIN outcome o ON o.id = p.outcome
        WHERE p.batch = ? AND p.status = 'failed' AND p.place IS NOT NULL ORDER BY p.place
    """  # noqa: S608 - a constant
    with store_errors(store.path):
        for place, error in store.connection.execute(query, (batch.id,)):
            total += 1
            cause = " ".join((error or "unknown").split())
            kind = re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "0", cause)
            if kind not in groups and len(groups) == _GROUPS:
                kind, cause = "", "other causes"
            group = groups.setdefault(kind, _Group(cause))
            group.count += 1
            if len(group.places) < SHOWN:
                group.places.append(place)
    ordered = sorted(groups.values(), key=lambda group: -group.count)
    points = store.points(batch, "failed", reports=True, output=True, places=_choose(ordered))
    return Failures(
        total=total,
        groups=tuple(FailureGroup(cause=group.cause, count=group.count) for group in ordered),
        shown=tuple(_failure(point) for point in points) if total else (),
    )


def _choose(groups: list[_Group]) -> list[int]:
    """Places to show: the first of each group, then the second of each, and so on."""
    chosen: list[int] = []
    for turn in range(SHOWN):
        chosen += [group.places[turn] for group in groups if turn < len(group.places)]
        if len(chosen) >= SHOWN:
            break
    return chosen[:SHOWN]


def _failure(point: PointRecord) -> Failure:
    report = point.report or {}
    cause = report.get("cause") or point.error or "unknown"
    assert point.place is not None
    return Failure(
        place=point.place,
        parameters=_short(point.parameters),
        replicate=point.replicate,
        seed=point.seed,
        attempts=point.attempts,
        host=point.host,
        pid=point.pid,
        finished_at=point.finished_at if point.finished_at is not None else point.recorded_at,
        run_s=point.run_s,
        cause=_beginning(str(cause), _CAUSE),
        exit_code=_whole(report.get("exit_code")),
        exit_signal=_whole(report.get("exit_signal")),
        stack=_end(report.get("stack"), _STACK),
        stderr=_end(point.stderr, _STDERR),
    )


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _short(parameters: Any) -> dict[str, Any]:
    """Parameters, long values of which stand as the beginning of their text."""
    found = {}
    for name, value in parameters.items():
        text = value if isinstance(value, str) else json.dumps(value)
        found[name] = value if len(text) <= 200 else _beginning(text, 200)
    return found


def _beginning(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"


def _end(text: Any, length: int) -> str | None:
    if not isinstance(text, str) or not text.strip():
        return None
    return text if len(text) <= length else f"…{text[-length:]}"
