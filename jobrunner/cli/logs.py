"""``jobrunner logs``: what the jobs of a batch printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from jobrunner.batch.columns import to_json
from jobrunner.batch.records import BatchRecord, PointRecord
from jobrunner.batch.store import Store
from jobrunner.cli.store_options import note, place_statuses, point_option, printing, store_options, write_json_array
from jobrunner.cli.stored_points import STATUSES, point_title, stored_points
from jobrunner.texts import printable_lines

__all__ = ["logs"]


@click.command(
    epilog="""\b
Examples:
  jobrunner logs --point 17
  jobrunner logs --store nightly.db --failed --stderr | less"""
)
@store_options
@point_option("Only this point; may be given several times.")
@click.option("--failed", is_flag=True, help="Only points that failed.")
@click.option("--stdout", "stdout", is_flag=True, help="Only what went to the standard output.")
@click.option("--stderr", "stderr", is_flag=True, help="Only what went to the standard error.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def logs(
    store: str, name: str | None, places: tuple[int, ...], failed: bool, stdout: bool, stderr: bool, as_json: bool
) -> None:
    """Show what the jobs of a batch printed, each under a line that names the point.

    Control characters are written out, so that nothing which a job printed steers this terminal; --json has all as it
    was.
    """
    streams = [stream for stream, wanted in (("stdout", stdout), ("stderr", stderr)) if wanted] or ["stdout", "stderr"]
    with Store(store) as opened:
        batch = opened.batch(name)
        known = place_statuses(opened, batch, places)
        seen: set[int | None] = set()
        count = 0

        def printed() -> Iterator[PointRecord]:
            nonlocal count
            statuses = ("failed",) if failed else STATUSES
            for point in stored_points(opened, batch, *statuses, output=True, places=[*known] or None):
                if any(getattr(point, stream) for stream in streams):
                    count += 1
                    if known:
                        seen.add(point.place)
                    yield point

        with printing():
            if as_json:
                write_json_array(_as_json(point, streams) for point in printed())
            else:
                _print(printed(), batch, streams)
        for text in _missing(batch, known, seen, failed, count, streams):
            note(text)


def _print(points: Iterator[PointRecord], batch: BatchRecord, streams: Sequence[str]) -> None:
    for point in points:
        for stream in streams:
            text = getattr(point, stream)
            if text:
                click.echo(f"==> {point_title(point, batch)}: {stream} <==")
                click.echo(printable_lines(text), nl=not text.endswith(("\n", "\r")))


def _as_json(point: PointRecord, streams: Sequence[str]) -> dict[str, Any]:
    return {
        "point": point.place,
        "parameters": to_json(point.parameters),
        "replicate": point.replicate,
        "status": point.status,
        **{stream: getattr(point, stream) for stream in streams},
    }


def _missing(
    batch: BatchRecord, known: dict[int, str], seen: set[int | None], failed: bool, count: int, streams: Sequence[str]
) -> Iterator[str]:
    """Why there is nothing of a point that was asked for, or nothing at all."""
    if batch.options.get("capture_output") is False:
        if not count:
            yield "what the jobs of this batch print is not kept (capture_output is off)"
        return
    what = "anything" if len(streams) == 2 else f"to {streams[0]}"
    for place, status in known.items():
        if place not in seen:
            if failed and status != "failed":
                yield f"point {place} has not failed: it is {status}"
            else:
                yield f"point {place} has not printed {what}: it is {status}"
    if not known and not count:
        yield f"no {'failed ' if failed else ''}job of batch {batch.name!r} has printed {what}"
