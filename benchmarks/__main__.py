"""``python -m benchmarks``: the comparison from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from benchmarks.cases import CASES, Scale
from benchmarks.peers import PEERS, Peer, installed
from benchmarks.report import as_pyperf, failed, print_table
from benchmarks.runner import Series, run


def _peers(ctx: click.Context, param: click.Parameter, value: str | None) -> list[type[Peer]]:
    """The peers asked for, or all that are installed; jobrunner always, first."""
    if value is None:
        return [peer for peer in PEERS.values() if installed(peer)]
    names = [name.strip() for name in value.split(",") if name.strip()]
    for name in names:
        if name not in PEERS:
            raise click.BadParameter(f"{name!r} is none of {', '.join(PEERS)}", ctx, param)
        if not installed(PEERS[name]):
            raise click.BadParameter(f"{name} is not installed: pip install -e '.[bench]'", ctx, param)
    return [peer for name, peer in PEERS.items() if name in {"jobrunner", *names}]


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  python -m benchmarks
  python -m benchmarks round_trip cancel --peers pebble,loky --repeats 9 --json results.json""",
)
@click.argument("cases", nargs=-1, type=click.Choice(list(CASES)))
@click.option("--peers", callback=_peers, metavar="A,B", help=f"Of {', '.join(PEERS)}. [default: all installed]")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Workers of each pool.")
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Samples of each figure.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, writable=True), help="Write pyperf's JSON there.")
@click.option("--quick", is_flag=True, help="Run little in each sample: to see that it works, not for figures.")
def main(
    cases: tuple[str, ...], peers: list[type[Peer]], workers: int, repeats: int, json_file: str | None, quick: bool
) -> None:
    """Compare jobrunner with other process pools.

    Every sample is taken in a fresh interpreter, and the pools take turns.  Without CASES all are measured.
    """
    chosen = [case for name, case in CASES.items() if not cases or name in cases]
    total = repeats * sum(case.applies(peer) for case in chosen for peer in peers)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)

        def on_sample(series: Series) -> None:
            progress.update(task, advance=1, description=f"{series.case.name}: {series.peer.name}")

        measured = run(
            chosen,
            peers,
            workers=workers,
            repeats=repeats,
            scale=Scale.quick() if quick else Scale(),
            on_sample=on_sample,
        )
    console = Console()
    # Into a file or a pipe, a table is as wide as it is.
    print_table(measured, console if console.is_terminal else Console(width=160))
    if json_file is not None:
        Path(json_file).write_text(json.dumps(as_pyperf(measured), indent=1) + "\n", encoding="utf-8")
    raise SystemExit(1 if failed(measured) else 0)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
