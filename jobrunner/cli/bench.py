"""``jobrunner bench``: timing functions from the command line."""

from __future__ import annotations

import functools
import importlib.util
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from jobrunner.batch import DEFAULT_STORE, StopRequest
from jobrunner.bench.compare import Baseline, Comparison, check_baseline, comparisons, read_baseline
from jobrunner.bench.cores import Cores, choose_cores, parse_cores
from jobrunner.bench.machine import describe
from jobrunner.bench.plan import Plan, make_plan
from jobrunner.bench.progress import PLAIN, ProgressBar
from jobrunner.bench.result import BenchmarkResult
from jobrunner.bench.run import measure, stored_result
from jobrunner.bench.settings import Settings
from jobrunner.cli.bench_table import print_failures, print_result, print_warnings
from jobrunner.cli.console import may_be_closed
from jobrunner.cli.exits import ALL_DONE, ENGINE_FAILED, SOME_FAILED, EngineFailed, WrongUse
from jobrunner.cli.interrupt import Interrupts
from jobrunner.cli.parameters import parse_fixed, parse_parameters
from jobrunner.cli.store_options import note, refuse_store
from jobrunner.errors import SpecError, StoreError
from jobrunner.texts import printable

__all__ = ["bench"]

_PROGRESS: Mapping[str, bool | str | None] = {"auto": None, "bar": True, "plain": PLAIN, "none": False}

_STDOUT = "-"


def _share(text: str) -> float:
    """A share of a whole, such as ``5%`` or ``0.05``."""
    share = _excess(text)
    if not 0 < share < 1:
        raise click.BadParameter(f"expected a share such as 5% or 0.05, found {text!r}")
    return share


def _excess(text: str) -> float:
    """A share above another, such as ``5%``, ``0.05`` or ``200%``."""
    try:
        share = float(text.strip().removesuffix("%")) / (100.0 if text.strip().endswith("%") else 1.0)
    except ValueError:
        share = -1.0
    if not 0 <= share < math.inf:
        raise click.BadParameter(f"expected a share such as 5% or 0.05, found {text!r}")
    return share


def _widths(text: str) -> tuple[int, ...]:
    """Numbers of workers such as ``1,2,4``."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"expected numbers of workers such as 1,2,4, found {text!r}") from None


def _core_list(text: str) -> tuple[int, ...]:
    """Cores such as ``2,3`` or ``4-7``."""
    try:
        return parse_cores(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(
    epilog="""\b
Examples:
  jobrunner bench json:dumps --fixed 'obj={"a": [1, 2, 3]}'
  jobrunner bench sorting:merge sorting:quick --setup sorting:numbers -p n=1000,10000,100000
  jobrunner bench solver:step -p size=64:512:64 --workers 1,2,4 --plot plots
  jobrunner bench solver:step -p size=64 --baseline before.json --fail-if-slower 5%

\b
Every sample is a process of its own, pinned to a core that this one leaves; all functions are sampled in turn, in
random order. An interrupted benchmark goes on with the same command; one that is done is measured anew, and what there
was stays in the store. Without a TARGET, the latest in the store is shown.

\b
Values of -p are those of 'jobrunner run'. What --setup returns is what the function gets: a tuple positional
arguments, a mapping keyword arguments, anything else the one argument.

\b
Exit codes: 0 all measured; 1 samples failed, or slower than --fail-if-slower allows; 2 wrong use; 3 the store or a
file failed; 130 interrupted by Ctrl-C; 143 ended by SIGTERM."""
)
@click.argument("targets", metavar="[TARGET]...", nargs=-1)
@click.option("-p", "--param", "parameters", metavar="KEY=VALUES", multiple=True, help="A parameter and its values.")
@click.option("--fixed", metavar="KEY=VALUE", multiple=True, help="A parameter with one value, JSON or text.")
@click.option("--zip", "zipped", is_flag=True, help="Pair the lists of values instead of taking their product.")
@click.option("--setup", metavar="TARGET", help="A function that gives the arguments, untimed, before each value.")
@click.option("--samples", type=click.IntRange(min=1), help="Samples of each function at each point. [default: 20]")
@click.option("--min-time", type=float, metavar="SECONDS", help="Time each for so long instead.")
@click.option("--target-rse", type=_share, metavar="SHARE", help="Sample until the median's error is so small.")
@click.option("--warmup", type=click.IntRange(min=0), default=1, show_default=True, help="Untimed values a sample.")
@click.option("--workers", type=_widths, metavar="1,2,4", help="Run batches at these widths: speedup, efficiency.")
@click.option(
    "--affinity/--no-affinity",
    default=None,
    help="Pin each sample to a core of its own. [default: where the system can]",
)
@click.option("--cpus", type=_core_list, metavar="LIST", help="The cores that samples are pinned to, such as 2-3.")
@click.option("--threads", type=click.IntRange(min=1), default=1, help="BLAS/OpenMP threads of a sample. [default: 1]")
@click.option("--no-gc", is_flag=True, help="Switch the garbage collector off while a function is timed.")
@click.option("--time-limit", type=float, metavar="SECONDS", help="Seconds that a sample may take.")
@click.option("--memory-limit", metavar="BYTES", help="Memory that a sample may use, such as 2GiB.")
@click.option("--baseline", metavar="FILE", help="Compare with what --json, --pyperf or pyperf has written.")
@click.option("--any-machine", is_flag=True, help="Compare with the baseline of another machine, too.")
@click.option("--fail-if-slower", type=_excess, metavar="SHARE", help="Exit with 1 if slower by more, such as 5%.")
@click.option("--json", "json_file", metavar="FILE", help="Write everything as JSON; '-': print it, and no table.")
@click.option("--pyperf", "pyperf_file", metavar="FILE", help="Write a file for 'python -m pyperf'.")
@click.option("--csv", "csv_file", metavar="FILE", help="Write the samples as CSV.")
@click.option("--plot", "plot_directory", metavar="DIR", help="Draw plots, PNG and SVG (extra 'plot').")
@click.option("--name", help="The benchmark's name in the store. [default: the functions']")
@click.option("--store", default=DEFAULT_STORE, show_default=True, metavar="FILE", help="Where samples are kept.")
@click.option("--fresh", is_flag=True, help="Begin anew; what there is stays under another name.")
@click.option(
    "--progress",
    type=click.Choice(list(_PROGRESS)),
    default="auto",
    help="A bar, a line each 30 seconds, or nothing. [default: a bar on a terminal]",
)
def bench(
    targets: tuple[str, ...],
    parameters: tuple[str, ...],
    fixed: tuple[str, ...],
    zipped: bool,
    setup: str | None,
    workers: tuple[int, ...] | None,
    affinity: bool | None,
    cpus: tuple[int, ...] | None,
    no_gc: bool,
    baseline: str | None,
    any_machine: bool,
    fail_if_slower: float | None,
    name: str | None,
    store: str,
    fresh: bool,
    progress: str,
    json_file: str | None,
    pyperf_file: str | None,
    csv_file: str | None,
    plot_directory: str | None,
    **measured: Any,
) -> None:
    """Time functions, each sample a job in a process of its own.

    A TARGET is module:function or path/to/file.py:function; several are compared with the first. The median of each is
    shown with its 95 % confidence interval. Failures, warnings and progress go to stderr.
    """
    files = _Files(json_file, pyperf_file, csv_file, plot_directory)
    files.check(store)
    before = read_baseline(baseline) if baseline is not None else None
    if any_machine and before is None:
        raise WrongUse("--any-machine goes with --baseline")
    if not targets:
        _refuse_without_targets()
        result = stored_result(store, name)
        _check_comparable(fail_if_slower, before, len(result.implementations))
        if before is not None:
            _check(before, [series.name for series in result.series], result.machine, any_machine)
        raise click.exceptions.Exit(_show(result, before, fail_if_slower, files))
    try:
        settings = Settings(widths=workers or (), gc=not no_gc, **measured)
        cores = choose_cores(settings.threads, pin=affinity, wanted=cpus or ())
        plan = make_plan(
            targets,
            parse_parameters(parameters, zipped),
            parse_fixed(fixed),
            setup=setup,
            name=name,
            settings=settings,
        )
    except (TypeError, ValueError) as error:
        raise WrongUse(str(error)) from error
    _check_comparable(fail_if_slower, before, len(targets))
    if before is not None:
        _check(before, [series.name for series in plan.series], describe(cores.reserved), any_machine)
    stop = StopRequest()
    with Interrupts(stop, _leave_to_guardian) as interrupts:
        result = _measure(plan, cores, store, fresh, stop, progress)
        code = _show(result, before, fail_if_slower, files)
    raise click.exceptions.Exit(code if interrupts.exit_code is None else interrupts.exit_code)


def _leave_to_guardian() -> None:
    """A second Ctrl-C ends this process at once; its guardian then ends the workers."""


def _measure(plan: Plan, cores: Cores, store: str, fresh: bool, stop: StopRequest, progress: str) -> BenchmarkResult:
    try:
        with ProgressBar(_PROGRESS[progress]) as bar:
            return measure(
                plan,
                cores,
                store=store,
                fresh=fresh,
                stop=stop,
                progress=bar,
                on_message=lambda message: note(printable(message)),
            )
    except (ValueError, OSError) as error:
        raise EngineFailed(f"the workers can't be started: {error}") from error


def _check(baseline: Baseline, names: Sequence[str], machine: Mapping[str, Any], any_machine: bool) -> None:
    for told in check_baseline(baseline, names, machine, any_machine=any_machine):
        note(printable(told))


def _check_comparable(fail_if_slower: float | None, baseline: Baseline | None, functions: int) -> None:
    if fail_if_slower is not None and baseline is None and functions == 1:
        raise WrongUse("--fail-if-slower compares with --baseline, or with the first of several TARGETs; give either")


#: The options that go without a target: which benchmark of the store is shown, compared and written.
_SHOWING = frozenset(
    {
        "targets", "name", "store", "baseline", "any_machine", "fail_if_slower", "json_file", "pyperf_file", "csv_file",
        "plot_directory", "progress",
    }
)  # fmt: skip


def _refuse_without_targets() -> None:
    """Refuse options that say what is to be measured, where nothing is."""
    context = click.get_current_context()
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if given and option.name not in _SHOWING:
            raise WrongUse(f"{option.opts[0]}: expected a TARGET to time, such as module:function")


class _Files:
    """What is written beside the table."""

    def __init__(self, json: str | None, pyperf: str | None, csv: str | None, plot: str | None) -> None:
        self._json = json
        self._pyperf = pyperf
        self._csv = csv
        self._plot = plot

    @property
    def prints_document(self) -> bool:
        """Whether stdout is for the JSON document."""
        return self._json == _STDOUT

    def check(self, store: str) -> None:
        """Check, before anything is measured, that they can be written.

        Raises:
            WrongUse: one has no name, is a directory or in none, or is the store; or there is nothing to draw with.
        """
        taken: dict[str, str] = {}
        for option, path in (("--json", self._json), ("--pyperf", self._pyperf), ("--csv", self._csv)):
            if path is None or (option == "--json" and path == _STDOUT):
                continue
            if not path:
                raise WrongUse(f"{option}: expected a file, found nothing")
            if path == _STDOUT:
                raise WrongUse(f"{option}: only --json can be printed on stdout; name a file")
            if path in taken:
                raise WrongUse(f"{option}: {path!r} is written by {taken[path]} already; name another file")
            taken[path] = option
            refuse_store(path, Path(store), option)
            if Path(path).is_dir():
                raise WrongUse(f"{option}: {path!r} is a directory")
            if not Path(path).absolute().parent.is_dir():
                raise WrongUse(f"{option}: there is no directory {str(Path(path).parent)!r} to write {path!r} in")
        if self._plot is not None:
            if not self._plot:
                raise WrongUse("--plot: expected a directory, found nothing")
            if Path(self._plot).exists() and not Path(self._plot).is_dir():
                raise WrongUse(f"--plot: {self._plot!r} is no directory")
            if importlib.util.find_spec("matplotlib") is None:
                raise WrongUse("--plot needs matplotlib: pip install 'jobrunner[plot]'")

    def write(self, result: BenchmarkResult, compared: Sequence[Comparison]) -> list[str]:
        """Write them; one that can't be written does not keep the others from it.

        Returns:
            What went wrong, a sentence each.
        """
        writers: list[Callable[[], object]] = []
        if self._json is not None and not self.prints_document:
            writers.append(functools.partial(result.write_json, self._json, compared))
        if self._pyperf is not None and any(series.good for series in result.series):
            writers.append(functools.partial(result.write_pyperf, self._pyperf))
        elif self._pyperf is not None:
            note(f"no sample has succeeded, so there is nothing to write to {self._pyperf}")
        if self._csv is not None:
            writers.append(functools.partial(result.write_csv, self._csv))
        if self._plot is not None:
            writers.append(functools.partial(self._draw, result, compared, self._plot))
        faults = []
        for write in writers:
            try:
                write()
            except (StoreError, SpecError) as error:
                faults.append(str(error))
        return faults

    def _draw(self, result: BenchmarkResult, compared: Sequence[Comparison], directory: str) -> None:
        for path in result.plot(directory, compared):
            click.echo(f"jobrunner: drawn: {path}", err=True)


def _show(result: BenchmarkResult, baseline: Baseline | None, fail_if_slower: float | None, files: _Files) -> int:
    """Print the result, write what was asked for, and return the exit code."""
    compared = comparisons(result, baseline)
    faults = []
    try:
        with may_be_closed():
            if files.prints_document:
                click.echo(json.dumps(result.as_dict(compared), allow_nan=False, indent=1))
            else:
                print_result(result, compared, baseline)
    except OSError as error:
        faults.append(f"the results can't be printed: {error.strerror or error}")
    print_failures(result)
    print_warnings(result)
    faults += files.write(result, compared)
    for fault in faults:
        click.echo(f"jobrunner: {printable(fault)}", err=True)
    slower = fail_if_slower is not None and _too_slow(compared, baseline, fail_if_slower)
    if faults:
        return ENGINE_FAILED
    return SOME_FAILED if slower or result.failed else ALL_DONE


def _too_slow(compared: Sequence[Comparison], baseline: Baseline | None, share: float) -> bool:
    """Whether one is slower than is allowed, or can't be told to be; says which."""
    undecided = [each for each in compared if not each.decided]
    for each in undecided:
        click.echo(f"undecided: {printable(each.series.name)} has too few samples to be called slower or not", err=True)
    slower = [each for each in compared if each.slower_by(share)]
    for each in slower:
        assert each.ratio is not None
        than = "the baseline" if baseline is not None else printable(each.reference)
        click.echo(
            f"slower: {printable(each.series.name)} takes {each.ratio.value:.3f} times as long as {than} "
            f"({each.ratio.low:.3f} to {each.ratio.high:.3f}); {100 * share:.3g} % more are allowed",
            err=True,
        )
    return bool(slower or undecided)
