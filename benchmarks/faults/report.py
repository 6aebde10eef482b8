"""The matrix as a table for people, as JSON, and as Markdown for the documentation."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.faults.peers import OURS
from benchmarks.faults.runner import Matrix, Outcome
from benchmarks.peers import Peer, settings_of, version_of

__all__ = ["as_json", "as_markdown", "print_table"]


def _total(matrix: Matrix, peer: type[Peer]) -> str:
    return f"{matrix.held(peer)} of {matrix.counted(peer)}"


def print_table(matrix: Matrix, console: Console) -> None:
    """A row a fault, a column a peer, the totals, and how the peers are set."""
    table = Table(show_edge=False, pad_edge=False, show_footer=True)
    table.add_column("fault: the job …", footer="holds", overflow="fold")
    for peer in matrix.peers:
        style = "bold" if peer.name == OURS else ""
        table.add_column(Text(peer.name, style=style), footer=_total(matrix, peer), overflow="fold")
    group = ""
    for fault in matrix.faults:
        if fault.group != group:
            table.add_section()
            table.add_row(Text(fault.group, style="bold"))
            group = fault.group
        outcomes = (matrix.outcomes[fault.name, peer.name] for peer in matrix.peers)
        table.add_row(Text(f"{fault.name}: {fault.title}"), *map(_cell, outcomes))
    console.print(table)
    for line in _details(matrix):
        console.print(Text(line))
    for peer in matrix.peers:
        console.print(Text(f"{peer.name} {version_of(peer)}: {settings_of(peer)}"))


def _cell(outcome: Outcome) -> Text:
    style = "green" if outcome.holds else "red" if outcome.counts else "dim"
    return Text(outcome.verdict, style=style)


def _details(matrix: Matrix) -> Iterator[str]:
    """What more there is to say where jobrunner's rows don't hold."""
    for fault in matrix.faults:
        outcome = matrix.outcomes.get((fault.name, OURS))
        if outcome is not None and not outcome.holds:
            yield f"{OURS}, {fault.name}: {outcome.verdict}" + (f" ({outcome.detail})" if outcome.detail else "")


def as_json(matrix: Matrix) -> dict[str, Any]:
    """The matrix with all details; its metadata name neither the machine nor its user."""
    return {
        "version": 1,
        "metadata": {
            "python_version": platform.python_version(),
            "python_implementation": platform.python_implementation().lower(),
            "platform": platform.platform(),
            "cpu_count": os.cpu_count() or 1,
            "timeout_s": matrix.timeout_s,
        },
        "peers": {
            peer.name: {
                "version": version_of(peer),
                "settings": settings_of(peer),
                "holds": matrix.held(peer),
                "of": matrix.counted(peer),
            }
            for peer in matrix.peers
        },
        "faults": [
            {
                "name": fault.name,
                "group": fault.group,
                "title": fault.title,
                "outcomes": {peer.name: _outcome(matrix.outcomes[fault.name, peer.name]) for peer in matrix.peers},
            }
            for fault in matrix.faults
        ],
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "holds": outcome.holds if outcome.counts else None,
        "verdict": outcome.verdict,
        "detail": outcome.detail,
        "seconds": outcome.seconds,
    }


_INTRODUCTION = """\
# The fault matrix

Written by `python -m benchmarks.faults --markdown docs/faults.md`; `--help` says how to run a part of it.

In each row a faulty job runs beside two healthy ones: A, which is running when the fault happens, and B, which waits.
A row *holds* when the faulty job alone fails, with a fitting error and in time (or succeeds, where it should), A and B
run once each and keep their results, the pool completes another job afterwards and closes in time, and no process is
left. In the rows on state, a later job on the same worker must see nothing of what the faulty one has changed.

Otherwise the cell tells what went wrong first: *A lost* and *B lost* mean that a healthy job failed; *hangs*, that the
faulty job never ended; *can't end it*, that the library has neither a time limit a job nor a way to end a running one.
"""


def as_markdown(matrix: Matrix) -> str:
    """A page with the table, and a line on what it was made with."""
    lines = [
        *_INTRODUCTION.splitlines(),
        "",
        _row("the job …", *(peer.name for peer in matrix.peers)),
        _row("---", *("---" for _ in matrix.peers)),
    ]
    group = ""
    for fault in matrix.faults:
        if fault.group != group:
            group = fault.group
            lines.append(_row(f"**{group}**", *("" for _ in matrix.peers)))
        verdicts = (matrix.outcomes[fault.name, peer.name].verdict for peer in matrix.peers)
        lines.append(_row(fault.title, *verdicts))
    lines.append(_row("**holds**", *(f"**{_total(matrix, peer)}**" for peer in matrix.peers)))
    versions = ", ".join(f"{peer.name} {version_of(peer)}" for peer in matrix.peers)
    lines += ["", f"Python {platform.python_version()}, {platform.system()}; {versions}."]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    """A row of a Markdown table.

    Example:
        >>> _row("a|b", "c")
        '| a\\\\|b | c |'
    """
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
