"""``jobrunner status``: how far a batch is, once or all the time."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jobrunner.batch.progress import format_duration
from jobrunner.batch.records import RunnerRecord
from jobrunner.batch.store import Store
from jobrunner.cli.console import plain_console
from jobrunner.cli.snapshot import Snapshot, take_snapshot
from jobrunner.cli.store_options import printing, store_options
from jobrunner.cli.table import describe
from jobrunner.errors import SpecError
from jobrunner.memory import format_bytes
from jobrunner.texts import date_and_time, plural, printable

__all__ = ["status"]

#: Seconds between two looks, and at least so many between two lines where nobody may be looking.
_LOOK_S = 1.0
_LINE_S = 5.0

#: So many notes are shown, the newest.
_NOTES = 10


@click.command(
    epilog="""\b
Examples:
  jobrunner status
  jobrunner status --store nightly.db --name ising --watch"""
)
@store_options
@click.option("--watch", is_flag=True, help="Show it until all is run, nobody runs it, or Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def status(store: str, name: str | None, watch: bool, as_json: bool) -> None:
    """Show how far a batch is: counts, rate, time left, and what each worker runs, also while it is run elsewhere."""
    if watch and as_json:
        raise SpecError("prints one document; ask for it again instead of watching", key="--json")

    def look() -> Snapshot:
        with Store(store) as opened:  # anew: a store on which nothing was running is read as one that doesn't change
            return take_snapshot(opened, name)

    found = look()
    if watch and sys.stdout.isatty():
        _show_live(found, look)
        return
    with printing():
        if as_json:
            click.echo(json.dumps(found.as_json(), indent=2))
        elif watch:
            for line in lines(found, look, wait=time.sleep, clock=time.monotonic):
                click.echo(line)
        else:
            plain_console().print(render(found))


# --- again and again ---


def _show_live(found: Snapshot, look: Callable[[], Snapshot]) -> None:
    console = plain_console()
    with Live(render(found), console=console, auto_refresh=False, transient=True) as live:
        while not _over(found):
            time.sleep(_LOOK_S)
            found = look()
            live.update(render(found), refresh=True)
    console.print(render(found))


def lines(
    found: Snapshot, look: Callable[[], Snapshot], *, wait: Callable[[float], object], clock: Callable[[], float]
) -> Iterator[str]:
    """One line for each change, at most one in `_LINE_S` seconds but for the last.

    Args:
        found: the first look.
        look: looks again.
        wait: waits for so many seconds.
        clock: counts seconds.
    """
    shown = line(found)
    yield shown
    shown_at = clock()
    while not _over(found):
        wait(_LOOK_S)
        found = look()
        new = line(found)
        if new != shown and (clock() - shown_at >= _LINE_S or _over(found)):
            yield new
            shown, shown_at = new, clock()


def _over(found: Snapshot) -> bool:
    return found.final or not found.running


# --- what is shown ---


def line(found: Snapshot) -> str:
    """The batch in one line."""
    return f"{printable(found.batch.name)}: {_counts(found)}{_pace(found)}{_state(found)}"


def render(found: Snapshot) -> Group:
    """The batch as a page."""
    batch, counts = found.batch, found.counts
    share = f"{100 * counts.done / counts.total:.4g} %" if counts.total else "-"
    head = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    rows = [
        ("batch", f"{batch.name} ({batch.target})"),
        ("points", _counts(found)),
        ("done", share),
        ("state", (_state(found) + _pace(found)).removeprefix(", ")),
        ("created", date_and_time(batch.created_at)),
    ]
    if batch.seed is not None:
        rows.append(("seed", f"{batch.seed}{', drawn' if batch.seed_drawn else ''}"))
    if batch.replicates > 1:
        rows.append(("replicates", f"{batch.replicates} of each point"))
    if found.removed:
        rows.append(("removed", f"{plural(found.removed, 'point')} kept, and no longer in the batch"))
    for name, value in rows:
        head.add_row(name, Text(printable(value)))
    parts: list[Any] = [head]
    shown = [(runner, state) for runner, state in found.runners if state != "ended"]
    if shown:
        parts += [Text(""), _runners(found, shown)]
    running = _running(found)
    if running is not None:
        parts += [Text(""), running]
    if found.notes:
        parts.append(Text(""))
        left_out = len(found.notes) - _NOTES
        if left_out > 0:
            parts.append(Text(f"{left_out} older notes are in --json"))
        for note in found.notes[-_NOTES:]:
            parts.append(Text(f"{date_and_time(note.at)} {printable(note.kind)}: {printable(note.text)}"))
    return Group(*parts)


def _counts(found: Snapshot) -> str:
    counts = found.counts
    parts = [f"{counts.done:,} done of {counts.total:,}", f"{counts.failed:,} failed"]
    parts += [f"{counts.cancelled:,} cancelled"] if counts.cancelled else []
    parts += [f"{found.left:,} left"] if found.left else []
    return ", ".join(parts)


def _pace(found: Snapshot) -> str:
    if not found.running or found.final:
        return ""
    rate = found.rate
    pace = "" if not rate else f", {rate:.1f}/s" if rate >= 1 else f", {1 / rate:.1f} s each"
    return f"{pace}, ETA {'-' if found.eta_s is None else format_duration(found.eta_s)}"


def _state(found: Snapshot) -> str:
    if found.running:
        many = len(found.running)
        return f", run by {many} process{'' if many == 1 else 'es'}"
    if found.final:
        return (
            ", all run" if not found.counts.cancelled else ", nobody runs it; what is cancelled runs with the next run"
        )
    return ", nobody runs it: the same `jobrunner run` again goes on"


def _runners(found: Snapshot, shown: list[tuple[RunnerRecord, str]]) -> Table:
    table = _table("host", "pid", "workers", "memory", "state", "running for", "last seen")
    for runner, state in shown:
        table.add_row(
            Text(printable(runner.host)),
            str(runner.pid),
            str(runner.workers),
            format_bytes(runner.activity["rss_bytes"]) if runner.activity.get("rss_bytes") else "-",
            Text(state, style="" if state == "running" else "yellow"),
            format_duration(max(runner.seen_at - runner.started_at, 0)),
            f"{format_duration(max(found.at - runner.seen_at, 0))} ago",
        )
    return table


def _running(found: Snapshot) -> Table | None:
    """What each worker runs; None: it is not known of any."""
    names = found.batch.varying or found.batch.parameters
    table = _table("worker", "memory", "for", "point", "")
    for runner in found.running:
        memory = {worker["pid"]: worker["rss_bytes"] for worker in runner.activity.get("workers", ())}
        for job in runner.activity.get("running", ()):
            parameters = {name: job["parameters"][name] for name in names if name in job["parameters"]}
            table.add_row(
                "-" if job["pid"] is None else str(job["pid"]),
                format_bytes(memory[job["pid"]]) if memory.get(job["pid"]) else "-",
                "-" if job["since"] is None else format_duration(max(found.at - job["since"], 0)),
                str(job["place"]),
                Text(describe(parameters)),
            )
    return table if table.row_count else None


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for header in headers:
        left = header in ("host", "state", "")
        table.add_column(header, justify="left" if left else "right", no_wrap=True)
    return table
