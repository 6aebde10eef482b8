"""``jobrunner doctor``: the machine, the versions, the engines found, the limits in force, and a worker that works."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import psutil
from rich.table import Table
from rich.text import Text

from jobrunner import __version__
from jobrunner.backend import describe_machine
from jobrunner.cli.console import may_be_closed, plain_console
from jobrunner.cli.engines import connect
from jobrunner.cli.exits import ALL_DONE, ENGINE_FAILED, EngineFailed, WrongUse
from jobrunner.cluster.versions import VersionMismatchWarning, differences
from jobrunner.errors import JobRunnerError
from jobrunner.executors.local import LocalExecutor
from jobrunner.memory import group_memory
from jobrunner.options import default_max_workers
from jobrunner.packages import version_of

if sys.platform != "win32":
    import resource

__all__ = ["diagnose", "doctor"]

_REQUIRED = ("click", "cloudpickle", "loky", "psutil", "rich")
_OPTIONAL = ("numpy",)

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - asked for its size, nothing is put there

#: Seconds in which a worker has to start and answer.
_PATIENCE_S = 60.0

#: A worker needs about this many descriptors in the calling process, besides what the program itself has open.
_DESCRIPTORS_PER_WORKER = 16


@click.command(epilog="Example: jobrunner doctor --json")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the tables.")
@click.option("--engine", type=click.Choice(["dask", "ray"]), help="Show that cluster, too, and run a job on it.")
@click.option("--address", help="Of the cluster: tcp://host:8786 for dask; host:6379 or auto for ray.")
def doctor(as_json: bool, engine: str | None, address: str | None) -> None:
    """Show the machine, the versions, the engines and the limits in force, and check that a worker works.

    Exits with 3 if no worker starts and returns a result, or the cluster can't be reached.
    """
    if address is not None and engine is None:
        raise WrongUse("--address is of a cluster: name its kind with --engine dask or --engine ray")
    found = diagnose()
    if engine is not None:
        found["cluster"] = diagnose_cluster(engine, address)
    with may_be_closed():
        if as_json:
            click.echo(json.dumps(found, indent=2))
        else:
            _print(found)
    raise click.exceptions.Exit(ALL_DONE if found["worker"]["works"] else ENGINE_FAILED)


def diagnose() -> dict[str, Any]:
    """Everything that ``jobrunner doctor`` shows, as a dict that `json.dumps` takes.  Starts one worker.

    Returns:
        The sections ``machine, versions, engines, limits`` and ``worker``, and ``warnings``, a list of sentences.
        Sizes are in bytes; a limit that is not set is None.
    """
    limits = _limits()
    worker = _check_worker()
    return {
        "machine": {**describe_machine(), "memory_available_bytes": int(psutil.virtual_memory().available)},
        "versions": _versions(),
        "engines": _engines(),
        "limits": limits,
        "worker": worker,
        "warnings": _warnings(limits, worker),
    }


def diagnose_cluster(engine: str, address: str | None) -> dict[str, Any]:
    """What ``jobrunner doctor`` shows of a cluster, where it runs one job.

    Args:
        engine: ``"dask"`` or ``"ray"``.
        address: of the cluster; None: as the engine finds it by itself.

    Returns:
        What became of the job, and each node by its name: host, cores, bytes of memory, versions, and how its packages
        differ from those here.

    Raises:
        EngineFailed: the cluster can't be reached, or runs no job.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VersionMismatchWarning)  # told below
        executor = connect(engine, address, spare_workers=0)
    with executor:
        if not executor.nodes:
            raise EngineFailed(f"the {engine} cluster at {executor.address} has no nodes: start workers for it")
        begun = time.monotonic()
        try:
            executor.submit(os.getpid).result(timeout=_PATIENCE_S)
        except (JobRunnerError, TimeoutError) as error:
            raise EngineFailed(f"the {engine} cluster at {executor.address} runs no job: {error}") from error
        nodes = {
            name: {
                **{key: node[key] for key in ("host", "cores", "python", "jobrunner")},
                "memory_bytes": node["memory"],
                "differs": differences(node),
            }
            for name, node in executor.nodes.items()
        }
        return {"address": executor.address, "first_job_s": round(time.monotonic() - begun, 4), "nodes": nodes}


def _versions() -> dict[str, str | None]:
    implementation = f"{platform.python_implementation()} {platform.python_version()}"
    packages = {name: version_of(name) for name in (*_REQUIRED, *_OPTIONAL)}
    return {"jobrunner": __version__, "python": implementation, "executable": sys.executable, **packages}


def _engines() -> dict[str, str]:
    return {
        "local": f"available, on loky {version_of('loky')}",
        "inline": "available, in the calling process",
        "dask": _engine("distributed", "dask"),
        "ray": _engine("ray", "ray"),
    }


def _engine(package: str, extra: str) -> str:
    version = version_of(package)
    if version is None:
        return f"not installed: pip install 'jobrunner[{extra}]'"
    return f"available, on {package} {version}"


def _limits() -> dict[str, int | float | None]:
    disk = shutil.disk_usage(_SHARED_MEMORY) if os.path.isdir(_SHARED_MEMORY) else None
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {
        "default_max_workers": default_max_workers(),
        "cpus_by_affinity": affinity,
        "cpus_by_cgroup": _cgroup_cpus(),
        "memory_by_cgroup_bytes": group_memory(),
        "open_files": _resource_limit("RLIMIT_NOFILE", 0),
        "open_files_hard": _resource_limit("RLIMIT_NOFILE", 1),
        "processes": _resource_limit("RLIMIT_NPROC", 0),
        "shared_memory_bytes": disk.total if disk else None,
        "shared_memory_free_bytes": disk.free if disk else None,
    }


def _resource_limit(name: str, which: int) -> int | None:
    """The soft (0) or hard (1) limit of a resource; None for none."""
    if sys.platform == "win32" or not hasattr(resource, name):
        return None
    limit = resource.getrlimit(getattr(resource, name))[which]
    return None if limit == resource.RLIM_INFINITY else limit


def _cgroup_cpus() -> float | None:
    """CPUs by the quota of the cgroup or any above it; None for no quota."""
    pairs = [text.split() for text in _cgroup_files("cpu.max")]
    legacy = Path("/sys/fs/cgroup/cpu")
    pairs.append([_read(legacy / "cpu.cfs_quota_us") or "-1", _read(legacy / "cpu.cfs_period_us") or "100000"])
    quotas = [int(quota) / int(period) for quota, period in pairs if quota not in ("max", "-1")]
    return min(quotas, default=None)


def _cgroup_files(name: str) -> list[str]:
    """The contents of a file in this process's cgroup (version 2) and in those above it."""
    root = Path("/sys/fs/cgroup")
    membership = _read(Path("/proc/self/cgroup")) or ""
    own = next((line[3:] for line in membership.splitlines() if line.startswith("0::")), "/")
    group = root / own.strip("/")
    texts = [_read(each / name) for each in (group, *group.parents) if each == root or root in each.parents]
    return [text for text in texts if text]


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _check_worker() -> dict[str, Any]:
    """Start a worker, run a job in it, and say how that went."""
    begun = time.monotonic()
    try:
        with LocalExecutor(max_workers=1, spare_workers=0) as executor:
            pid = executor.submit(os.getpid).result(timeout=_PATIENCE_S)
            first_s = time.monotonic() - begun
            again = time.monotonic()
            executor.submit(os.getpid).result(timeout=_PATIENCE_S)
            next_s = time.monotonic() - again
    except Exception as error:  # whatever it is, it is what the user wants to know
        return {"works": False, "error": f"{type(error).__name__}: {error}"}
    if pid == os.getpid():
        return {"works": False, "error": "the job ran in the calling process"}
    return {
        "works": True,
        "first_job_s": round(first_s, 4),
        "next_job_s": round(next_s, 6),
    }


def _warnings(limits: Mapping[str, Any], worker: Mapping[str, Any]) -> list[str]:
    warnings = []
    if not worker["works"]:
        warnings.append(f"no worker could be started: {worker['error']}")
    needed = limits["default_max_workers"] * _DESCRIPTORS_PER_WORKER + 64
    if limits["open_files_hard"] is not None and limits["open_files_hard"] < needed:
        warnings.append(
            f"at most {limits['open_files_hard']} files may be open, and {limits['default_max_workers']} workers may "
            f"need {needed}: raise it (ulimit -n) or use fewer workers"
        )
    shared = limits["shared_memory_free_bytes"]
    if shared is not None and shared < 64 * 2**20:
        warnings.append(
            f"{_SHARED_MEMORY} has only {_size(shared)} free; libraries that share memory need more (docker --shm-size)"
        )
    cpus = limits["cpus_by_cgroup"]
    if cpus is not None and cpus < 1:
        warnings.append(f"the cgroup allows {cpus:g} of a CPU, so jobs are throttled")
    return warnings


def _print(found: Mapping[str, Any]) -> None:
    console = plain_console()
    for section in ("machine", "versions", "engines", "limits", "worker"):
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, value in found[section].items():
            table.add_row(
                Text(f"  {name.removesuffix('_bytes').removesuffix('_s').replace('_', ' ')}"), Text(_shown(name, value))
            )
        console.print(Text(section, style="bold"))
        console.print(table)
    if "cluster" in found:
        _print_cluster(found["cluster"])
    for warning in found["warnings"]:
        console.print(Text(f"warning: {warning}", style="yellow"))


def _print_cluster(cluster: Mapping[str, Any]) -> None:
    console = plain_console()
    console.print(Text(f"cluster at {cluster['address']}, first job after {cluster['first_job_s']:.2f} s", "bold"))
    table = Table(box=None, pad_edge=False)
    for title in ("  node", "host", "cores", "memory", "python", "differs from here"):
        table.add_column(title)
    for name, node in cluster["nodes"].items():
        row = (f"  {name}", node["host"], node["cores"], _size(node["memory_bytes"]), node["python"])
        table.add_row(*(Text(str(cell)) for cell in row), Text("; ".join(node["differs"]) or "-"))
    console.print(table)


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name.endswith("_bytes"):
        return _size(value)
    if name.endswith("_s"):
        return f"{value * 1000:.2f} ms"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.4g} {unit}"
