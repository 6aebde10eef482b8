"""``jobrunner failures``: which points failed, and why."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from jobrunner.batch.columns import to_json
from jobrunner.batch.progress import format_duration
from jobrunner.batch.records import BatchRecord, PointRecord
from jobrunner.batch.store import Store
from jobrunner.cli.store_options import note, place_statuses, point_option, printing, store_options, write_json_array
from jobrunner.cli.stored_points import last_outcome, point_title, stored_points
from jobrunner.cli.table import shorten
from jobrunner.texts import date_and_time, plural, printable, printable_lines

__all__ = ["failures"]

#: More failures than this are counted by cause first.
_MANY = 20

#: So many causes are told apart, and so many told.
_CAUSES_MOST = 1000
_CAUSES_TOLD = 10

#: What differs between two failures of one cause: numbers, addresses, and what is quoted.
_PARTICULAR = re.compile(r"'[^']*'|\"[^\"]*\"|\b0x[0-9a-fA-F]+\b|[-+]?\d+(\.\d+)?([eE][-+]?\d+)?")


@click.command(
    epilog="""\b
Examples:
  jobrunner failures
  jobrunner failures --store nightly.db --point 17 --full"""
)
@store_options
@point_option("Only this point; may be given several times.")
@click.option("--full", is_flag=True, help="With the stacks, where there are any; with --json, with the whole reports.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def failures(store: str, name: str | None, places: tuple[int, ...], full: bool, as_json: bool) -> None:
    """Show the points of a batch that failed: why, after how many attempts, and where."""
    with Store(store) as opened:
        batch = opened.batch(name)
        statuses = place_statuses(opened, batch, places)
        wanted = [place for place, found in statuses.items() if found == "failed"] if places else None
        count = opened.counts(batch).failed if wanted is None else len(wanted)
        until = last_outcome(opened)
        with printing():
            if count > _MANY and not as_json:
                _print_causes(stored_points(opened, batch, "failed", places=wanted, until=until))
            found = stored_points(opened, batch, "failed", reports=True, places=wanted, until=until)
            if as_json:
                write_json_array(_as_json(point, full) for point in found)
            else:
                for point in found:
                    click.echo("\n".join(_told(point, batch, full)))
        for place, status in statuses.items():
            if status != "failed":
                note(f"point {place} has not failed: it is {status}")
        if not places and not count:
            note(f"no point of batch {batch.name!r} has failed")


def _as_json(point: PointRecord, full: bool) -> dict[str, Any]:
    report: Mapping[str, Any] = point.report or {}
    return {
        "point": point.place,
        "parameters": to_json(point.parameters),
        "replicate": point.replicate,
        "seed": point.seed,
        "error": point.error,
        "exit_code": report.get("exit_code"),
        "exit_signal": report.get("exit_signal"),
        "attempts": point.attempts,
        "host": point.host,
        "pid": point.pid,
        "started_at": point.started_at,
        "finished_at": point.finished_at,
        "recorded_at": point.recorded_at,
        "run_s": point.run_s,
        "peak_rss_bytes": point.peak_rss_bytes,
        **({"report": point.report} if full else {}),
    }


# --- for people ---


def _print_causes(points: Iterable[PointRecord]) -> None:
    """Count the failures by their cause, the most frequent first."""
    counts: dict[str, int] = {}
    others = 0
    for point in points:
        cause = _PARTICULAR.sub("*", point.error or "no cause is known")
        if cause in counts or len(counts) < _CAUSES_MOST:
            counts[cause] = counts.get(cause, 0) + 1
        else:
            others += 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    for cause, count in ordered[:_CAUSES_TOLD]:
        click.echo(f"{count:>9,} × {shorten(cause, 200)}")
    others += sum(count for _, count in ordered[_CAUSES_TOLD:])
    if others:
        click.echo(f"{others:>9,} × other causes")
    click.echo()


def _told(point: PointRecord, batch: BatchRecord, full: bool) -> Iterator[str]:
    report = point.report or {}
    yield point_title(point, batch)
    yield f"  {printable(point.error or 'no cause is known')}"
    facts = [plural(point.attempts, "attempt")]
    if report.get("exit_signal") is not None:
        facts.append(f"signal {_signal_name(report['exit_signal'])}")
    elif report.get("exit_code") is not None:
        facts.append(f"exit code {report['exit_code']}")
    if point.host is not None or point.pid is not None:
        facts.append(f"{printable(point.host or '')} pid {point.pid}".strip())
    if point.finished_at is not None or point.recorded_at is not None:
        facts.append(date_and_time(point.finished_at or point.recorded_at or 0.0))
    if point.run_s is not None:
        facts.append(f"after {format_duration(point.run_s)}")
    yield f"  {', '.join(facts)}"
    if full and report.get("stack"):
        for row in printable_lines(report["stack"]).rstrip().split("\n"):
            yield f"    {row}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
