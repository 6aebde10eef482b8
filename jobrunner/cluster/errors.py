"""What goes wrong on a cluster, in words that say what to do."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jobrunner.cluster.job import ClusterJob
from jobrunner.errors import ClusterLostError, JobError, SerializationError, WorkerDiedError
from jobrunner.memory import format_bytes

__all__ = [
    "evicted",
    "lost_cluster",
    "lost_node",
    "names_missing_module",
    "remedy_for_missing_module",
    "too_large",
    "undelivered",
]

_MISSING = re.compile(r"No module named '([^']+)'")


def too_large(job: ClusterJob, nodes: Sequence[Mapping[str, Any]]) -> JobError:
    """The error of a job that no node has the memory or the cores for."""
    memory, threads = (max(node[what] for node in nodes) for what in ("memory", "threads"))
    limit = job.options.memory_bytes
    wanted = f"its threads={job.options.threads} are more than the {threads} cores"
    if limit > memory:
        wanted = f"its memory_limit of {format_bytes(limit)} is more than the {format_bytes(memory)}"
    elif job.options.threads <= threads:
        wanted = (
            f"its memory_limit of {format_bytes(limit)} and threads={job.options.threads} are together more than those"
        )
    return JobError(f"job {job.job_id} ({job.name}) can't be run: {wanted} of any node", job_id=job.job_id)


def undelivered(job: ClusterJob, what: str, nbytes: int, engine: str, why: str) -> SerializationError:
    """The error of a job whose arguments or result the engine can't carry."""
    return SerializationError(
        f"{what} of job {job.job_id} ({job.name}), {format_bytes(nbytes)}, can't be carried by {engine}: {why}. Let "
        "jobs read and write what is so large in files that all nodes have, or give the engine more room.",
        job_id=job.job_id,
    )


def lost_node(job: ClusterJob, node: str, why: str) -> WorkerDiedError:
    """The error of a job whose node is gone."""
    return WorkerDiedError(
        f"node {node} was lost while it had job {job.job_id} ({job.name}): {why}. {_remedy_for_loss(job)}",
        job_id=job.job_id,
        pid=job.fields.get("pid"),
    )


def evicted(job: ClusterJob, why: str) -> WorkerDiedError:
    """The error of a job that the engine has no place for any more."""
    return WorkerDiedError(
        f"job {job.job_id} ({job.name}) was ended: {why}. {_remedy_for_loss(job)}",
        job_id=job.job_id,
        pid=job.fields.get("pid"),
    )


def _remedy_for_loss(job: ClusterJob) -> str:
    if job.cancelling:
        return "It was being cancelled, and is not run again; whether its processes have ended is not known."
    return "Give jobs retries, if they may be run again elsewhere."


def lost_cluster(job: ClusterJob, why: str) -> ClusterLostError:
    """The error of a job whose cluster is gone."""
    return ClusterLostError(
        f"job {job.job_id} ({job.name}) is lost: {why}. "
        + (
            "It was being cancelled; whether its processes have ended is not known."
            if job.cancelling
            else "Submit it to a new executor once the cluster is back."
        ),
        job_id=job.job_id,
    )


def names_missing_module(cause: str) -> bool:
    """Whether what a job raised, in words, tells of a module that is not there."""
    return _MISSING.search(cause) is not None


def remedy_for_missing_module(error: BaseException, node: str, engine: str) -> str | None:
    """What to do where a job failed for want of a module that its node lacks; None where it is another matter."""
    found = _MISSING.search(str(error))
    if found is None or not (isinstance(error, SerializationError) or _is_here(found[1])):
        return None
    return (
        f"node {node} lacks the module {found[1]!r}: install it there, or send it along "
        f"({engine.capitalize()}Executor(upload=[...]), or --upload)"
    )


def _is_here(module: str) -> bool:
    """Whether the calling process could import a module."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
