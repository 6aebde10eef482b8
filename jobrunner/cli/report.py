"""``jobrunner report``: a batch as one HTML page."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path

import click

from jobrunner.batch.store import Store
from jobrunner.cli.console import may_be_closed
from jobrunner.cli.store_options import refuse_store
from jobrunner.errors import SpecError

__all__ = ["report"]

#: A page says within so many bytes that it is one.
_HEAD_BYTES = 4096


@click.command(
    epilog="""\b
Examples:
  jobrunner report
  jobrunner report --store results.db --name ising --output ising.html"""
)
@click.option("--store", "path", default="jobrunner.db", show_default=True, metavar="FILE", help="The store.")
@click.option("--name", help="The batch. [default: the only one]")
@click.option("--output", metavar="FILE", help="The page. [default: the batch's name, with .html]")
@click.option("--json", "as_json", is_flag=True, help="Print the report's data as JSON instead of writing a page.")
def report(path: str, name: str | None, output: str | None, as_json: bool) -> None:
    """Write one HTML page on a batch, while it runs or afterwards.

    The page has a timeline by worker, run times and memory, the failures with their causes, and plots of the results
    over the parameters.  It needs no other file and no network, so it can be mailed or kept.
    """
    # Only here: drawing is of no use to the other commands.
    from jobrunner.batch.report import collect, render, write_page

    with Store(path) as store:
        data = collect(store, store.batch(name))
    if not as_json or output is not None:
        if output is None:
            output = file_name(data.summary.name)
            _check_replaceable(output)
        refuse_store(output, Path(path))
        write_page(render(data), output)
    with may_be_closed():
        click.echo(json.dumps(data.as_dict(), allow_nan=False, indent=2) if as_json else output)


def _check_replaceable(output: str) -> None:
    """Refuse to replace, without being told to, what is no report."""
    from jobrunner.batch.report import MARK

    if not os.path.lexists(output):
        return
    with contextlib.suppress(OSError), open(output, "rb") as file:
        if MARK.encode() in file.read(_HEAD_BYTES):
            return
    raise SpecError(f"{output!r} is there, and is no report of jobrunner's; name a file", key="--output")


def file_name(name: str) -> str:
    """A name for the page of a batch: its letters, digits and a few signs that mean nothing to a shell or a path.

    Example:
        >>> file_name("ising"), file_name("../my batch"), file_name("~")
        ('ising.html', 'my-batch.html', 'report.html')
    """
    safe = re.sub(r"[^\w.+=]+", "-", name).strip(".-")[:100]
    return f"{safe or 'report'}.html"
