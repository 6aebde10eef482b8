"""``jobrunner cancel``: end a batch, or some of its points, whichever process runs them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from jobrunner.batch.ledger import request_cancel
from jobrunner.batch.records import BatchRecord, RunnerRecord
from jobrunner.batch.store import Store
from jobrunner.cli.runners import is_running, who_runs
from jobrunner.cli.store_options import place_statuses, point_option, printing, store_options
from jobrunner.storage.connection import connect, store_errors
from jobrunner.texts import plural, printable

__all__ = ["cancel"]

_FINAL = ("done", "failed", "cancelled")


@click.command(
    epilog="""\b
Examples:
  jobrunner cancel
  jobrunner cancel --store nightly.db --name ising --point 3 --point 17

What is cancelled runs again with the next `jobrunner run` of the batch."""
)
@store_options
@point_option("Only this point; may be given several times.")
def cancel(store: str, name: str | None, places: tuple[int, ...]) -> None:
    """Cancel a batch: nothing more of it is started, and what runs is ended by the process that runs it.

    With --point only those points are cancelled, and the rest goes on.
    """
    with Store(store) as opened:
        batch = opened.batch(name)
        before = place_statuses(opened, batch, places)
        connection = connect(Path(store), write=True)
        try:
            with store_errors(opened.path):
                count = request_cancel(connection, Path(store), batch.id, list(before) if places else None)
        finally:
            connection.close()
        running = [runner for runner in opened.runners(batch) if is_running(runner)]
        if places:
            running = _holders(opened, batch, list(before), running)
        with printing():
            click.echo(f"batch {batch.name!r}: {plural(count, 'point')} cancelled")
            final = {place: status for place, status in before.items() if status in _FINAL}
            for text in _final(opened, batch, final, whole=not places):
                click.echo(text)
            if running and (count or not places):
                click.echo(f"told to end what it runs: {printable(who_runs(running))}")
            elif count:
                click.echo("no process runs " + ("it" if not places else "them" if count > 1 else "it"))


def _final(store: Store, batch: BatchRecord, final: Mapping[int, str], *, whole: bool) -> list[str]:
    """What was final already."""
    if not whole:
        return [f"point {place} is {status} already" for place, status in final.items()]
    counts = store.counts(batch)
    told = [f"{count:,} {status}" for status, count in (("done", counts.done), ("failed", counts.failed)) if count]
    return [f"final already: {', '.join(told)}"] if told else []


def _holders(store: Store, batch: BatchRecord, places: list[int], running: list[RunnerRecord]) -> list[RunnerRecord]:
    """Those of the running processes that had taken up one of the points."""
    holders: set[int] = set()
    for place in places:
        query = "SELECT runner FROM point WHERE batch = ? AND status = 'cancelled' AND place = ?"
        holders |= {runner for (runner,) in store.rows(query, batch.id, place)}
    return [runner for runner in running if runner.id in holders]
