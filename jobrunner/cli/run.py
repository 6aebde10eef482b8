"""``jobrunner run``: a batch from the command line."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import time
from typing import Any

import click

from jobrunner.batch import (
    Outcome,
    OutcomeStatus,
    OutputWriter,
    StopRequest,
    check_output,
    open_output,
    outcome_as_json,
    run_points,
)
from jobrunner.cli.console import may_be_closed, stdout_reserved
from jobrunner.cli.exits import ALL_DONE, ENGINE_FAILED, SOME_FAILED, EngineFailed, WrongUse, later
from jobrunner.cli.interrupt import Interrupts
from jobrunner.cli.plan import Plan, make_plan
from jobrunner.cli.progress import Progress
from jobrunner.cli.table import ResultTable, describe
from jobrunner.errors import ExecutorShutdownError, StoreError
from jobrunner.executors.local import LocalExecutor
from jobrunner.options import check_bytes, check_seconds

__all__ = ["run"]

#: Failures told one by one; a batch of which everything fails must not bury the reason.
_FAILURES_SHOWN = 50


def _seconds(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    try:
        return check_seconds("the time", value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    try:
        return check_bytes("the memory", value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _later_options(command: Any) -> Any:
    """Add the options of the later versions, each of which says so when it is given."""

    def refuse(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value:
            raise later(param.opts[0])

    for flag, is_flag in _LATER_OPTIONS.items():
        command = click.option(flag, is_flag=is_flag, hidden=True, expose_value=False, callback=refuse)(command)
    return command


_LATER_OPTIONS = {
    "--replicates": False,
    "--store": False,
    "--engine": False,
    "--address": False,
    "--fresh": True,
}


@click.command(
    epilog="""\b
Examples:
  jobrunner run examples/ising.toml
  jobrunner run examples/ising.py:simulate -p size=16,32 -p temperature=1.5:3.5:0.5 -p sweeps=1000
  jobrunner run simulation:run -p mode=fast,exact --workers 4 --memory-limit 2GiB --output results.csv

\b
Values of -p, first match wins:
  size=16            whole JSON is one value, a list included: 'cell=[1,2]'
  t=1.5:3.5:0.1      a range start:stop[:step]; the stop is included if hit
  size=16,32,64      comma-separated values
  mode=fast          text; quoted as JSON where it would be read as one of the above: 'mode="1:2"'

\b
Exit codes: 0 all done; 1 some jobs failed; 2 wrong use; 3 the engine or the output failed;
130 interrupted by Ctrl-C; 143 ended by SIGTERM. A second Ctrl-C kills at once."""
)
@click.argument("what", metavar="SPEC.toml|TARGET")
@click.option("-p", "--param", "parameters", metavar="KEY=VALUES", multiple=True, help="A parameter and its values.")
@click.option("--zip", "zipped", is_flag=True, help="Pair the lists of values instead of taking their product.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes. [default: CPUs / threads]")
@click.option(
    "--time-limit",
    type=float,
    callback=_seconds,
    metavar="SECONDS",
    help="Seconds that a job may take before it is ended.",
)
@click.option(
    "--memory-limit",
    callback=_bytes,
    metavar="BYTES",
    help="Memory that a job's processes may use before they are ended, such as 2GiB.",
)
@click.option("--retries", type=click.IntRange(min=0), help="Further attempts when a job's worker died. [default: 0]")
@click.option("--threads", type=click.IntRange(min=1), help="BLAS/OpenMP threads and cores of a job. [default: 1]")
@click.option("--seed", type=int, help="The batch's seed. [default: the spec's, else drawn and shown]")
@click.option("--name", help="The batch's name. [default: the spec's, else the function's]")
@click.option("--output", type=click.Path(), help="Write each result to FILE.csv or FILE.jsonl as its job ends.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
@_later_options
def run(
    what: str,
    parameters: tuple[str, ...],
    zipped: bool,
    workers: int | None,
    time_limit: float | None,
    memory_limit: int | None,
    retries: int | None,
    threads: int | None,
    seed: int | None,
    name: str | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Run a function over many parameter points, each call a job in a process of its own.

    SPEC.toml describes the batch; or name the function as module:function or path/to/file.py:function, and its
    parameters with -p.  Results are printed as a table, failures and progress go to stderr.
    """
    if output is not None:
        check_output(output)
    options = {"time_limit": time_limit, "memory_limit": memory_limit, "retries": retries, "threads": threads}
    plan = make_plan(what, parameters, zipped=zipped, seed=seed, name=name, options=options)
    if seed is not None and not plan.seeding.used:
        click.echo(f"jobrunner: note: {plan.target.name}() takes no seed, so --seed changes nothing", err=True)
    batch = _Batch(plan, as_json, open_output(output, plan.points.names) if output is not None else None)
    with stdout_reserved() if as_json else contextlib.nullcontext():
        code = batch.run(workers)
    batch.print()
    raise click.exceptions.Exit(ENGINE_FAILED if batch.fault is not None and code in (ALL_DONE, SOME_FAILED) else code)


class _Batch:
    """One run of a plan: what its outcomes feed, and what is printed at the end."""

    def __init__(self, plan: Plan, as_json: bool, writer: OutputWriter | None) -> None:
        self.plan = plan
        self.writer = writer
        self.fault: str | None = None  # why the engine or the output failed
        self.table = ResultTable(plan.name, plan.points)
        self.documents: list[dict[str, Any]] | None = [] if as_json else None
        self.failures: list[Outcome] = []  # the first _FAILURES_SHOWN
        self.counts = dict.fromkeys(OutcomeStatus, 0)
        self.elapsed_s = 0.0
        self.stop = StopRequest()

    def run(self, workers: int | None) -> int:
        """Run the batch and return the exit code."""
        try:
            executor = LocalExecutor(max_workers=workers, **self.plan.options)
        except (TypeError, ValueError) as error:
            raise WrongUse(str(error)) from error
        except OSError as error:
            raise EngineFailed(f"the workers can't be started: {error}") from error

        def kill() -> None:
            executor.shutdown(wait=False, cancel_futures=True, kill_workers=True)

        begun = time.monotonic()
        with Interrupts(self.stop, kill) as interrupts:
            whole = False
            try:
                self.run_on(executor)
                whole = not self.stop.requested
            finally:
                executor.shutdown(wait=True, cancel_futures=True, kill_workers=not whole)
                self.close_writer()
        self.elapsed_s = time.monotonic() - begun
        if interrupts.exit_code is not None:
            return interrupts.exit_code
        if self.fault is not None:
            return ENGINE_FAILED
        return SOME_FAILED if self.counts[OutcomeStatus.FAILED] else ALL_DONE

    def run_on(self, executor: LocalExecutor) -> None:
        plan = self.plan
        with Progress(plan.name, len(plan.points)) as progress:

            def on_outcome(outcome: Outcome) -> None:
                self.take(outcome)
                progress.advance(outcome)

            try:
                run_points(
                    plan.target.function,
                    plan.points,
                    executor,
                    seeding=plan.seeding,
                    on_outcome=on_outcome,
                    stop=self.stop,
                )
            except (ExecutorShutdownError, concurrent.futures.BrokenExecutor) as error:
                self.fault = f"the engine failed: {error}"
                self.stop.request()

    def take(self, outcome: Outcome) -> None:
        """Count and keep one outcome."""
        self.counts[outcome.status] += 1
        if self.writer is not None and self.fault is None:
            try:
                self.writer.write(outcome)
            except StoreError as error:
                # The results that can no longer be kept need not be computed; those that there are get printed.
                self.fault = str(error)
                self.stop.request()
        if outcome.status is OutcomeStatus.FAILED and len(self.failures) < _FAILURES_SHOWN:
            self.failures.append(outcome)
        if self.documents is None:
            self.table.add(outcome)
        elif outcome.status is not OutcomeStatus.CANCELLED:
            self.documents.append(outcome_as_json(outcome))

    def close_writer(self) -> None:
        if self.writer is not None:
            try:
                self.writer.close()
            except StoreError as error:
                self.fault = self.fault or str(error)

    def print(self) -> None:
        """Print the results on stdout, and the failures and the summary on stderr."""
        try:
            with may_be_closed():
                if self.documents is None:
                    self.table.print()
                else:
                    click.echo(json.dumps(self.document(self.documents), allow_nan=False, indent=2))
        except OSError as error:
            self.fault = self.fault or f"the results can't be printed: {error.strerror or error}"
        self.print_failures()
        click.echo(f"{self.plan.name}: {self.sentence()}", err=True)
        if self.fault is not None:
            click.echo(f"jobrunner: {self.fault}", err=True)

    def document(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "name": self.plan.name,
            "target": self.plan.target.text,
            "seed": self.plan.seeding.batch_seed if self.plan.seeding.used else None,
            "total": len(self.plan.points),
            "done": self.counts[OutcomeStatus.DONE],
            "failed": self.counts[OutcomeStatus.FAILED],
            "cancelled": self.not_run,
            "elapsed_s": self.elapsed_s,
            "results": sorted(results, key=lambda result: result["index"]),
        }

    @property
    def not_run(self) -> int:
        return len(self.plan.points) - self.counts[OutcomeStatus.DONE] - self.counts[OutcomeStatus.FAILED]

    def print_failures(self) -> None:
        names = self.plan.points.varying() or self.plan.points.names
        for outcome in sorted(self.failures, key=lambda failure: failure.index):
            point = describe({name: outcome.parameters[name] for name in names})
            click.echo(f"failed: {point}{': ' if point else ''}{outcome.cause}", err=True)
        more = self.counts[OutcomeStatus.FAILED] - len(self.failures)
        if more:
            click.echo(f"failed: {more} more; --output keeps all", err=True)

    def sentence(self) -> str:
        parts = [f"{self.counts[OutcomeStatus.DONE]} done", f"{self.counts[OutcomeStatus.FAILED]} failed"]
        if self.not_run:
            parts.append(f"{self.not_run} not run")
        seeding = self.plan.seeding
        seed = f" (seed {seeding.batch_seed}{', drawn' if seeding.drawn else ''})" if seeding.used else ""
        return f"{', '.join(parts)} in {self.elapsed_s:.1f} s{seed}"
