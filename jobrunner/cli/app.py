"""The command ``jobrunner``: its subcommands, and what its errors become."""

from __future__ import annotations

import concurrent.futures
import traceback
from typing import Any

import click

from jobrunner import __version__
from jobrunner.batch.advice import AdviceError
from jobrunner.cli.bench import bench
from jobrunner.cli.cancel import cancel
from jobrunner.cli.doctor import doctor
from jobrunner.cli.exits import INTERRUPTED, EngineFailed, WrongUse
from jobrunner.cli.failures import failures
from jobrunner.cli.list_batches import list_batches
from jobrunner.cli.logs import logs
from jobrunner.cli.report import report
from jobrunner.cli.results import results
from jobrunner.cli.run import run
from jobrunner.cli.status import status
from jobrunner.errors import ExecutorShutdownError, SpecError, StoreError

__all__ = ["app"]


class _App(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AdviceError as error:
            raise WrongUse(error.command_line) from error
        except SpecError as error:
            raise WrongUse(str(error)) from error
        except (StoreError, ExecutorShutdownError, concurrent.futures.BrokenExecutor) as error:
            raise EngineFailed(str(error)) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            # Not the user's mistake, so whoever mends it needs the traceback; and not exit code 1, which is a job's.
            traceback.print_exc()
            raise EngineFailed("the above is a fault in jobrunner; please report it") from error


@click.group(
    cls=_App,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: jobrunner run examples/ising.toml --output results.csv",
)
@click.version_option(__version__, prog_name="jobrunner")
def app() -> None:
    """Run CPU-bound jobs in processes of their own, over many parameter points."""


for command in (run, bench, status, results, failures, logs, report, cancel, list_batches, doctor):
    app.add_command(command)
