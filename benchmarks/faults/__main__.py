"""``python -m benchmarks.faults``: the fault matrix from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from benchmarks.faults.matrix import FAULTS, Fault
from benchmarks.faults.peers import OURS
from benchmarks.faults.report import as_json, as_markdown, print_table
from benchmarks.faults.runner import Outcome, run
from benchmarks.peers import PEERS, Peer, installed


def _names(ctx: click.Context, param: click.Parameter, value: str, known: list[str]) -> list[str]:
    names = [name.strip() for name in value.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(known)}", ctx, param)
    if not names:
        raise click.BadParameter("no name is given", ctx, param)
    return names


def _peers(ctx: click.Context, param: click.Parameter, value: str | None) -> list[type[Peer]]:
    """The peers asked for, or all that are installed; jobrunner always, first."""
    if value is None:
        return [peer for peer in PEERS.values() if installed(peer)]
    names = _names(ctx, param, value, list(PEERS))
    for name in names:
        if not installed(PEERS[name]):
            raise click.BadParameter(f"{name} is not installed: pip install -e '.[bench]'", ctx, param)
    return [peer for name, peer in PEERS.items() if name in {OURS, *names}]


def _faults(ctx: click.Context, param: click.Parameter, value: str | None) -> list[Fault]:
    """The faults asked for, by name or by group, in the matrix's order."""
    if value is None:
        return list(FAULTS.values())
    groups = list(dict.fromkeys(fault.group for fault in FAULTS.values()))
    names = _names(ctx, param, value, [*groups, *FAULTS])
    return [fault for fault in FAULTS.values() if fault.name in names or fault.group in names]


def _list(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    width = max(map(len, FAULTS))
    group = ""
    for fault in FAULTS.values():
        if fault.group != group:
            group = fault.group
            click.echo(f"{group}:")
        click.echo(f"  {fault.name:{width}}  {fault.title}")
    ctx.exit()


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  python -m benchmarks.faults
  python -m benchmarks.faults --peers pebble,loky --faults death,memory-hog --json faults.json""",
)
@click.option("--peers", callback=_peers, metavar="A,B", help=f"Of {', '.join(PEERS)}. [default: all installed]")
@click.option("--faults", callback=_faults, metavar="A,B", help="Names or groups, see --list. [default: all]")
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="List the faults.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=5),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a cell may take; what takes longer hangs.",
)
@click.option("--cells", type=click.IntRange(min=1), default=1, show_default=True, help="How many cells run at a time.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, writable=True), help="Write all details there.")
@click.option(
    "--markdown", "markdown_file", type=click.Path(dir_okay=False, writable=True), help="Write the table there."
)
@click.option(
    "--logs",
    type=click.Path(file_okay=False, exists=True, writable=True, path_type=Path),
    help="Keep what each cell said, in this directory.",
)
def main(
    peers: list[type[Peer]],
    faults: list[Fault],
    timeout: float,
    cells: int,
    json_file: str | None,
    markdown_file: str | None,
    logs: Path | None,
) -> None:
    """Run faulty jobs beside healthy ones, in jobrunner and in other process pools.

    A row holds when only the faulty job fails, with a fitting error, the others run once and keep their results, the
    pool works on and closes, and no process is left.  Else its cell tells what goes wrong first.  The exit code is 1
    if a row doesn't hold for jobrunner.
    """
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    errors = Console(stderr=True)
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("", total=len(faults) * len(peers))

        def on_cell(fault: Fault, peer: type[Peer], outcome: Outcome) -> None:
            progress.update(task, advance=1, description=f"{fault.name}: {peer.name}: {outcome.verdict}")

        matrix = run(faults, peers, timeout_s=timeout, at_a_time=cells, logs=logs, on_cell=on_cell)
    console = Console()
    # Into a file or a pipe, a table is as wide as it is.
    print_table(matrix, console if console.is_terminal else Console(width=200))
    if json_file is not None:
        Path(json_file).write_text(json.dumps(as_json(matrix), indent=1) + "\n", encoding="utf-8")
    if markdown_file is not None:
        Path(markdown_file).write_text(as_markdown(matrix), encoding="utf-8")
    ours = (outcome for (_, peer), outcome in matrix.outcomes.items() if peer == OURS)
    raise SystemExit(1 if any(outcome.counts and not outcome.holds for outcome in ours) else 0)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.faults")
