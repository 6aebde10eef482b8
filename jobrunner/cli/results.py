"""``jobrunner results``: what the functions of a batch returned."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import click

from jobrunner.batch.columns import free_name, to_json
from jobrunner.batch.records import BatchRecord
from jobrunner.batch.store import Store
from jobrunner.cli.exits import ENGINE_FAILED
from jobrunner.cli.store_options import note, printing, refuse_store, store_options, write_json_array
from jobrunner.cli.stored_results import StoredResult, StoredResults, result_table
from jobrunner.errors import SpecError
from jobrunner.storage.whole_file import whole_file
from jobrunner.texts import plural, printable

__all__ = ["results", "write_csv"]

_FORMATS = ("table", "csv", "json")


@click.command(
    epilog="""\b
Examples:
  jobrunner results
  jobrunner results --store nightly.db --name ising --format csv > results.csv
  jobrunner results --format json --replicates-each --output results.json

Exits with 3 if a result can't be loaded; the others are shown all the same."""
)
@store_options
@click.option("--format", "form", type=click.Choice(_FORMATS), help="[default: by the end of --output, else table]")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--replicates-each", "each", is_flag=True, help="A row for each replicate, instead of mean and error.")
@click.option("--output", type=click.Path(), metavar="FILE", help="Write there instead of stdout.")
def results(store: str, name: str | None, form: str | None, as_json: bool, each: bool, output: str | None) -> None:
    """Show the results of a batch, those that are there so far.

    The table shows the first and the last of many; csv and json have them all.  With replicates a row is one point,
    with the mean of each number and its standard error.
    """
    if as_json and form not in (None, "json"):
        raise SpecError(f"--json is --format json, and not {form}", key="--json")
    if form is None:
        by_name = Path(output or "").suffix.lower().removeprefix(".")
        form = "json" if as_json else by_name if by_name in ("csv", "json") else "table"
    with Store(store) as opened:
        batch = opened.batch(name)
        found = StoredResults(opened, batch, each=each)
        if output is not None:
            refuse_store(output, opened.path)
            with whole_file(output) as file:
                _write(form, found, opened, batch, file)
        else:
            with printing():
                _write(form, found, opened, batch, sys.stdout)
        for text in [*found.notes(), *_missing(opened, batch)]:
            note(text)
    raise click.exceptions.Exit(ENGINE_FAILED if found.unreadable else 0)


def _missing(store: Store, batch: BatchRecord) -> Iterator[str]:
    """What is to be said if not all points are done."""
    counts = store.counts(batch)
    if counts.done < counts.total:
        left = counts.pending + counts.leased
        parts = [f"{counts.failed:,} failed"] if counts.failed else []
        parts += [f"{counts.cancelled:,} cancelled"] if counts.cancelled else []
        parts += [f"{left:,} still to be run"] if left else []
        yield f"{counts.done:,} of {plural(counts.total, 'point')} done; {', '.join(parts)}"


def _write(form: str, found: StoredResults, store: Store, batch: BatchRecord, file: TextIO) -> None:
    if form == "csv":
        write_csv(found, batch, file)
    elif form == "json":
        write_json_array((_as_json(row, found) for row in found), file)
    else:
        result_table(found, store, batch).print(file, hint="--format csv has all")


def _as_json(row: StoredResult, found: StoredResults) -> dict[str, Any]:
    point = row.point
    about: dict[str, Any] = {"parameters": to_json(point.parameters), "value": to_json(row.value)}
    if row.problem is not None:
        about["problem"] = row.problem
    if found.group == 1:
        about |= {"point": point.place, "replicate": point.replicate, "seed": point.seed}
    return about


def write_csv(found: StoredResults, batch: BatchRecord, file: TextIO) -> None:
    """Write all results as CSV, in two passes over the store: the first finds the columns.

    The columns are the parameters, ``replicate`` and ``seed`` if each replicate has a row, and the columns of the
    results.  A parameter of the name of one of these two becomes ``parameter.<name>``, a result's column of the name of
    an earlier one ``result.<name>``.  A cell is text as it stands, nothing for None or what a result lacks, anything
    else as JSON.

    Args:
        found: the results.
        batch: their batch.
        file: where.
    """
    parameters, columns = dict.fromkeys(batch.parameters), dict[str, None]()
    for row in found:
        parameters.update(dict.fromkeys(row.point.parameters))
        columns.update(dict.fromkeys(row.columns))
    own = ["replicate", "seed"] if found.group == 1 and batch.replicates > 1 else []
    header = [free_name(name, own, "parameter.") for name in parameters] + own
    for name in columns:
        header.append(free_name(name, header))
    shown = printable if file.isatty() else str
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(shown, header))
    for row in found:
        point, values = row.point, row.columns
        cells = [to_json(point.parameters.get(name)) for name in parameters]
        cells += [point.replicate, point.seed] if own else []
        cells += [values.get(name) for name in columns]
        writer.writerow(shown(_csv_cell(cell)) for cell in cells)


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
