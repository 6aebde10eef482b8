"""``jobrunner list``: the batches of a store."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from jobrunner.batch.records import BatchRecord
from jobrunner.batch.store import Store
from jobrunner.cli.console import plain_console
from jobrunner.cli.runners import is_running
from jobrunner.cli.store_options import note, printing, store_option
from jobrunner.cli.texts import date_and_time, printable

__all__ = ["list_batches"]

_HEADERS = ("name", "target", "done", "failed", "left", "total", "seed", "created", "run by")
_NUMBERS = frozenset({"done", "failed", "left", "total", "seed"})


@click.command("list", epilog="Example: jobrunner list --store nightly.db")
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
def list_batches(store: str, as_json: bool) -> None:
    """Show the batches of a store: how far each is, and who runs it."""
    with Store(store) as opened:
        documents = [_document(opened, batch) for batch in opened.batches()]
    with printing():
        if as_json:
            click.echo(json.dumps(documents, indent=2))
        elif documents:
            _print(documents)
    if not documents:
        note("there is no batch in it yet")


def _document(store: Store, batch: BatchRecord) -> dict[str, Any]:
    counts = store.counts(batch)
    return {
        "name": batch.name,
        "target": batch.target,
        "created_at": batch.created_at,
        "seed": batch.seed,
        "replicates": batch.replicates,
        "total": counts.total,
        "counts": dataclasses.asdict(counts),
        "left": counts.total - counts.done - counts.failed,
        "run_by": [{"host": runner.host, "pid": runner.pid} for runner in store.runners(batch) if is_running(runner)],
    }


def _print(documents: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for header in _HEADERS:
        right = header in _NUMBERS
        table.add_column(header, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for about in documents:
        counts = about["counts"]
        cells = [
            about["name"],
            about["target"],
            f"{counts['done']:,}",
            f"{counts['failed']:,}",
            f"{about['left']:,}",
            f"{about['total']:,}",
            "-" if about["seed"] is None else str(about["seed"]),
            date_and_time(about["created_at"]),
            ", ".join(f"{runner['host']} pid {runner['pid']}" for runner in about["run_by"]) or "-",
        ]
        table.add_row(*(Text(printable(cell)) for cell in cells))
    plain_console().print(table)
