"""``python -m benchmarks``: the comparison from the command line."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from benchmarks import page, plots
from benchmarks.cases import CASES, FAMILIES, Case, Scale
from benchmarks.peers import ALL_PEERS, OURS, Peer, installed
from benchmarks.report import failed, print_figures, print_settings, print_targets
from benchmarks.results import Run, as_pyperf, from_pyperf
from benchmarks.runner import planned, run
from benchmarks.targets import CASES_NEEDED


def _peers(ctx: click.Context, param: click.Parameter, value: str | None) -> list[type[Peer]]:
    """The peers asked for, or all that are installed; jobrunner always, first."""
    if value is None:
        return [peer for peer in ALL_PEERS.values() if installed(peer)]
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names:
        raise click.BadParameter("no name is given", ctx, param)
    for name in names:
        if name not in ALL_PEERS:
            raise click.BadParameter(f"{name!r} is none of {', '.join(ALL_PEERS)}", ctx, param)
        if not installed(ALL_PEERS[name]):
            raise click.BadParameter(f"{name} is not installed: pip install -e '.[bench]'", ctx, param)
    return [peer for name, peer in ALL_PEERS.items() if name in {OURS, *names}]


def _cases(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> list[Case]:
    """The cases asked for, in the suite's order; all without any."""
    names: set[str] = set()
    for name in value:
        if name not in CASES and name not in FAMILIES:
            raise click.BadParameter(f"{name!r} is none of {', '.join([*CASES, *FAMILIES])}", ctx, param)
        names.update(FAMILIES.get(name, (name,)))
    return [case for name, case in CASES.items() if not names or name in names]


def _file(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """A file that can be written: better known before the run than after it."""
    if value is not None:
        new = not value.exists()
        try:
            with value.open("a"):
                pass
            if new:
                value.unlink()
        except OSError as error:
            raise click.BadParameter(f"{value} can't be written: {error.strerror}", ctx, param) from error
    return value


def _directory(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """A directory that files can be made in; it is made if it isn't there."""
    if value is not None:
        try:
            value.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=value):
                pass
        except OSError as error:
            raise click.BadParameter(f"{value} can't be written: {error.strerror}", ctx, param) from error
        try:
            plots.check()
        except ImportError as error:
            raise click.BadParameter(str(error), ctx, param) from error
    return value


def _loaded(ctx: click.Context, param: click.Parameter, value: Path | None) -> Run | None:
    if value is None:
        return None
    try:
        return from_pyperf(json.loads(value.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{value}: {error}", ctx, param) from error


_WRITABLE = click.Path(path_type=Path, dir_okay=False)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"""\b
Cases: {", ".join([*CASES][:9])},
  {", ".join([*CASES][9:])};
  {", ".join(f"{name} for all of {', '.join(members)}" for name, members in FAMILIES.items())}

\b
Examples:
  python -m benchmarks
  python -m benchmarks round_trip cancel --peers pebble,loky --repeats 9 --json results.json
  python -m benchmarks --targets
  python -m benchmarks --load results.json --plot plots""",
)
@click.argument("cases", nargs=-1, callback=_cases)
@click.option("--peers", callback=_peers, metavar="A,B", help=f"Of {', '.join(ALL_PEERS)}. [default: all installed]")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Workers of each pool.")
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Samples of each figure.")
@click.option("--quick", is_flag=True, help="Run little in each sample: to see that it works, not for figures.")
@click.option("--targets", is_flag=True, help="Measure what jobrunner's targets need, and print those alone.")
@click.option("--json", "json_file", type=_WRITABLE, callback=_file, help="Write pyperf's JSON there.")
@click.option(
    "--plot",
    "plot_directory",
    type=click.Path(path_type=Path, file_okay=False),
    callback=_directory,
    help="Draw the figures, as PNG files in this directory.",
)
@click.option(
    "--markdown", "markdown_file", type=_WRITABLE, callback=_file, help="Write the page of the documentation there."
)
@click.option(
    "--load",
    "loaded",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    callback=_loaded,
    help="Measure nothing: show a run that --json has written.",
)
def main(
    cases: list[Case],
    peers: list[type[Peer]],
    workers: int,
    repeats: int,
    quick: bool,
    targets: bool,
    json_file: Path | None,
    plot_directory: Path | None,
    markdown_file: Path | None,
    loaded: Run | None,
) -> None:
    """Compare jobrunner with other process pools.

    Every sample is taken in a fresh interpreter, and the pools take turns, with the machine's limits among them.
    Without CASES all are measured.  A peer that fails or hangs is a note in the table; the exit code is 1 if a sample
    of jobrunner failed.
    """
    if targets:
        cases = [case for case in cases if case.name in CASES_NEEDED]
    if loaded is None:
        scale = Scale.quick() if quick else Scale()
        measured = _measure(cases, peers, workers, repeats, scale)
    else:
        names = {case.name for case in cases}
        measured = dataclasses.replace(loaded, series=[series for series in loaded.series if series.case.name in names])
    console = Console()
    # Into a file or a pipe, a table is as wide as it is.
    if not console.is_terminal:
        console = Console(width=200)
    if not targets:
        print_figures(measured, console)
    print_targets(measured, console)
    print_settings(measured, console)
    if json_file is not None:
        json_file.write_text(json.dumps(as_pyperf(measured), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    pictures = plots.draw(measured, plot_directory) if plot_directory is not None else []
    if markdown_file is not None:
        places = [(picture.title, os.path.relpath(picture.path, markdown_file.parent)) for picture in pictures]
        markdown_file.write_text(page.as_markdown(measured, places), encoding="utf-8")
    raise SystemExit(1 if failed(measured) else 0)


def _measure(cases: list[Case], peers: list[type[Peer]], workers: int, repeats: int, scale: Scale) -> Run:
    # So that a sample that is running, and what it has started, ends with this process.
    signal.signal(signal.SIGTERM, _exit)
    errors = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("", total=planned(cases, peers, repeats))

        def on_sample(case: str, peer: str) -> None:
            progress.update(task, advance=1, description=f"{case}: {peer}")

        return run(cases, peers, workers=workers, repeats=repeats, scale=scale, on_sample=on_sample)


def _exit(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
