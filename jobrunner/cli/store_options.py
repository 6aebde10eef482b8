"""What the commands on a store have in common: which store, which batch, which points, and printing."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from jobrunner.batch.batch import DEFAULT_STORE
from jobrunner.batch.records import BatchRecord
from jobrunner.batch.store import Store
from jobrunner.cli.console import may_be_closed
from jobrunner.cli.exits import EngineFailed
from jobrunner.errors import SpecError
from jobrunner.storage.trust import SIDECARS

__all__ = [
    "note",
    "place_statuses",
    "point_option",
    "printing",
    "refuse_store",
    "store_option",
    "store_options",
    "write_json_array",
]

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: So many places are asked for in one query; older versions of SQLite take 999 values.
_PLACES_MOST = 500


def store_option(command: _Command) -> _Command:
    """Add ``--store``."""
    return click.option(
        "--store", type=click.Path(), default=DEFAULT_STORE, show_default=True, help="The file with the batches."
    )(command)


def store_options(command: _Command) -> _Command:
    """Add ``--store`` and ``--name``."""
    return store_option(click.option("--name", help="The batch. [default: the only one in the store]")(command))


def point_option(help_text: str) -> Callable[[_Command], _Command]:
    """``--point N``, any number of times."""
    return click.option("--point", "places", type=click.IntRange(min=0), multiple=True, metavar="N", help=help_text)


def place_statuses(store: Store, batch: BatchRecord, places: Iterable[int]) -> dict[int, str]:
    """The status of each of some points, in their order.

    Args:
        store: the store.
        batch: the batch.
        places: the points' places in it.

    Raises:
        SpecError: the batch has no such point.
    """
    wanted = sorted(set(places))
    found: dict[int, str] = {}
    for start in range(0, len(wanted), _PLACES_MOST):
        some = wanted[start : start + _PLACES_MOST]
        marks = ", ".join("?" * len(some))
        # The statuses are named for the index's sake, whose second column they are.
        query = f"""
            SELECT place, status FROM point WHERE batch = ? AND place IN ({marks})
            AND status IN ('pending', 'leased', 'done', 'failed', 'cancelled')
        """  # noqa: S608 - question marks
        found |= dict(store.rows(query, batch.id, *some))
    missing = [place for place in wanted if place not in found]
    if missing:
        raise SpecError(f"batch {batch.name!r} has no point {missing[0]}; it has {_extent(batch)}", key="--point")
    return dict(sorted(found.items()))


def _extent(batch: BatchRecord) -> str:
    if batch.total == 0:
        return "none"
    return "only point 0" if batch.total == 1 else f"the points 0 to {batch.total - 1}"


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """What is printed on stdout in here may find its reader gone, which is no error, or a full disk, which is one.

    Raises:
        EngineFailed: it can't be printed.
    """
    try:
        with may_be_closed():
            yield
    except OSError as error:
        raise EngineFailed(f"the output can't be printed: {error.strerror or error}") from error


def note(text: str) -> None:
    """Tell the user something beside the data, on stderr."""
    click.echo(f"jobrunner: note: {text}", err=True)


def write_json_array(items: Iterable[Any], file: TextIO | None = None) -> None:
    """Write one JSON array, an item a line, each as soon as it is there.

    Args:
        items: what `json.dumps` takes.
        file: default stdout.
    """
    file = file or sys.stdout
    before = "[\n"
    for item in items:
        file.write(before + json.dumps(item, allow_nan=False))
        before = ",\n"
    file.write("[]\n" if before == "[\n" else "\n]\n")


def refuse_store(output: str | os.PathLike[str], store: Path, option: str = "--output") -> None:
    """Refuse to write an output over a store, or over what SQLite keeps beside it.

    Raises:
        SpecError: it would be.
    """
    for path in (str(store), *(f"{store}{ending}" for ending in SIDECARS)):
        same = os.path.realpath(output) == os.path.realpath(path)
        with contextlib.suppress(OSError):  # one of them is not there
            same = same or os.path.samefile(output, path)
        if same:
            raise SpecError(f"{str(output)!r} is the store itself; name another file", key=option)
