"""``jobrunner run``: a batch from the command line."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import click

from jobrunner.batch import ENGINES, Batch, StopRequest, Summary, check_output
from jobrunner.batch.export import check_writable, export
from jobrunner.batch.records import BatchRecord
from jobrunner.batch.store import Store
from jobrunner.cli.console import may_be_closed, stdout_reserved
from jobrunner.cli.engines import make_executor
from jobrunner.cli.exits import ALL_DONE, ENGINE_FAILED, SOME_FAILED, EngineFailed, WrongUse
from jobrunner.cli.interrupt import Interrupts
from jobrunner.cli.outcome import print_document, print_failures, print_table
from jobrunner.cli.plan import Plan, Request, make_plan
from jobrunner.cli.store_options import note, refuse_store
from jobrunner.cluster.executor import ClusterExecutor
from jobrunner.errors import ExecutorShutdownError, SpecError, StoreError
from jobrunner.executors.local import LocalExecutor
from jobrunner.options import check_bytes, check_seconds
from jobrunner.texts import printable

__all__ = ["run"]

_PROGRESS: Mapping[str, bool | str | None] = {"auto": None, "bar": True, "plain": "plain", "none": False}


def _seconds(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    try:
        return check_seconds("the time", value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The amount as it was given, once it is known to be one: where the jobs will run tells how much there is."""
    try:
        check_bytes("the memory", value, bounded=False)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error
    return value


@click.command(
    epilog="""\b
Examples:
  jobrunner run examples/ising.toml
  jobrunner run examples/ising.py:simulate -p size=16,32 -p temperature=1.5:3.5:0.5 -p sweeps=1000
  jobrunner run simulation:run -p mode=fast,exact --replicates 10 --memory-limit 2GiB --output results.csv
  jobrunner run --store overnight.db --name ising --retry-failed

\b
The same command again goes on where it was: what is done is not run again, more values run only what is new.

\b
Values of -p, first match wins:
  size=16            whole JSON is one value, a list included: 'cell=[1,2]'
  t=1.5:3.5:0.1      a range start:stop[:step]; the stop is included if hit
  size=16,32,64      comma-separated values
  mode=fast          text; quoted as JSON where it would be read as one of the above: 'mode="1:2"'

\b
Exit codes: 0 all done; 1 some jobs failed; 2 wrong use; 3 the store, the engine or the output failed;
130 interrupted by Ctrl-C; 143 ended by SIGTERM. A second Ctrl-C kills at once."""
)
@click.argument("what", metavar="[SPEC.toml|TARGET]", required=False)
@click.option("-p", "--param", "parameters", metavar="KEY=VALUES", multiple=True, help="A parameter and its values.")
@click.option("--points", "points_file", metavar="FILE", help="Points from FILE.csv or FILE.jsonl, one a line.")
@click.option("--zip", "zipped", is_flag=True, help="Pair the lists of values instead of taking their product.")
@click.option("--replicates", type=click.IntRange(min=1), help="Run each point so often, with seeds of their own.")
@click.option("--seed", type=int, help="The batch's seed. [default: the store's, the spec's, else drawn and shown]")
@click.option("--name", help="The batch's name. [default: the spec's, else the function's]")
@click.option("--store", metavar="FILE", help="Where the batch is kept. [default: the spec's, else jobrunner.db]")
@click.option("--retry-failed", is_flag=True, help="Run points again that have failed.")
@click.option("--accept-changes", is_flag=True, help="Go on although function, fixed parameters or seed have changed.")
@click.option("--fresh", is_flag=True, help="Begin anew; what there is stays under another name.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes. [default: CPUs / threads]")
@click.option("--time-limit", type=float, callback=_seconds, metavar="SECONDS", help="Seconds that a job may take.")
@click.option(
    "--memory-limit", callback=_bytes, metavar="BYTES", help="Memory that a job's processes may use, such as 2GiB."
)
@click.option("--retries", type=click.IntRange(min=0), help="Further attempts when a job's worker died. [default: 0]")
@click.option("--threads", type=click.IntRange(min=1), help="BLAS/OpenMP threads and cores of a job. [default: 1]")
@click.option("--max-failures", type=click.IntRange(min=1), help="Stop when so many points have failed.")
@click.option("--stop-on-error", is_flag=True, help="Stop when a point has failed: --max-failures 1.")
@click.option("--output", type=click.Path(), help="Write all results to FILE.csv or FILE.jsonl at the end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
@click.option(
    "--progress",
    type=click.Choice(list(_PROGRESS)),
    default="auto",
    help="A bar, a line each 30 seconds, or nothing. [default: a bar on a terminal]",
)
@click.option(
    "--engine", type=click.Choice(ENGINES), help="Where the jobs run. [default: the spec's, else local: this machine]"
)
@click.option("--address", help="Of the cluster: tcp://host:8786 for dask; host:6379 or auto for ray.")
@click.option("--upload", "uploads", metavar="PATH", multiple=True, help="A module that jobs import on the nodes.")
def run(
    what: str | None,
    output: str | None,
    as_json: bool,
    progress: str,
    retry_failed: bool,
    accept_changes: bool,
    fresh: bool,
    stop_on_error: bool,
    max_failures: int | None,
    time_limit: float | None,
    memory_limit: str | None,
    retries: int | None,
    threads: int | None,
    **described: Any,
) -> None:
    """Run a function over many parameter points, each call a job in a process of its own.

    SPEC.toml describes the batch; or name the function as module:function or path/to/file.py:function, and its
    parameters with -p. With neither, the batch that the store has goes on. Results are printed as a table; failures
    and progress go to stderr.
    """
    if output is not None:
        check_output(output)
    if stop_on_error and max_failures is not None:
        raise WrongUse("--stop-on-error and --max-failures exclude each other")
    options = {
        "time_limit": time_limit,
        "memory_limit": memory_limit,
        "retries": retries,
        "threads": threads,
        "max_failures": 1 if stop_on_error else max_failures,
    }
    try:
        plan = make_plan(Request(what=what, options=options, **described))
    except (TypeError, ValueError) as error:
        raise WrongUse(str(error)) from error
    if described["seed"] is not None and not plan.batch.takes_seed:
        click.echo(f"jobrunner: note: {plan.batch.target.name}() takes no seed, so --seed changes nothing", err=True)
    if output is not None:
        refuse_store(output, plan.batch.store)
        check_writable(output)
    resumption = {"retry_failed": retry_failed, "accept_changes": accept_changes, "fresh": fresh}

    def make() -> LocalExecutor | ClusterExecutor:
        batch = plan.batch
        return make_executor(
            plan.engine,
            plan.address,
            workers=plan.workers,
            uploads=plan.uploads,
            target=batch.target,
            options=batch.options,
        )

    runner = _Runner(plan, make, resumption, _PROGRESS[progress])

    def show(summary: Summary) -> str | None:
        return _show(plan.batch, summary, output, as_json)

    raise click.exceptions.Exit(runner.run(show, stdout_reserved if as_json else contextlib.nullcontext))


class _Runner:
    """One run of a plan on an executor of its own, with Ctrl-C and SIGTERM taken care of."""

    def __init__(
        self,
        plan: Plan,
        make: Callable[[], LocalExecutor | ClusterExecutor],
        resumption: Mapping[str, bool],
        progress: bool | str | None,
    ) -> None:
        self.plan = plan
        self.make = make
        self.resumption = resumption
        self.progress = progress
        self.stop = StopRequest()

    def run(
        self,
        show: Callable[[Summary], str | None],
        while_running: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> int:
        """Run the batch, show what became of it, and return the exit code.

        Args:
            show: prints and writes the results, and says what kept it from that.
            while_running: what is entered while jobs run.
        """
        executor = self.make()

        def kill() -> None:
            executor.shutdown(wait=False, cancel_futures=True, kill_workers=True)

        # A signal that comes while the results are written does not cut them short.
        with Interrupts(self.stop, kill) as interrupts:
            with while_running():
                summary = self.run_on(executor)
            fault = show(summary)
        if fault is not None:
            click.echo(f"jobrunner: {fault}", err=True)
        if interrupts.exit_code is not None:
            return interrupts.exit_code
        if fault is not None:
            return ENGINE_FAILED
        return SOME_FAILED if summary.failed or summary.cancelled else ALL_DONE

    def run_on(self, executor: LocalExecutor | ClusterExecutor) -> Summary:
        """Run the batch, and end the executor."""
        batch = self.plan.batch
        whole = False
        try:
            summary = batch.run(
                executor,
                self.progress,
                fresh=self.resumption["fresh"],
                accept_changes=self.resumption["accept_changes"],
                retry_failed=self.resumption["retry_failed"],
                stop=self.stop,
                on_message=lambda message: note(printable(message)),
            )
            whole = not self.stop.requested
        except (ExecutorShutdownError, concurrent.futures.BrokenExecutor) as error:
            raise EngineFailed(f"the engine failed: {error}; what was done is in {batch.store}") from error
        finally:
            executor.shutdown(wait=True, cancel_futures=True, kill_workers=not whole)
        return summary


def _show(batch: Batch, summary: Summary, output: str | None, as_json: bool) -> str | None:
    """Print and write what the store has of a batch that was run; returns why that failed, if it did."""
    fault = None
    with Store(batch.store) as store:
        try:
            record = store.batch(batch.name)
        except SpecError:
            click.echo(f"{printable(batch.name)}: stopped before its points were stored; nothing has run", err=True)
            return None
        if output is not None:
            try:
                export(store, record, output)
            except StoreError as error:
                fault = str(error)
        try:
            with may_be_closed():
                if as_json:
                    print_document(store, record, summary)
                else:
                    print_table(store, record)
        except OSError as error:
            fault = fault or f"the results can't be printed: {error.strerror or error}"
        print_failures(store, record)
    click.echo(f"{printable(batch.name)}: {_sentence(batch, record, summary)}", err=True)
    return fault


def _sentence(batch: Batch, record: BatchRecord, summary: Summary) -> str:
    parts = [f"{summary.done} done", f"{summary.failed} failed"]
    if summary.skipped:
        parts.append(f"{summary.skipped} done before")
    if summary.cancelled:
        parts.append(f"{summary.cancelled} not run")
    drawn = ", drawn" if record.seed_drawn else ""
    seed = f" (seed {record.seed}{drawn})" if batch.takes_seed else ""
    stopped = f"; stopped: {summary.stopped}" if summary.stopped else ""
    return f"{', '.join(parts)} in {summary.elapsed_s:.1f} s{seed}{stopped}"
