"""``jobrunner list``: the batches and benchmarks of a store."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from jobrunner.batch.records import BatchRecord
from jobrunner.batch.store import Store
from jobrunner.bench.journal import Stored, stored_benchmarks
from jobrunner.cli.console import plain_console
from jobrunner.cli.runners import is_running
from jobrunner.cli.store_options import note, printing, store_option
from jobrunner.texts import date_and_time, printable

__all__ = ["list_batches"]

_HEADERS = ("name", "target", "done", "failed", "left", "total", "seed", "created", "run by")
_BENCHMARK_HEADERS = ("benchmark", "targets", "measured", "begun", "run by")
_NUMBERS = frozenset({"done", "failed", "left", "total", "seed"})


@click.command("list", epilog="Example: jobrunner list --store nightly.db")
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the tables.")
def list_batches(store: str, as_json: bool) -> None:
    """Show the batches and benchmarks of a store: how far each is, and who runs it."""
    with Store(store) as opened:
        batches = [_batch(opened, batch) for batch in opened.batches()]
        benchmarks = [_benchmark(each) for each in stored_benchmarks(opened.connection, opened.path)]
    with printing():
        if as_json:
            click.echo(json.dumps([*batches, *benchmarks], indent=2))
        else:
            _print(_HEADERS, map(_batch_cells, batches))
            if batches and benchmarks:
                click.echo()
            _print(_BENCHMARK_HEADERS, map(_benchmark_cells, benchmarks))
    if not batches and not benchmarks:
        note("there is no batch in it yet, and no benchmark")


def _batch(store: Store, batch: BatchRecord) -> dict[str, Any]:
    counts = store.counts(batch)
    return {
        "kind": "batch",
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


def _benchmark(stored: Stored) -> dict[str, Any]:
    owner = stored.owner
    running = owner is not None and (not owner.visible() or owner.alive())
    return {
        "kind": "benchmark",
        "name": stored.name,
        "target": " ".join(stored.description["targets"]),
        "created_at": stored.created_at,
        "complete": stored.complete,
        "run_by": [{"host": owner.host, "pid": owner.pid}] if owner is not None and running else [],
    }


def _batch_cells(about: Mapping[str, Any]) -> list[str]:
    counts = about["counts"]
    return [
        about["name"],
        about["target"],
        f"{counts['done']:,}",
        f"{counts['failed']:,}",
        f"{about['left']:,}",
        f"{about['total']:,}",
        "-" if about["seed"] is None else str(about["seed"]),
        date_and_time(about["created_at"]),
        _run_by(about),
    ]


def _benchmark_cells(about: Mapping[str, Any]) -> list[str]:
    state = "whole" if about["complete"] else "not whole"
    return [about["name"], about["target"], state, date_and_time(about["created_at"]), _run_by(about)]


def _run_by(about: Mapping[str, Any]) -> str:
    return ", ".join(f"{runner['host']} pid {runner['pid']}" for runner in about["run_by"]) or "-"


def _print(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for header in headers:
        right = header in _NUMBERS
        table.add_column(header, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for cells in rows:
        table.add_row(*(Text(printable(cell)) for cell in cells))
    if table.row_count:
        plain_console().print(table)
