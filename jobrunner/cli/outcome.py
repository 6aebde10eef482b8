"""What ``jobrunner run`` prints at its end, all of it read from the store."""

from __future__ import annotations

import itertools
import json

import click

from jobrunner.batch import Summary, outcome_as_json
from jobrunner.batch.export import stored_outcomes
from jobrunner.batch.records import BatchRecord
from jobrunner.batch.store import Store
from jobrunner.cli.store_options import note
from jobrunner.cli.stored_results import StoredResults, result_table
from jobrunner.cli.table import describe
from jobrunner.texts import printable

__all__ = ["print_document", "print_failures", "print_table"]

#: Failures told one by one; a batch of which everything fails must not bury the reason.
_FAILURES_SHOWN = 50


def print_document(store: Store, batch: BatchRecord, summary: Summary) -> None:
    """Print one JSON document on stdout, a result at a time: there may be more of them than fit into memory."""
    counts = store.counts(batch)
    head = {
        "name": batch.name,
        "target": batch.target,
        "seed": batch.seed,
        "total": counts.total,
        "done": counts.done,
        "failed": counts.failed,
        "cancelled": summary.cancelled,
        "skipped": summary.skipped,
        "elapsed_s": summary.elapsed_s,
    }
    click.echo(json.dumps(head, allow_nan=False, indent=2).removesuffix("\n}") + ',\n  "results": [', nl=False)
    separator = "\n"
    for outcome in stored_outcomes(store, batch):
        document = outcome_as_json(outcome, replicated=batch.replicates > 1)
        click.echo(f"{separator}    {json.dumps(document, allow_nan=False)}", nl=False)
        separator = ",\n"
    click.echo("\n  ]\n}")


def print_failures(store: Store, batch: BatchRecord) -> None:
    """Print the first failures on stderr, a line each."""
    names = batch.varying or batch.parameters
    points = store.points(batch, "failed")
    for point in itertools.islice(points, _FAILURES_SHOWN):
        shown = describe({name: point.parameters[name] for name in names if name in point.parameters})
        click.echo(f"failed: {shown}{': ' if shown else ''}{printable(point.error or '')}", err=True)
    more = store.counts(batch).failed - _FAILURES_SHOWN
    if more > 0:
        click.echo(f"failed: {more} more; 'jobrunner failures' shows all", err=True)


def print_table(store: Store, batch: BatchRecord) -> None:
    """Print the results as a table on stdout; of a long batch its ends."""
    results = StoredResults(store, batch)
    result_table(results, store, batch).print()
    for text in results.notes():
        note(text)
