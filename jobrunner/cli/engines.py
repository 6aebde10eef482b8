"""The executors that the command line can have a batch run on."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from jobrunner.batch import Target
from jobrunner.cli.exits import EngineFailed, WrongUse
from jobrunner.cluster.executor import ClusterExecutor
from jobrunner.errors import JobRunnerError
from jobrunner.executors.local import LocalExecutor

__all__ = ["connect", "make_executor"]


def make_executor(
    engine: str,
    address: str | None,
    *,
    workers: int | None,
    uploads: Iterable[str],
    target: Target,
    options: Mapping[str, Any],
) -> LocalExecutor | ClusterExecutor:
    """The executor for a batch.

    Args:
        engine: one of `ENGINES`.
        address: of the cluster; None: as the engine finds it by itself.
        workers: how many jobs run at a time; None: as many as fit.
        uploads: files for the jobs to import, besides the target's own.
        target: the batch's function; its module is sent to the nodes where it is no installed one.
        options: of the executor's jobs.

    Raises:
        WrongUse: the options don't go together, or one is out of range.
        EngineFailed: the engine can't be had.
    """
    if engine == "local":
        for option, given in (("--address", address), ("--upload", uploads)):
            if given:
                raise WrongUse(f"{option} is for a cluster: name it with --engine dask or --engine ray")
        try:
            return LocalExecutor(max_workers=workers, **options)
        except (TypeError, ValueError) as error:
            raise WrongUse(str(error)) from error
        except OSError as error:
            raise EngineFailed(f"the workers can't be started: {error}") from error
    paths = [*uploads, *_own_module(target)]
    return connect(engine, address, max_workers=workers, upload=paths, **options)


def connect(engine: str, address: str | None, **options: Any) -> ClusterExecutor:
    """An executor on a cluster.

    Args:
        engine: ``"dask"`` or ``"ray"``.
        address: of the cluster; None: as the engine finds it by itself.
        options: of the executor.

    Raises:
        WrongUse: an option is out of range, or a file to be sent can't be read.
        EngineFailed: the engine is not installed, or there is no cluster.
    """
    # Light: they import their engines when they are made.
    from jobrunner.cluster.dask import DaskExecutor
    from jobrunner.cluster.ray import RayExecutor

    try:
        return DaskExecutor(address, **options) if engine == "dask" else RayExecutor(address, **options)
    except (TypeError, ValueError, FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise WrongUse(str(error)) from error
    except (ImportError, JobRunnerError, OSError) as error:
        raise EngineFailed(str(error)) from error


def _own_module(target: Target) -> list[str]:
    """The file, or the package's directory, of a target's module, where that is not installed."""
    module: ModuleType | None = sys.modules.get(getattr(target.function, "__module__", None) or "")
    origin = getattr(module, "__file__", None)
    if module is None or origin is None:
        return []
    path = Path(origin).resolve()
    installed = {Path(place).resolve() for place in sysconfig.get_paths().values()}
    if any(place in path.parents for place in installed):
        return []
    depth = module.__name__.count(".") + (path.name == "__init__.py")
    return [str(path.parents[depth - 1] if depth else path)]
